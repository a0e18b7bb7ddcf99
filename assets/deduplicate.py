"""Deduplicate: clusters of equal and nearly equal documents across all sources, and passages that a source repeats."""

from collections.abc import Callable
from functools import partial
from typing import Final

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_table, progress
from assets.reading import before, passing
from midtrain_dagster.amend import Amendment, amended
from midtrain_dagster.code import code_version
from midtrain_dagster.deduplicate.cluster import cluster
from midtrain_dagster.deduplicate.passages import PASSAGES as PASSAGES_SCHEMA
from midtrain_dagster.deduplicate.passages import passages, repeated
from midtrain_dagster.deduplicate.semantic import of_all, semantic_clusters, vectors
from midtrain_dagster.deduplicate.signatures import SIGNATURES as SCHEMA
from midtrain_dagster.deduplicate.signatures import signatures
from midtrain_dagster.deduplicate.touched import touched
from midtrain_dagster.pieces import Unreadable
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.project import Project
from midtrain_dagster.refresh import Frames, Refreshed, by_document, fingerprint, whole
from midtrain_dagster.shards import Engine
from midtrain_dagster.tables import Record, digest
from resources.embedder import Embedder
from resources.lake import Lake

GROUP: Final = "deduplicate"
TABLE = "duplicate_clusters"
SIGNATURES = "signatures"
PASSAGES = "passages"
REPEATED = "repeated_text"
VECTORS = "document_vectors"
SEMANTIC = "semantic_clusters"
ANEW = 0.25  # changed documents for each that there is, from which on clustering goes through all of them


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
        gate = partial(passing, lake, project.curation, GROUP, method=method)
        done = by_source(lake, project, SIGNATURES, base, sign, gate, counted)

        refreshed = amended(
            lake.tables,
            asset=TABLE,
            name=TABLE,
            base=fingerprint(base, sorted(project.document_sources)),  # another set of sources is clustered anew
            inputs={source: refresh.digest for source, refresh in done.items()},
            reads={SIGNATURES: lake.tables.version(SIGNATURES)},
            amend=partial(reclustered, lake, project),
            work=lambda: (with_source(lake, project, cluster(stored(lake, project), project.deduplication)), {}),
        )
        worked = sum(refresh.worked for refresh in done.values())
        clusters = lake.tables.read(TABLE)
        more = {
            "clusters": dg.MetadataValue.json(counts(clusters)),
            "largest near-duplicate clusters": largest(lake, clusters),
        }
        return of_table(context, lake.tables, TABLE, refreshed._replace(worked=worked), more)

    return asset


def reclustered(lake: Lake, project: Project, last: Record) -> Amendment | None:
    """The clusters that changed signatures touch since a record; None where everything is as quickly clustered anew, or has to be."""
    tables, since = lake.tables, last.reads[SIGNATURES]
    try:
        changes = [tables.changes(SIGNATURES, source, since) for source in project.document_sources]
        if sum(change.new.total() + change.old.total() for change in changes) > ANEW * last.rows:
            return None
        none = pl.DataFrame(schema=SCHEMA)
        new = pl.concat([none, *(piece.select(none.columns) for change in changes for piece in change.new.read())])
        gone = pl.concat([none, *(piece.select(none.columns) for change in changes for piece in change.old.read())])
    except Unreadable:  # the version is vacuumed away
        return None
    found = touched(tables.relation(TABLE), stored(lake, project), new, gone, project.deduplication)
    return Amendment(with_source(lake, project, found), gone["id"], {})


def with_source(lake: Lake, project: Project, clusters: pl.DataFrame) -> pl.DataFrame:
    """The clusters with the source of each document."""
    signed = lake.tables.scan(SIGNATURES).select("id", "source")
    signed = signed.filter(pl.col("source").is_in(list(project.document_sources))).join(clusters.lazy(), on="id", how="semi")
    return clusters.join(signed.collect(), on="id")


def by_source(
    lake: Lake,
    project: Project,
    table: str,
    base: str,
    work: Callable[[pl.DataFrame], tuple[Frames, dict[str, object]]],
    gate: Callable[[str], pl.DataFrame | None],
    counted: Progress,
) -> dict[str, Refreshed]:
    """Bring what is kept of each document for the clusters up to date, source by source; `gate`: which documents of a source pass."""
    done = {}
    for source in project.document_sources:
        done[source] = by_document(
            lake.tables,
            asset=f"{table}/{source}",
            reads="clean_documents",
            writes=(table,),
            source=source,
            base=base,
            work=work,
            passing=gate(source),
        )
        counted.advance(done[source].worked)
    return done


def stored(lake: Lake, project: Project) -> str | pl.DataFrame:
    """Where the signatures of the project's sources are: SQL over their files, so that they need not fit in memory."""
    if any(lake.tables.files(SIGNATURES, source=source) for source in project.document_sources):
        return lake.tables.relation(SIGNATURES, sources=list(project.document_sources))
    return pl.DataFrame(schema=SCHEMA)


def counts(clusters: pl.DataFrame) -> dict[str, int]:
    """How many documents are not the only one of their cluster."""
    several = clusters.filter(pl.col("cluster_size") > 1)  # an exact duplicate is a near one too
    return {"exact": int(several["exact_cluster"].is_duplicated().sum()), "near": len(several)}


