"""How far a model can look back: the score at each length of text."""

import json
from math import sqrt

import polars as pl

from midtrain_dagster.evaluate.plots import BASE, MID, Line, line_plot
from midtrain_dagster.evaluate.report import words
from midtrain_dagster.evaluate.report.page import Section, embedded

LENGTHS_SCHEMA = pl.Schema(
    {
        "benchmark": pl.String,
        "length": pl.Int64,  # in the unit of the rows: tokens for probes that are made here
        "questions": pl.UInt32,
        "score": pl.Float64,
        "stderr": pl.Float64,  # null for a single question
        "gold_bits_per_byte": pl.Float64,  # null where not measured
    }
)


def lengths(samples: pl.DataFrame) -> pl.DataFrame:
    """The primary score, and bits per byte of the right answer, of the rows of each `length`, as LENGTHS_SCHEMA; rows that name no length are left out."""
    some = samples.filter("primary", pl.col("doc").str.contains('"length"', literal=True))
    named = some.with_columns(length=pl.Series([_length(doc) for doc in some["doc"]], dtype=pl.Int64)).drop_nulls("length")
    rows = []
    for (benchmark, length), group in named.group_by("benchmark", "length", maintain_order=True):
        score, known = group["score"].drop_nulls(), group.drop_nulls("gold_bits")
        bits = float(known["gold_bits"].sum()) / max(int(known["gold_bytes"].sum()), 1) if known.height else None
        spread = score.std(ddof=1) if len(score) > 1 else None
        stderr = None if spread is None else float(str(spread)) / sqrt(len(score))
        rows.append((benchmark, length, group.height, score.mean(), stderr, bits))
    return pl.DataFrame(rows, schema=LENGTHS_SCHEMA, orient="row").sort("benchmark", "length")


def _length(doc: str) -> int | None:
    value = json.loads(doc).get("length")
    return value if isinstance(value, int) else None


def section(before: pl.DataFrame, after: pl.DataFrame) -> Section | None:
    """`before` and `after`: what `lengths` gives for the two models; None where no row names a length."""
    both = before.join(after, on=["benchmark", "length"], suffix="_mid")
    if both.is_empty():
        return None
    parts = []
    for benchmark in both["benchmark"].unique().sort():
        rows = both.filter(pl.col("benchmark") == benchmark)
        pictures = [
            ("score in percent (more is better)", _lines(rows, "score", 100.0)),
            ("bits per byte of the right answer (fewer is better)", _lines(rows, "gold_bits_per_byte", 1.0)),
        ]
        parts.append(
            {
                "benchmark": words.benchmark(benchmark),
                "rows": rows.to_dicts(),
                "pictures": [
                    {
                        "says": label,
                        "data": embedded(
                            line_plot(lines, "length of the text", label, colours=(BASE, MID), width=4.9, logarithmic=True)
                        ),
                    }
                    for label, lines in pictures
                    if lines and rows.height > 1
                ],
            }
        )
    return Section("long_context", "How far it can look back", {"parts": parts})


def _lines(rows: pl.DataFrame, column: str, scale: float) -> list[Line]:
    lines: list[Line] = []
    for name, suffix in (("base", ""), ("mid-trained", "_mid")):
        some = rows.drop_nulls(f"{column}{suffix}")
        errors = some[f"stderr{suffix}"].fill_null(0.0) if column == "score" else pl.Series([0.0] * some.height)
        if some.height:
            values = (scale * some[f"{column}{suffix}"]).to_list()
            lines.append((name, some["length"].to_list(), values, (2 * scale * errors).to_list()))
    return lines
