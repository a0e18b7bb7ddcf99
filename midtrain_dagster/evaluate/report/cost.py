"""What it took: seconds of training and of each benchmark, tokens and money of the teacher."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.report.page import Section


def section(
    training: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any], generators: pl.DataFrame
) -> Section:
    """`before` and `after`: the `midtrain` part of both results.json; `generators`: a row a generator."""
    rows = []
    for name, about in after["benchmarks"].items():
        other = before["benchmarks"].get(name, {})
        rows.append(
            {
                "benchmark": name,
                "questions": about["questions"],
                "base": _seconds(other),
                "mid": _seconds(about),
                "parity": (about.get("parity") or {}).get("flagged"),
                "compared": (about.get("parity") or {}).get("requests"),
            }
        )
    values = {
        "training": training,
        "rows": rows,
        "total": sum(row["base"] + row["mid"] for row in rows),
        "generators": generators.to_dicts(),
    }
    return Section("cost", "What it cost", values)


def _seconds(about: Mapping[str, Any]) -> float:
    return float(about.get("seconds", 0.0)) + float(about.get("gold_seconds", 0.0))
