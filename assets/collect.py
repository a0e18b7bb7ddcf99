"""Collect: one asset a source. What the outside world holds becomes documents with an id for life."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_table, progress
from assets.reading import after_takedowns
from midtrain_dagster import snapshots as dated
from midtrain_dagster.code import code_version
from midtrain_dagster.collect.present import present
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.outside import refresh
from midtrain_dagster.project.operations import Operations
from midtrain_dagster.project.project import Compute, Project
from midtrain_dagster.project.sources import Source
from midtrain_dagster.refresh import Refreshed, fingerprint
from midtrain_dagster.shards import Engine
from midtrain_dagster.withdrawals import withdrawn, without
from resources.lake import Lake

GROUP = "collect"
NETWORK = "network"  # pool of sources that are fetched: one at a time, so that hosts and the line are spared
FETCHED = ("crawl", "common_crawl")
TABLE = "raw_documents"


def snapshots(source: Source, compute: Compute) -> dg.AssetsDefinition:
    """One dated snapshot of a source, as a partition: to collect one again, or a few of many."""

    @dg.asset(
        key=["snapshots", source.name],
        partitions_def=dg.DynamicPartitionsDefinition(name=f"snapshots_{source.name}"),
        group_name="snapshots",
        kinds={source.kind, "deltalake"},
        owners=OWNERS,
        code_version=code_version("collect"),
        tags={"midtrain/source": source.name},
        description=f"A snapshot of source `{source.name}`: {source.kind} from `{source.location}`.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> dg.MaterializeResult:
        workers = engine if compute.kind == "ray" else compute.workers
        return of_table(context, lake.tables, TABLE, refreshed(context, lake, source, workers, [context.partition_key]))

    return asset


def refreshed(
    context: dg.AssetExecutionContext, lake: Lake, source: Source, workers: int | Engine, chosen: list[str] | None
) -> Refreshed:
    """Bring a source up to date. `chosen`: with these snapshots of it."""
    counted = progress(context, f"collect {source.name}", "documents")
    outside = present(source, lake.root, datetime.now(UTC), counted, workers, chosen)
    found = refresh(
        lake.tables,
        asset=f"{TABLE}/{source.name}",
        name=TABLE,
        source=source.name,
        base=fingerprint(code_version("collect"), source.model_dump(mode="json")),
        outside=outside._replace(read=lambda *asked: without(outside.read(*asked), withdrawn(lake.tables))),
    )
    return after_takedowns(lake.tables, source.name, found)


def raw_documents(
    source: Source,
    compute: Compute,
    deps: list[dg.AssetKey],
    operations: Operations = Operations(),  # noqa: B008  frozen
) -> dg.AssetsDefinition:
    """The documents of one source. `deps`: assets that write the files behind it, where this project writes them itself."""

    @dg.asset(
        key=[TABLE, source.name],
        deps=deps,
        group_name=GROUP,
        kinds={source.kind, "deltalake"},
        owners=OWNERS,
        pool=NETWORK if source.kind in FETCHED and operations.network_pool else None,
        freshness_policy=fresh(operations),
        code_version=code_version("collect"),
        automation_condition=AUTOMATION if deps else None,
        tags={"midtrain/source": source.name},
        description=f"Documents of source `{source.name}`: {source.kind} from `{source.location}`.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> dg.MaterializeResult:
        workers = engine if compute.kind == "ray" else compute.workers
        chosen = dated.names(source.location, lake.root) if dated.has_snapshots(source.location) else None
        if chosen == []:
            raise MidtrainError(f"source {source.name}: no snapshot is there yet: {source.location}")
        found = refreshed(context, lake, source, workers, chosen)
        rejects = rejected(lake, source.name)
        return of_table(context, lake.tables, TABLE, found, {"rejected records": markdown(rejects, 60)} if len(rejects) else {})

    return asset


def fresh(operations: Operations) -> dg.FreshnessPolicy | None:
    """How long ago a source may have been looked at."""
    if operations.fresh_hours is None:
        return None
    hours = timedelta(hours=operations.fresh_hours)
    return dg.FreshnessPolicy.time_window(fail_window=hours, warn_window=hours / 2)


def rejected(lake: Lake, source: str) -> pl.DataFrame:
    """A few rejected records of each reason."""
    found = pl.DataFrame()
    for piece in lake.tables.pieces("rejected_records", source).read() if lake.tables.exists("rejected_records") else ():
        found = pl.concat([found, piece], how="diagonal").group_by("reason", maintain_order=True).head(3)
    return found


def assets(project: Project, written: dict[Path, dg.AssetKey], root: Path) -> list[dg.AssetsDefinition]:
    """One asset for each source of the project; a source that reads what this project writes depends on that. One more, in
    partitions, for a source with dated snapshots."""
    with_snapshots = [source for source in project.sources if dated.has_snapshots(source.location)]
    return [
        *(snapshots(source, project.compute) for source in with_snapshots),
        *sources(project, written, root),
    ]


def sources(project: Project, written: dict[Path, dg.AssetKey], root: Path) -> list[dg.AssetsDefinition]:
    """The documents of each source."""
    return [
        raw_documents(
            source,
            project.compute,
            [
                *(key for path, key in written.items() if path == Path(os.path.abspath(root / source.location))),
                *([dg.AssetKey(["snapshots", source.name])] if dated.has_snapshots(source.location) else []),
            ],
            project.operations,
        )
        for source in project.sources
    ]
