"""A small project in a directory of its own: real files, the fake encoder, a scripted teacher, a recipe of seconds."""

import json
import textwrap
from pathlib import Path

import yaml

PROSE = [
    "The river bends twice before it reaches the mill, and in spring the water is high enough to turn both wheels at once.",
    "She kept the letters in a tin box under the stairs, sorted by year, and never showed them to anyone but her sister.",
    "A good map says as much by what it leaves out as by what it shows; the surveyor had learnt this the hard way.",
    "In the evening the square filled with people who had nothing to sell and no wish to buy, only to be seen walking.",
    "The baker's son could tell by the smell of the smoke which of the ovens had been lit, and with what kind of wood.",
    "Nobody remembered who had planted the pear tree, but everyone agreed on the week in which its fruit was ripe.",
]


def prose(number: int) -> str:
    """A few sentences, different for every number."""
    chosen = [PROSE[(number * k + k) % len(PROSE)] for k in (1, 2, 5)]
    return f"Notebook {number}, page {number * 7 % 31}. " + " ".join(chosen) + f" That was on day {number * 13 % 365}."


def code(number: int) -> str:
    """A small module, different for every number."""
    return textwrap.dedent(
        f'''
        """Series number {number}."""


        def term_{number}(n: int) -> int:
            """Return the n-th term: {number} times n plus {number % 7}."""
            return {number} * n + {number % 7}


        def partial_sum_{number}(n: int) -> int:
            total = 0
            for k in range(n):
                total += term_{number}(k)
            return total
        '''
    ).strip()


QUESTIONS = [
    {
        "question": f"A gardener plants {a} rows of tulips with {b} bulbs in each row and gives away {c} bulbs to a neighbour "
        "who helped her carry the soil. How many bulbs does she keep for her own garden?",
        "answer": f"She plants {a} * {b} = {a * b} bulbs. She keeps {a * b} - {c} = {a * b - c}.\n#### {a * b - c}",
    }
    for a, b, c in ((12, 7, 9), (5, 31, 14), (8, 8, 3))
]


def write_project(root: Path, documents: int = 60) -> Path:
    """Write sources, benchmark rows and midtrain.yaml below `root`; returns the project file."""
    leak = {"id": "leak", "text": f"{prose(999)}\n\n{QUESTIONS[0]['question']}\n\n{prose(998)}"}
    rows = [{"id": f"p{i}", "text": prose(i)} for i in range(documents)]
    write_lines(root / "prose.jsonl", [*rows, leak, {"id": "copy", "text": prose(3)}])
    for i in range(documents):
        path = root / "code" / f"series_{i}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code(i))
    write_lines(root / "rows" / "gardener_test.jsonl", QUESTIONS)
    values = {
        "name": "small",
        "storage": "lake",
        "automatic": False,
        "sources": [
            {"name": "prose", "kind": "jsonl", "location": "prose.jsonl", "domain": "prose", "license": "CC0-1.0"},
            {"name": "code", "kind": "code", "location": "code", "domain": "code", "license": "MIT"},
        ],
        "generators": [
            {"name": "asked", "kind": "questions", "parents": ["prose"], "limit": 6, "domain": "qa", "minimum_parent_words": 10}
        ],
        "teacher": {
            "kind": "fake",
            "script": {"": "Question: What bends twice before it reaches the mill?\nAnswer: The river."},
        },
        "embedder": {"model": "fake"},
        "raters": [
            {
                "name": "codelike",
                "kind": "fasttext",
                "positives": {"condition": "source = 'code'"},
                "negatives": {"condition": "source = 'prose'"},
                "training": {"dim": 8, "bucket": 2000, "epoch": 3},
            }
        ],
        "benchmarks": [{"name": "gardener", "path": "rows/gardener_test.jsonl"}],
        "recipes": ["smoke"],
    }
    file = root / "midtrain.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
