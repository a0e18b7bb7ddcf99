"""How the model changed along the run: checkpoints on the first questions of each benchmark, and how far those stand for all."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.plots import Line, line_plot
from midtrain_dagster.evaluate.report import words
from midtrain_dagster.evaluate.report.page import Section, embedded
from midtrain_dagster.evaluate.verdicts import GOLD_BITS, HELD_OUT_BITS


def held_out_curve(checkpoints: Mapping[int, pl.DataFrame]) -> pl.DataFrame:
    """step, domain, metric, value: bits per byte of held-out text; a frame of bits_per_byte.DOMAIN_SCHEMA for each step."""
    parts = [
        table.select(
            "domain",
            step=pl.lit(step, pl.Int64),
            metric=pl.lit(HELD_OUT_BITS),
            value=pl.col("bits_per_byte"),
            error=pl.lit(0.0),
        )
        for step, table in checkpoints.items()
    ]
    return pl.concat(parts).sort("domain", "step")


def by_domain(curve: pl.DataFrame) -> pl.DataFrame:
    """step, domain, metric (`score` or gold bits), value: curve.CURVE_SCHEMA averaged over the benchmarks of a domain, each alike."""
    kind = pl.when(pl.col("metric") == GOLD_BITS).then(pl.lit(GOLD_BITS)).otherwise(pl.lit("score"))
    error = (pl.col("stderr").fill_null(0.0) ** 2).sum().sqrt() / pl.len()
    grouped = curve.with_columns(metric=kind).group_by("domain", "metric", "step")
    return grouped.agg(value=pl.col("value").mean(), error=error).sort("metric", "domain", "step")


def section(held_out: pl.DataFrame, curve: pl.DataFrame, agreement: pl.DataFrame, limit: int) -> Section:
    """`held_out` from `held_out_curve`, `curve` as CURVE_SCHEMA, `agreement` as AGREEMENT_SCHEMA of the first `limit` questions."""
    drawn = [{"says": label, "data": embedded(line_plot(lines, "step", label))} for label, lines in _pictures(held_out, curve)]
    values = {
        "pictures": drawn,
        "steps": sorted(held_out["step"].unique()),
        "rows": agreement.filter(pl.col("questions") < pl.col("all_questions")).to_dicts(),
        "whole": agreement.height > 0 and agreement.filter(pl.col("questions") < pl.col("all_questions")).is_empty(),
        "limit": limit,
    }
    return Section("learning", "Along the run", values)


def curve_plots(held_out: pl.DataFrame, curve: pl.DataFrame) -> list[bytes]:
    """The section's pictures as PNG, for an asset's metadata."""
    return [line_plot(lines, "step", label, kind="png") for label, lines in _pictures(held_out, curve)]


def _pictures(held_out: pl.DataFrame, curve: pl.DataFrame) -> list[tuple[str, list[Line]]]:
    domains = by_domain(curve)
    pictures = [
        (held_out, "bits per byte of held-out text", 1.0, str),
        (domains.filter(pl.col("metric") == "score"), "average score in percent", 100.0, words.domain),
        (domains.filter(pl.col("metric") == GOLD_BITS), "bits per byte of right answers", 1.0, words.domain),
    ]
    return [(label, _lines(table, scale, name)) for table, label, scale, name in pictures if table.height]


def _lines(table: pl.DataFrame, scale: float, name: Any) -> list[Line]:
    lines: list[Line] = []
    for domain in table["domain"].unique().sort():
        some = table.filter(pl.col("domain") == domain).sort("step")
        values, errors = scale * some["value"], 2 * scale * some["error"]
        lines.append((name(domain), some["step"].to_list(), values.to_list(), errors.to_list()))
    return lines