def largest(lake: Lake, clusters: pl.DataFrame) -> dg.MetadataValue:
    """The largest clusters and how their first member begins."""
    several = clusters.filter(pl.col("cluster_size") > 1).group_by("near_cluster")
    joined = several.agg(documents=pl.len(), sources=pl.col("source").unique().sort())
    top = joined.sort("documents", "near_cluster", descending=[True, False]).head(8)
    texts = (
        lake.tables.scan("clean_documents")
        .filter(pl.col("id").is_in(top["near_cluster"].implode()))
        .select("id", "text")
        .collect()
    )
    shown = top.join(texts, left_on="near_cluster", right_on="id", how="left").sort("documents", descending=True)
    return markdown(shown.select("documents", pl.col("sources").list.join(", "), begins=pl.col("text").str.slice(0, 160)))


def repeated_text(source: str, project: Project) -> dg.AssetsDefinition:
    """How much of each document many documents of its source have. Hashes are kept, so that old text is not read again."""

    @dg.asset(
        key=[REPEATED, source],
        deps=[["clean_documents", source]],
        group_name=GROUP,
        kinds={"duckdb", "deltalake"},
        owners=OWNERS,
        code_version=code_version("deduplicate"),
        automation_condition=AUTOMATION,
        tags={"midtrain/source": source},
        description=f"Share of each document of `{source}` in lines and paragraphs that "
        f"{project.deduplication.line_documents} documents or more of it have.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> dg.MaterializeResult:
        base = fingerprint(code_version("deduplicate"), project.deduplication.model_dump(mode="json"))

        def split(new: pl.DataFrame) -> tuple[Frames, dict[str, object]]:
            shards = new.select("id", "text", "text_hash", "source").iter_slices(project.compute.shard)
            parts = engine.map(partial(passages, settings=project.deduplication), shards)
            return {PASSAGES: pl.concat([passages(new.clear(), project.deduplication), *parts])}, {}

        done = by_document(
            lake.tables,
            asset=f"{PASSAGES}/{source}",
            reads="clean_documents",
            writes=(PASSAGES,),
            source=source,
            base=base,
            work=split,
        )

        def work() -> tuple[pl.DataFrame, dict[str, object]]:
            stored = lake.tables.files(PASSAGES, source=source)
            given = lake.tables.relation(PASSAGES, sources=[source]) if stored else pl.DataFrame(schema=PASSAGES_SCHEMA)
            found = repeated(given, project.deduplication)
            told: dict[str, object] = {
                f"documents with repeated {kind}": int((found[f"repeated_{kind}"] > 0).sum())
                for kind in ("lines", "paragraphs")
            }
            return found.with_columns(source=pl.lit(source)), told

        refreshed = whole(
            lake.tables,
            asset=context.asset_key.to_user_string(),
            name=REPEATED,
            base=base,
            inputs={source: done.digest},
            reads={PASSAGES: lake.tables.version(PASSAGES)},
            source=source,
            work=work,
        )
        return of_table(context, lake.tables, REPEATED, refreshed._replace(worked=done.worked))

    return asset


def semantic(project: Project) -> dg.AssetsDefinition:
    """Clusters of documents that say the same. Of each near cluster the first is embedded; its vector is kept."""

    @dg.asset(
        key=SEMANTIC,
        deps=[*(["clean_documents", source] for source in project.document_sources), TABLE],
        group_name=GROUP,
        kinds={"numpy", "deltalake"},
        owners=OWNERS,
        code_version=code_version("deduplicate"),
        automation_condition=AUTOMATION,
        description=f"Documents whose embeddings have a cosine of {project.deduplication.semantic} or more, directly or by others.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], embedder: dg.ResourceParam[Embedder]
    ) -> dg.MaterializeResult:
        base = fingerprint(code_version("deduplicate"), embedder.version)
        clusters = lake.tables.read(TABLE)
        first = clusters.filter(pl.col("id") == pl.col("near_cluster")).select("id")
        counted = progress(context, "embeddings", "documents")
        done = by_source(
            lake, project, VECTORS, base, lambda new: ({VECTORS: vectors(new, embedder)}, {}), lambda source: first, counted
        )

        def work() -> tuple[pl.DataFrame, dict[str, object]]:
            present = (part for source in project.document_sources for part in lake.tables.pieces(VECTORS, source).read())
            found = of_all(clusters, semantic_clusters(present, project.deduplication))
            again = int((found["semantic_cluster"].is_duplicated()).sum())
            return found, {"documents with a semantic duplicate": again}

        refreshed = whole(
            lake.tables,
            asset=SEMANTIC,
            name=SEMANTIC,
            base=fingerprint(base, project.deduplication.semantic, project.deduplication.semantic_exact),
            inputs={**{source: refresh.digest for source, refresh in done.items()}, TABLE: digest(clusters)},
            reads={VECTORS: lake.tables.version(VECTORS)},
            source=None,
            work=work,
        )
        worked = sum(refresh.worked for refresh in done.values())
        return of_table(context, lake.tables, SEMANTIC, refreshed._replace(worked=worked))

    return asset


def assets(project: Project, method: str) -> list[dg.AssetsDefinition]:
    """One asset for all sources, whose gate goes by contamination matches of `method`; more where the project asks for them."""
    settings = project.deduplication
    return [
        duplicate_clusters(project, method),
        *(repeated_text(source, project) for source in project.document_sources if settings.repeated),
        *([semantic(project)] if settings.semantic_clusters else []),
    ]
