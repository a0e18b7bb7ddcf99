"""Collect: one asset a source. What the outside world holds becomes documents with an id for life."""

import os
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl

from assets.outcome import AUTOMATION, OWNERS, markdown, of_table, progress
from midtrain_dagster.code import code_version
from midtrain_dagster.collect.collect import collect, fingerprint
from midtrain_dagster.project.project import Compute, Project
from midtrain_dagster.project.sources import Source
from midtrain_dagster.refresh import fingerprint as base_of
from midtrain_dagster.refresh import from_outside
from midtrain_dagster.shards import Engine
from resources.lake import Lake

GROUP = "collect"
TABLE = "raw_documents"


def raw_documents(source: Source, compute: Compute, deps: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """The documents of one source. `deps`: assets that write the files behind it, where this project writes them itself."""

    @dg.asset(
        key=[TABLE, source.name],
        deps=deps,
        group_name=GROUP,
        kinds={source.kind, "deltalake"},
        owners=OWNERS,
        code_version=code_version("collect"),
        automation_condition=AUTOMATION if deps else None,
        tags={"midtrain/source": source.name},
        description=f"Documents of source `{source.name}`: {source.kind} from `{source.location}`.",
    )
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> dg.MaterializeResult:
        workers = engine if compute.kind == "ray" else compute.workers
        counted = progress(context, f"collect {source.name}", "documents")
        refreshed = from_outside(
            lake.tables,
            asset=context.asset_key.to_user_string(),
            name=TABLE,
            source=source.name,
            base=base_of(code_version("collect"), source.model_dump(mode="json")),
            outside=fingerprint(source, lake.root),
            batches=lambda: collect(source, lake.root, datetime.now(UTC), counted, workers),
        )
        rejects = rejected(lake, source.name)
        return of_table(
            context, lake.tables, TABLE, refreshed, {"rejected records": markdown(rejects, 60)} if len(rejects) else {}
        )

    return asset


def rejected(lake: Lake, source: str) -> pl.DataFrame:
    """A few rejected records of each reason."""
    if not lake.tables.exists("rejected_records"):
        return pl.DataFrame()
    return lake.tables.read("rejected_records", source).group_by("reason", maintain_order=True).head(3)


def assets(project: Project, written: dict[Path, dg.AssetKey], root: Path) -> list[dg.AssetsDefinition]:
    """One asset for each source of the project; a source that reads what this project writes depends on that."""
    return [
        raw_documents(
            source,
            project.compute,
            [key for path, key in written.items() if path == Path(os.path.abspath(root / source.location))],
        )
        for source in project.sources
    ]
