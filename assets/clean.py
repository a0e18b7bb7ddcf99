"""Clean: repaired text, language, quality signals and sensitive spans, for each source. Nothing is dropped here."""

from functools import partial

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, bars, of_table, progress
from midtrain_dagster.clean.clean import clean
from midtrain_dagster.code import code_version
from midtrain_dagster.documents import ABOUT
from midtrain_dagster.project.project import Project
from midtrain_dagster.refresh import Frames, by_document, fingerprint
from midtrain_dagster.shards import Engine
from resources.lake import Lake

GROUP = "clean"
TABLE = "clean_documents"
SIGNALS = "quality_signals"
SPANS = "sensitive_spans"


def clean_documents(source: str, project: Project) -> dg.AssetsDefinition:
    """The cleaned documents of one source; its signals and spans are written with them."""

    @dg.asset(
        key=[TABLE, source],
        deps=[["raw_documents", source]],
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        owners=OWNERS,
        code_version=code_version("clean"),
        automation_condition=AUTOMATION,
        tags={"midtrain/source": source},
        description=f"`{source}` with repaired text and language; its `{SIGNALS}` and `{SPANS}` are tables beside it.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> dg.MaterializeResult:
        def work(new: pl.DataFrame) -> tuple[Frames, dict[str, object]]:
            counted = progress(context, f"clean {source}", "documents", len(new))
            parts = [clean(new.clear(), project.cleaning)]
            for part in engine.map(partial(clean, settings=project.cleaning), new.iter_slices(project.compute.shard)):
                parts.append(part)
                counted.advance(len(part.documents))
            frames = {
                TABLE: pl.concat([part.documents for part in parts]),
                SIGNALS: pl.concat([part.signals for part in parts]),
                SPANS: pl.concat([part.spans for part in parts]),
            }
            kinds = dict(frames[SPANS].group_by("kind").len().sort("kind").iter_rows())
            return frames, {"sensitive spans found": kinds}

        refreshed = by_document(
            lake.tables,
            asset=context.asset_key.to_user_string(),
            reads="raw_documents",
            writes=(TABLE, SIGNALS, SPANS),
            source=source,
            base=fingerprint(code_version("clean"), project.cleaning.model_dump(mode="json")),
            work=work,
            follows=ABOUT,
        )
        return of_table(
            context, lake.tables, TABLE, refreshed, {"languages": bars(languages(lake, source), "documents", rows=8)}
        )

    return asset


def languages(lake: Lake, source: str) -> pl.DataFrame:
    """How many documents of a source are in which language, the commonest first."""
    counts = lake.tables.scan(TABLE, source).group_by(pl.col("language").fill_null("unknown")).agg(documents=pl.len())
    return counts.sort("documents", "language", descending=[True, False]).collect()


def assets(project: Project) -> list[dg.AssetsDefinition]:
    """One asset for each source and generator."""
    return [clean_documents(source, project) for source in project.document_sources]
