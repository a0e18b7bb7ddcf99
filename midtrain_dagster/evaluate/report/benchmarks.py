"""Benchmarks: by domain, each score twice, with and without the questions that a collected document holds."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.domains import OVERALL
from midtrain_dagster.evaluate.plots import range_plot
from midtrain_dagster.evaluate.report import words
from midtrain_dagster.evaluate.report.page import Section, embedded
from midtrain_dagster.evaluate.verdicts import GOLD_BITS

Row = dict[str, Any]


def section(comparison: pl.DataFrame, domains: pl.DataFrame, notes: Mapping[str, list[str]], confidence: float) -> Section:
    """`comparison` as compare.COMPARISON_SCHEMA, `domains` as domains.DOMAINS_SCHEMA, `notes`: benchmark → what was done otherwise."""
    parts = [
        _part(domain, comparison.filter(pl.col("domain") == domain), domains.filter(pl.col("domain") == domain))
        for domain in comparison["domain"].unique().sort()
    ]
    values = {
        "parts": parts,
        "overall": domains.filter(pl.col("domain") == OVERALL).to_dicts(),
        "vanished": comparison.filter("gain_disappears").select("benchmark", "metric").to_dicts(),
        "set_aside": int(comparison["set_aside"].sum()),
        "notes": {name: some for name, some in sorted(notes.items()) if some},
        "confidence": f"{confidence:.0%}",
        "comparisons": comparison.height,
    }
    return Section("benchmarks", "Benchmarks", values)


def not_run(reasons: Mapping[str, str]) -> Section:
    """What was asked for and did not run."""
    return Section("not_run", "What was not run, and why", {"reasons": dict(sorted(reasons.items()))})


def _part(domain: str, rows: pl.DataFrame, whole: pl.DataFrame) -> Row:
    """One domain: its averages, its benchmarks (each with its measures), and a picture of each kind of measure."""
    benchmarks = [
        {"name": name, "rows": _scores_first(rows.filter(pl.col("benchmark") == name))}
        for name in rows["benchmark"].unique().sort()
    ]
    return {
        "domain": domain,
        "average": _scores_first(whole) if len(benchmarks) > 1 else [],
        "benchmarks": benchmarks,
        "pictures": [
            {"says": label, "data": embedded(range_plot(marks, label, width=4.9))} for label, marks in _pictures(rows) if marks
        ],
    }


def _scores_first(rows: pl.DataFrame) -> list[Row]:
    return rows.sort(pl.col("metric") == GOLD_BITS, "metric").to_dicts()


def _pictures(rows: pl.DataFrame) -> list[tuple[str, list[Any]]]:
    scores = [_mark(row, 100.0) for row in rows.filter(pl.col("metric") != GOLD_BITS).iter_rows(named=True)]
    bits = [_mark(row, 1.0) for row in rows.filter(pl.col("metric") == GOLD_BITS).iter_rows(named=True)]
    return [("score in percent (more is better)", scores), ("bits per byte of the right answer (fewer is better)", bits)]


def _mark(row: Row, scale: float) -> tuple[str, tuple[float, float, float], tuple[float, float, float]]:
    """Both sides with two standard errors."""
    sides = [
        (scale * row[side], *(scale * (row[side] + sign * 2 * (row[f"{side}_stderr"] or 0.0)) for sign in (-1, 1)))
        for side in ("base", "mid")
    ]
    return words.benchmark(row["benchmark"]), sides[0], sides[1]
