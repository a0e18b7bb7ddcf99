"""Where the text came from, what was left out of it and why, and what the model was trained on."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.report.page import Section
from midtrain_dagster.recipes.decontamination import Decontamination


def sources(table: pl.DataFrame) -> Section:
    """source, documents, rejected, characters, licences, data version."""
    return Section("sources", "What came in", {"rows": table.to_dicts()})


def left_out(funnel: pl.DataFrame) -> Section:
    """`funnel`: source, rule, kept, documents, characters. Per source: documents there were, kept, and left out by rule, most first."""
    rows = []
    for source in funnel["source"].unique().sort():
        some = funnel.filter(pl.col("source") == source)
        kept = some.filter(pl.col("kept"))
        dropped = some.filter(~pl.col("kept")).sort("documents", "rule", descending=[True, False])
        rows.append(
            {
                "source": source,
                "documents": int(some["documents"].sum()),
                "kept": int(kept["documents"].sum()),
                "characters": int(kept["characters"].sum() or 0),
                "left": ", ".join(f"{rule} {count:,}" for rule, count in dropped.select("rule", "documents").iter_rows()),
            }
        )
    return Section("left_out", "What was left out, and why", {"rows": rows})


def contamination(table: pl.DataFrame, settings: Decontamination, threshold: float) -> Section:
    """benchmark, found_in, questions, questions_touched, documents, best_score."""
    values = {"rows": table.to_dicts(), "threshold": threshold, "method": settings.method, "action": settings.action}
    return Section("contamination", "Benchmark questions in the collected text", values)


def synthetic(generators: pl.DataFrame) -> Section | None:
    """A row a generator, with samples; None where there is none."""
    return Section("synthetic", "Synthetic documents", {"rows": generators.to_dicts()}) if len(generators) else None


def mixture(components: pl.DataFrame) -> Section:
    """stage, component, share, budgeted, packed."""
    return Section("mixture", "The mixture", {"rows": components.to_dicts()})


def training(summary: Mapping[str, Any], picture: str) -> Section:
    """`picture`: loss and learning rate over steps, PNG in base64."""
    return Section("training", "Training", {"training": summary, "picture": f"data:image/png;base64,{picture}"})


def versions(inputs: Mapping[str, Any]) -> Section:
    """Data versions of what went in."""
    return Section("versions", "What went into this report", {"versions": inputs})
