"""Runs inside the sandbox: do the functions of a text do what a question's own solution does? Standard library only.

Standard input is a JSON list. For {"code", "entry", "calls"}, a question's solution, one line of JSON is printed: what it returns for
which arguments, [[arguments, outcome], …]. For {"known", "code", "names"}, these and the functions of a text: how far the best
function agrees, or null where none of them can be compared.
Whatever is run has a process and CPU time of its own, so that an endless loop costs one answer.
"""

import ast
import copy
import itertools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

SECONDS = 1  # of CPU a process: what was found until then counts
CALL = 0.02  # of CPU a call
PROBES = 48  # outcomes of the solution that are compared
TRIES = 400  # calls of the solution before it is given up to find so many
FIRST = 8  # outcomes: a function that gives none of so many is another one
LEAST, ANSWERED = 6, 0.5  # outcomes, and share of the calls that must not fail, for a comparison
LONGEST = 400  # characters of arguments and of an outcome
POOL: tuple[tuple[Any, ...], ...] = (
    (5, 12, 1, 30, 0, 7, 2, 100, -3, 18),
    ("abcab", "Hello World 12", "level", "xyZ, aBc", "3 4 five", "(()())", "10110", "aaa bb c", "", "a"),
    ([3, 1, 2, 3], [5, -4, 8, 0, 11], [10, 20, 30, 40, 50], [1], [2, 2, 7, 1], [], [-1, -2, 4], [9, 6, 3]),
    (["ab", "c", "abc"], ["Hello", "world", "a"], ["12", "7", "305"], [], ["x", "x", "yy"]),
    (2.5, 0.75, 10.0, -1.25, 3.14159),
    ([1.0, 2.5, 4.0], [0.3, 9.75, -2.0, 4.5], [7.0]),
    ([[1, 2], [3, 4]], [[5], [], [2, 8, 1]], [[0, 1, 0], [1, 1, 1]]),
    ({"a": 1, "b": 2}, {"x": "y"}, {}),
    (True, False),
)


def main() -> None:
    for asked in json.load(sys.stdin):
        said = apart(partial(agreement, asked)) if "known" in asked else apart(partial(outcomes, asked)) or []
        print(json.dumps(said), flush=True)


