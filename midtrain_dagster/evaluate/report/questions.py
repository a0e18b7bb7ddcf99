"""Questions whose answer changed most, both answers side by side."""

import json
from contextlib import suppress

import polars as pl

from midtrain_dagster.evaluate.report import words
from midtrain_dagster.evaluate.report.page import Section

PROMPT, ANSWER = 1200, 700  # characters shown of a prompt, from its end, and of an answer


def section(changes: pl.DataFrame) -> Section | None:
    """`changes`: what compare.changes gives; None where nothing changed."""
    if changes.is_empty():
        return None
    return Section("questions", "Questions that changed most", {"rows": [_shown(row) for row in changes.iter_rows(named=True)]})


def _shown(row: dict[str, object]) -> dict[str, object]:
    prompt = str(row["prompt"] or "")
    return {
        "benchmark": words.benchmark(str(row["benchmark"])),
        "score": row["score"],
        "mid_score": row["mid_score"],
        "bits": _per_byte(row["gold_bits"], row["gold_bytes"]),
        "mid_bits": _per_byte(row["mid_gold_bits"], row["gold_bytes"]),
        "prompt": ("… " if len(prompt) > PROMPT else "") + prompt[-PROMPT:],
        "gold": _cut(row["gold"]),
        "output": _cut(row["output"]),
        "mid_output": _cut(row["mid_output"]),
    }


def _cut(text: object) -> str | None:
    if text is None:
        return None
    said = str(text)
    if said.startswith('["'):  # the turns of an episode
        with suppress(ValueError, TypeError):
            said = "\n– – –\n".join(json.loads(said))
    return said if len(said) <= ANSWER else said[:ANSWER] + " …"


def _per_byte(bits: object, size: object) -> float | None:
    return float(str(bits)) / float(str(size)) if bits is not None and size else None
