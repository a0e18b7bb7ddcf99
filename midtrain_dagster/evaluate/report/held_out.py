"""Held-out text: bits per byte before and after, domain by domain."""

from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.evaluate.plots import range_plot
from midtrain_dagster.evaluate.report.page import Section, embedded
from midtrain_dagster.evaluate.verdicts import HELD_OUT_BITS, Judging, decide, resampled, resampled_p
from midtrain_dagster.recipes.recipe import Recipe

CONTRAST_SCHEMA = pl.Schema(
    {
        "domain": pl.String,
        "role": pl.String,  # target or general
        "documents": pl.UInt32,
        "base": pl.Float64,
        "mid": pl.Float64,
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "relative_change": pl.Float64,
        "p_value": pl.Float64,
        "p_adjusted": pl.Float64,  # Holm, over the domains
        "verdict": pl.String,  # gained, unchanged, lost, cannot tell
    }
)


def contrast(before: pl.DataFrame, after: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Bits per byte by domain as CONTRAST_SCHEMA; `before` and `after` are as `bits_per_byte` gives them, of the same documents.

    Difference and interval come from a bootstrap over documents in pairs.
    """
    goal, judging = recipe.goal, Judging.of(recipe.evaluation)
    pairs = before.join(after.select("id", mid_bits="bits"), on="id", how="inner")
    rows: list[dict[str, Any]] = []
    for domain in (*goal.target, *(d for d in goal.general if d not in goal.target)):
        some = pairs.filter((pl.col("domain") == domain) & (pl.col("bytes") > 0))
        if not len(some):
            continue
        left, right, size = (some[name].to_numpy() for name in ("bits", "mid_bits", "bytes"))
        drawn = resampled(np.random.default_rng(judging.seed), np.stack([right - left, size]), judging.resamples)
        moved = drawn[0] / drawn[1]
        low, high = judging.interval(moved)
        base, mid = float(left.sum() / size.sum()), float(right.sum() / size.sum())
        spread = float(moved.std(ddof=1))
        rows.append(
            {
                "domain": domain,
                "role": "target" if domain in goal.target else "general",
                "metric": HELD_OUT_BITS,
                "documents": len(some),
                "base": base,
                "mid": mid,
                "difference": mid - base,
                "low": low,
                "high": high,
                "relative_change": mid / base - 1,
                "p_value": 1.0
                if np.array_equal(left, right)
                else resampled_p(moved, (mid - base) / spread if spread > 0 else None, len(some)),
            }
        )
    decide(rows, "", judging)
    return pl.DataFrame([{name: row[name] for name in CONTRAST_SCHEMA} for row in rows], schema=CONTRAST_SCHEMA)


def section(table: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame, confidence: float) -> Section:
    """`before` and `after`: bits_per_byte.DOMAIN_SCHEMA, for the intervals of each side."""
    sides = before.join(after, on="domain", suffix="_mid")
    sides = table.select("domain").join(sides, on="domain", how="inner", maintain_order="left")
    marks = [
        (
            row["domain"],
            (row["bits_per_byte"], row["low"], row["high"]),
            (row["bits_per_byte_mid"], row["low_mid"], row["high_mid"]),
        )
        for row in sides.iter_rows(named=True)
    ]
    picture = embedded(range_plot(marks, "bits per byte (fewer is better)")) if marks else None
    values = {"rows": table.to_dicts(), "picture": picture, "confidence": f"{confidence:.0%}", "metric": HELD_OUT_BITS}
    return Section("held_out", "Text it has not seen", values)
