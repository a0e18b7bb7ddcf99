"""Deduplicate: clusters of equal and nearly equal documents, across all sources."""

from functools import partial
from typing import Final

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_table, progress
from assets.reading import before, passing
from midtrain_dagster.code import code_version
from midtrain_dagster.deduplicate.cluster import cluster
from midtrain_dagster.deduplicate.signatures import SIGNATURES as SCHEMA
from midtrain_dagster.deduplicate.signatures import signatures
from midtrain_dagster.project.project import Project
from midtrain_dagster.refresh import Frames, by_document, fingerprint, whole
from midtrain_dagster.shards import Engine
from resources.lake import Lake

GROUP: Final = "deduplicate"
TABLE = "duplicate_clusters"
SIGNATURES = "signatures"


def duplicate_clusters(project: Project, method: str) -> dg.AssetsDefinition:
    """Clusters over all sources. Signatures are kept, so that new documents meet old ones without re-reading old text."""

    @dg.asset(
        key=TABLE,
        deps=[
            *(["clean_documents", source] for source in project.document_sources),
            *before(project.curation, GROUP, "", project.document_sources, bool(project.raters)),
        ],
        group_name=GROUP,
        kinds={"numba", "deltalake"},
        owners=OWNERS,
        code_version=code_version("deduplicate"),
        automation_condition=AUTOMATION,
        description="Exact and near-duplicate clusters (MinHash) of all documents; which member survives is the recipe's rule.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> dg.MaterializeResult:
        base = fingerprint(code_version("deduplicate"), project.deduplication.model_dump(mode="json"))

        def sign(new: pl.DataFrame) -> tuple[Frames, dict[str, object]]:
            shards = new.select("id", "text", "text_hash").iter_slices(project.compute.shard)
            signed = engine.map(partial(signatures, settings=project.deduplication), shards)
            return {SIGNATURES: pl.concat([signatures(new.clear(), project.deduplication), *signed])}, {}

        counted = progress(context, "signatures", "documents")
        done = {}
        for source in project.document_sources:
            done[source] = by_document(
                lake.tables,
                asset=f"{SIGNATURES}/{source}",
                reads="clean_documents",
                writes=(SIGNATURES,),
                source=source,
                base=base,
                work=sign,
                passing=passing(lake, project.curation, GROUP, source, method),
            )
            counted.advance(done[source].worked)

        def work() -> tuple[pl.DataFrame, dict[str, object]]:
            signed = lake.tables.scan(SIGNATURES).select("id", "source")
            signed = signed.filter(pl.col("source").is_in(list(project.document_sources)))
            found = cluster(stored(lake, project), project.deduplication).join(signed.collect(), on="id")
            return found, {"clusters": counts(found)}

        refreshed = whole(
            lake.tables,
            asset=TABLE,
            name=TABLE,
            base=base,
            inputs={source: refresh.digest for source, refresh in done.items()},
            reads={SIGNATURES: lake.tables.version(SIGNATURES)},
            source=None,
            work=work,
        )
        worked = sum(refresh.worked for refresh in done.values())
        return of_table(
            context, lake.tables, TABLE, refreshed._replace(worked=worked), {"largest near-duplicate clusters": largest(lake)}
        )

    return asset


def stored(lake: Lake, project: Project) -> str | pl.DataFrame:
    """Where the signatures of the project's sources are: SQL over their files, so that they need not fit in memory."""
    if any(lake.tables.files(SIGNATURES, source=source) for source in project.document_sources):
        return lake.tables.relation(SIGNATURES, sources=list(project.document_sources))
    return pl.DataFrame(schema=SCHEMA)


def counts(clusters: pl.DataFrame) -> dict[str, int]:
    """How many documents are not the only one of their cluster."""
    return {
        kind: len(clusters.filter(pl.col(f"{kind}_cluster").is_duplicated() & pl.col(f"{kind}_cluster").is_not_null()))
        for kind in ("exact", "near")
    }


def largest(lake: Lake) -> dg.MetadataValue:
    """The largest clusters and how their first member begins."""
    clusters = (
        lake.tables.read(TABLE).group_by("near_cluster").agg(documents=pl.len(), sources=pl.col("source").unique().sort())
    )
    top = clusters.filter(pl.col("documents") > 1).sort("documents", "near_cluster", descending=[True, False]).head(8)
    texts = (
        lake.tables.scan("clean_documents")
        .filter(pl.col("id").is_in(top["near_cluster"].implode()))
        .select("id", "text")
        .collect()
    )
    shown = top.join(texts, left_on="near_cluster", right_on="id", how="left").sort("documents", descending=True)
    return markdown(shown.select("documents", pl.col("sources").list.join(", "), begins=pl.col("text").str.slice(0, 160)))


def assets(project: Project, method: str) -> list[dg.AssetsDefinition]:
    """One asset for all sources; `method` is the one whose contamination matches a gate goes by."""
    return [duplicate_clusters(project, method)]