def apart(work: Callable[[Callable[[Any], object]], None]) -> Any:
    """The last thing that `work` says before it ends or its time does, from a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.signal(signal.SIGVTALRM, too_long)
        for number in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        try:
            work(lambda value: os.write(write, json.dumps(value).encode() + b"\n"))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        whole = [line for line in answers.read().splitlines(keepends=True) if line.endswith(b"\n")]
    os.waitpid(child, 0)
    try:
        return json.loads(whole[-1]) if whole else None
    except ValueError:
        return None


def functions(code: str) -> dict[str, Any]:
    """What a program defines; nothing where it fails."""
    names: dict[str, Any] = {"__name__": "candidate"}
    exec("from typing import *; import math, re, string, itertools, collections, functools", names)
    try:
        timed(lambda: exec(compile(code, "candidate", "exec"), names), 10 * CALL)
    except BaseException:
        return {}
    return names


def outcomes(task: dict[str, Any], say: Callable[[Any], object]) -> None:
    """(arguments, outcome) of the solution for the question's own calls, variants of them, and values of every kind.

    An outcome that is the one argument is left out: whatever returns what it was given has it too.
    """
    solution = functions(task["code"]).get(task["entry"])
    if solution is None:
        return
    calls = [ast.literal_eval(call) for call in task["calls"]]
    known: list[tuple[str, str]] = []
    seen = set()
    for arguments in itertools.islice(itertools.chain(calls, *map(variants, calls), pooled(solution)), TRIES):
        key = repr(arguments)
        if key in seen or len(known) >= PROBES or len(key) > LONGEST:
            continue
        seen.add(key)
        outcome = called(solution, arguments)
        if outcome is not None and len(outcome) <= LONGEST and [outcome] != [*map(plain, arguments)]:
            known.append((key, outcome))
            if not len(known) % FIRST:
                say(known)
    say(known)


def agreement(pair: dict[str, Any], say: Callable[[Any], object]) -> None:
    """The highest agreement of a text's functions, with their arguments in any order: 0 until one was found, null where none agrees
    and one of them cannot be compared. Nothing is said of a program that does not run, for want of a module maybe."""
    others = functions(pair["code"])
    there = [others[name] for name in pair["names"] if callable(others.get(name))]
    probes = [(ast.literal_eval(key), outcome) for key, outcome in pair["known"]]
    size = len(probes[0][0])
    orders = list(itertools.permutations(range(size))) if size <= 3 else [tuple(range(size))]
    best, meant_for_others = 0.0, False
    for function, order in itertools.product(there, orders):
        say(best)
        share = agrees(function, order, probes)
        best, meant_for_others = max(best, share or 0.0), meant_for_others or share is None
    if there:
        say(None if meant_for_others and not best else best)


def agrees(function: Callable[..., Any], order: tuple[int, ...], probes: list[tuple[tuple[Any, ...], str]]) -> float | None:
    """1 where a function gives every known outcome, 0 where it gives no more of them than one that always gives the most frequent.

    Calls that fail are left out, for a function may ask more of its arguments than the solution does; 0 where too few are left. None
    where the function itself gives always the same: it is meant for other arguments.
    """
    pairs: list[tuple[str, str]] = []
    for arguments, outcome in probes:
        if len(pairs) == FIRST and not any(own == known for own, known in pairs) and varied([own for own, _ in pairs]):
            return 0.0
        own = called(function, tuple(arguments[i] for i in order))
        if own is not None:
            pairs.append((own, outcome))
    wanted, given = [known for _, known in pairs], [own for own, _ in pairs]
    if len(pairs) < max(LEAST, len(probes) * ANSWERED) or not varied(wanted):
        return 0.0
    if not varied(given):
        return None
    usual = max(map(wanted.count, wanted)) / len(pairs)
    equal = sum(own == known for own, known in pairs) / len(pairs)
    return max(0.0, (equal - usual) / (1 - usual))


def varied(said: list[str]) -> bool:
    return len(set(said)) > 1


def called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str | None:
    """What a call gives, as text that tells no kinds of sequence and no last digits apart; None where it fails or takes long."""
    try:
        return plain(timed(lambda: function(*copy.deepcopy(arguments)), CALL))
    except BaseException:
        return None


def plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, (int, float)):
        return f"{value:.6g}" if abs(value) < 1e15 else repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(plain, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{plain(k)}:{plain(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ",".join(sorted(map(plain, value))) + "}"
    if isinstance(value, str):
        return repr(value)
    raise TypeError


def variants(arguments: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The same call with one argument changed a little."""
    for place, value in enumerate(arguments):
        for other in changed(value):
            yield (*arguments[:place], other, *arguments[place + 1 :])


def changed(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1, value * 2 + 1, value - 2]
    if isinstance(value, str):
        return [value[::-1], value[1:], value + value[:2], value.swapcase(), value.replace(" ", "")]
    if isinstance(value, (list, tuple)):
        inner = [[*value[:k], new, *value[k + 1 :]] for k in range(min(2, len(value))) for new in changed(value[k])[:2]]
        return [type(value)(other) for other in (value[::-1], value[1:], [*value, *value[:1]], *inner)]
    return []


def pooled(solution: Callable[..., Any]) -> Iterator[tuple[Any, ...]]:
    """Values of every kind for each argument, kinds in turn."""
    code = getattr(solution, "__code__", None)
    size = code.co_argcount - len(solution.__defaults__ or ()) if code else 0
    if not 1 <= size <= 3:
        return
    for turn in range(10 if size == 1 else 4):
        for kinds in itertools.product(POOL, repeat=size):
            yield tuple(kind[(turn * (1 + 2 * k) + k) % len(kind)] for k, kind in enumerate(kinds))


def timed(work: Callable[[], Any], seconds: float) -> Any:
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def too_long(number: int, frame: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    main()
