"""Whether what the base model knew is still there: the row that a mid-training stands or falls by."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.domains import RETENTION_SCHEMA, judged, retention
from midtrain_dagster.evaluate.report import words
from midtrain_dagster.evaluate.report.page import Section
from midtrain_dagster.evaluate.verdicts import HELD_OUT_BITS
from midtrain_dagster.recipes.recipe import Recipe


def kept(held_out: pl.DataFrame, domains: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """A row for each general domain, of held-out text (`held_out.contrast`) and of benchmarks (`compare_domains`), as RETENTION_SCHEMA."""
    texts = [
        judged(
            row["domain"], HELD_OUT_BITS, row, row["difference"] / row["base"], row["high"] / row["base"], recipe.goal.tolerance
        )
        for row in held_out.filter(pl.col("role") == "general").iter_rows(named=True)
    ]
    scores = retention(domains, recipe.evaluation.general, recipe.evaluation.retention_tolerance)
    return pl.concat([pl.DataFrame(texts, schema=RETENTION_SCHEMA, orient="row"), scores])


def section(table: pl.DataFrame, recipe: Recipe) -> Section:
    """`table`: what `kept` gives."""
    unmeasured = [
        domain
        for domain in recipe.evaluation.general
        if domain not in table.filter(pl.col("metric") != HELD_OUT_BITS)["domain"]
    ]
    return Section(
        "kept",
        "What had to be kept",
        {"rows": [{**row, "name": name_of(row)} for row in table.iter_rows(named=True)], "unmeasured": unmeasured},
    )


def name_of(row: Mapping[str, Any]) -> str:
    """Domains of text are the project's own words, domains of benchmarks ours."""
    return str(row["domain"]) if row["metric"] == HELD_OUT_BITS else words.domain(row["domain"]).lower()
