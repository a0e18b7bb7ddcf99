"""A leak on purpose: documents that hold benchmark questions, for the offline default to find and leave out.

Contamination in the wild looks like this: somebody quotes a benchmark's problem in a forum, with an answer and chatter around it.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

OPENINGS = (
    "I came across this problem yesterday and could not put it down.",
    "Posting my notes from the reading group, comments welcome.",
    "Somebody asked about this in the chat, so here it is in full.",
)
CLOSINGS = (
    "Let me know if you see a shorter way to do it.",
    "That is all for today; next week we look at another one.",
    "Hope this helps someone who is stuck in the same place.",
)


def write_leaks(questions: pl.DataFrame, out: Path, number: int) -> int:
    """Write `number` posts to a JSONL file, each with one question chosen by hash, and its answer. Returns how many.

    Every third is also reformatted: other white space, lower case, no punctuation marks at line ends. Equal questions, equal bytes.
    """
    chosen = draw(questions, number)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for position, question in enumerate(chosen):
            text = post(question["question"], question["answer"] or "", position)
            file.write(json.dumps({"id": f"leak-{position}", "text": text}, ensure_ascii=False) + "\n")
    partial.replace(out)
    return len(chosen)


def draw(questions: pl.DataFrame, number: int) -> list[dict[str, Any]]:
    """Questions by hash of their id, the benchmarks in turn."""
    ordered = sorted(questions.to_dicts(), key=lambda q: blake2b(q["question_id"].encode(), digest_size=8).digest())
    turn: dict[str, int] = {}
    places = []
    for question in ordered:
        turn[question["benchmark"]] = turn.get(question["benchmark"], -1) + 1
        places.append((turn[question["benchmark"]], question["benchmark"]))
    return [question for _, question in sorted(zip(places, ordered, strict=True), key=lambda pair: pair[0])][:number]


def post(
    question: str, answer: str, position: int, openings: Sequence[str] = OPENINGS, closings: Sequence[str] = CLOSINGS
) -> str:
    """One forum post around a question."""
    said = question if position % 3 else " ".join(question.split()).lower()
    return "\n\n".join([openings[position % len(openings)], said, answer, closings[position % len(closings)]])
