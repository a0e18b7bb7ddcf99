"""What a document's functions do, beside what a question's own solution does: evidence that no rewording takes away.

Both are called with the question's worked examples, with variants of them and with values of every kind, in the sandbox that
also runs what models write. Another task on the same subject has much the same words and hardly ever the same results.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.decontaminate.functions import program
from midtrain_dagster.decontaminate.index import Index
from midtrain_dagster.decontaminate.words import Words
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.decontamination import Decontamination
from midtrain_dagster.sandbox import Sandbox

INSIDE = Path(__file__).with_name("behaviour_inside.py")
AT_ONCE = 40  # solutions, or pairs, of one sandbox, which keeps no more than a megabyte of what it prints
SAME, OTHER = 0.5, 0.25  # agreement from which on, and below which, two functions do the same or not: of 64 other tasks on a
# question's subject one agrees more, of 63 rewritten solutions 10 agree less, their arguments or results being of another kind
NEAR_SUBJECT, SURE = 0.45, 0.9  # cosine of what two functions are said to do, and the agreement that needs none
BEFORE, AFTER = 60, 200  # words beside a span that may belong to its function
SECONDS = 3.0  # of a pair, when every one of them takes the CPU time that it may
NOT_ISOLATED = "nothing isolates them on this machine; install bubblewrap to find questions whose functions were rewritten"


@cache
def sandbox() -> Sandbox | None:
    """The sandbox in which functions run; None where nothing isolates on this machine, and this evidence is not taken."""
    try:
        return Sandbox.find()
    except MidtrainError:
        return None


def sandbox_for(settings: Decontamination) -> Sandbox | None:
    """The sandbox, where the settings have functions run and this machine has one."""
    return sandbox() if settings.run_functions else None


def runs_in(settings: Decontamination) -> str | None:
    """What isolates the functions that are run on this machine; None where none are: by the settings, or for want of a sandbox."""
    box = sandbox_for(settings) if settings.method == "cascade" else None
    return box.isolation if box is not None else None


def of_spans(pairs: pl.DataFrame, worth: pl.Expr, documents: Words, index: Index) -> pl.Series:
    """`behaviours` of those pairs (row, unit, first_word, end_word) that are worth it, and have a function on both sides."""
    asked = pairs.with_row_index().filter(worth).select("index", "row", "unit", "first_word", "end_word").rows()
    texts = [_around(documents, row, first, end) for _, row, _, first, end in asked]
    said: list[float | None] = [None] * len(pairs)
    for (i, *_), share in zip(asked, behaviours(texts, [unit for _, _, unit, _, _ in asked], index), strict=True):
        said[i] = share
    return pl.Series("behaves", said, dtype=pl.Float64)


def _around(documents: Words, row: int, first: int, end: int) -> str:
    """Whole lines with a span, and some words before and after it: a function is longer than its docstring."""
    first = max(int(documents.offsets[row]), first - BEFORE)
    end = min(int(documents.offsets[row + 1]), end + AFTER)
    low, high = int(documents.text_offsets[row]), int(documents.text_offsets[row + 1])
    text = documents.data[low:high].tobytes()
    begin = text.rfind(b"\n", 0, int(documents.starts[first]) - low) + 1
    stop = text.find(b"\n", int(documents.ends[end - 1]) - low)
    return text[begin : stop if stop >= 0 else len(text)].decode("utf-8", "replace")


def behaviours(texts: Sequence[str], units: Sequence[int], index: Index) -> list[float | None]:
    """For each text and unit how far the text's best function agrees with the unit's solution: 1 in every outcome, 0 in no
    more of them than a function that always gives the most frequent one. Null where there is nothing to run or to compare.
    """
    box = sandbox_for(index.settings)
    if box is None:
        return [None] * len(units)
    found = {i: program(text) for i, (text, unit) in enumerate(zip(texts, units, strict=True)) if index.task(unit) is not None}
    programs = {i: written for i, written in found.items() if written is not None}
    known = _outcomes(sorted({units[i] for i in programs}), index, box)
    asked = [i for i in programs if len({outcome for _, outcome in known[units[i]]}) > 1]
    pairs: list[dict[str, Any]] = [{"known": known[units[i]], **programs[i]._asdict()} for i in asked]
    said: list[float | None] = [None] * len(units)
    for i, share in zip(asked, _run(pairs, box), strict=True):
        said[i] = share
    return said


def _outcomes(units: list[int], index: Index, box: Sandbox) -> dict[int, list[tuple[str, str]]]:
    """What the units' solutions return, found out once."""
    missing = [unit for unit in units if unit not in index.outcomes]
    tasks = [task._asdict() for task in map(index.task, missing) if task is not None]
    index.outcomes.update(zip(missing, _run(tasks, box), strict=True))
    return {unit: index.outcomes[unit] for unit in units}


def _run(asked: list[dict[str, Any]], box: Sandbox) -> list[Any]:
    """`behaviour_inside` in the sandbox, AT_ONCE at a time."""
    answers: list[Any] = []
    code = INSIDE.read_text(encoding="utf-8")
    for at in range(0, len(asked), AT_ONCE):
        some = asked[at : at + AT_ONCE]
        outcome = box.run(code, stdin=json.dumps(some), timeout=60 + SECONDS * len(some))
        said = [json.loads(line) for line in outcome.stdout.splitlines()]
        if outcome.status != "ok" or len(said) != len(some):
            raise MidtrainError(
                f"decontaminate: the sandbox that runs functions ended early ({outcome.status}: {outcome.stderr[-300:].strip()}); "
                "run with --no-run-functions to do without"
            )
        answers += said
    return answers
