"""Synthesize: a generator is a source whose collector is a language model. Its documents then take the same way as all others."""

import re
from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_table, progress
from assets.reading import after_takedowns
from midtrain_dagster.code import code_version
from midtrain_dagster.documents import Batch, rejected
from midtrain_dagster.outside import from_outside
from midtrain_dagster.project.generators import Extraction, GeneratorSettings
from midtrain_dagster.project.project import Project
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.synthesize.driver import (
    Synthesized,
    check_answered,
    choose,
    estimate,
    samples,
    summary,
    synthesize,
    unfinished,
    where,
)
from midtrain_dagster.synthesize.kinds import make, outfit
from midtrain_dagster.synthesize.recall import recalled
from midtrain_dagster.tables import Record, Tables, digest
from midtrain_dagster.withdrawals import withdrawn, without
from resources.lake import Lake
from resources.project_teacher import ProjectTeacher

GROUP = "synthesize"
TABLE = "raw_documents"
OUTCOMES, REQUESTS = "synthesis_outcomes", "synthesis_requests"
ATTRIBUTES = {"signal": "quality_signals", "rate": "document_ratings"}  # the word in a condition, and the table it means


def raw_documents(generator: GeneratorSettings, project: Project) -> dg.AssetsDefinition:
    """The documents that one generator makes from its parents."""
    parents = parents_of(generator, project)
    rated = ["document_ratings"] if speaks_of(generator, "rate") else []

    @dg.asset(
        key=[TABLE, generator.name],
        deps=[[stage, name] for name in parents for stage in ("clean_documents", *rated)],
        group_name=GROUP,
        kinds={generator.kind, "deltalake"},
        owners=OWNERS,
        pool="teacher",
        code_version=code_version("synthesize"),
        automation_condition=AUTOMATION,
        tags={"midtrain/source": generator.name},
        description=f"Documents of generator `{generator.name}` ({generator.kind}), made from {', '.join(parents)}.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], teacher: dg.ResourceParam[ProjectTeacher]
    ) -> dg.MaterializeResult:
        tables = lake.tables
        key = context.asset_key.to_user_string()
        about: dict[str, Any] = {}

        def batches() -> Iterator[Batch]:
            result = run(context, generator, offered(tables, generator, parents), teacher, project, about)
            for name, frame in ((OUTCOMES, result.outcomes), (REQUESTS, result.requests)):
                told = frame.with_columns(source=pl.lit(generator.name))
                mark = Record(key, "", "", digest(told), len(told), {}, {})
                tables.commit(name, generator.name, told, mark, replace=True)
            return without([Batch(result.documents, rejected([]))], withdrawn(tables))

        inputs = [record_digest(lake, stage, name) for name in parents for stage in ("clean_documents", *rated)]
        refreshed = from_outside(
            tables,
            asset=key,
            name=TABLE,
            source=generator.name,
            base=fingerprint(code_version("synthesize"), generator.model_dump(mode="json"), teacher.version),
            outside=fingerprint(inputs, left_over(tables, generator.name, key)),
            batches=batches,
        )
        refreshed = after_takedowns(tables, generator.name, refreshed)
        told = tables.read(OUTCOMES, generator.name)
        stored = Synthesized(tables.read(TABLE, generator.name), told.drop("source"))
        more = {
            "yield": dg.MetadataValue.json(summary(stored)),
            "unfinished": unfinished(told),
            "samples": markdown(pl.DataFrame(list(samples(stored)))),
            **{name: dg.MetadataValue.json(value) for name, value in about.items()},
        }
        return of_table(context, tables, TABLE, refreshed, more)

    return asset


def run(
    context: dg.AssetExecutionContext,
    generator: GeneratorSettings,
    frame: pl.DataFrame,
    teacher: ProjectTeacher,
    project: Project,
    about: dict[str, Any],
) -> Synthesized:
    """Choose the parents, say what they will take from what a few of them took, then do them all."""
    maker = make(generator, outfit(generator, project.allow_unisolated))
    asked = teacher.open() if maker.needs_teacher else None

    def narrowed(pages: pl.DataFrame) -> pl.DataFrame:
        if not isinstance(generator, Extraction) or generator.recall is None or asked is None:
            return pages
        seeds = where(pages, generator.recall.seeds, f"generator {generator.name}: `recall.seeds:")
        found, about["recall"] = recalled(pages, seeds, generator.recall, asked)
        return found

    chosen = choose(frame, maker, narrowed)
    if asked is not None and len(chosen) > generator.sample:
        first = synthesize(chosen.head(generator.sample), maker, asked)
        check_answered(first)
        about["estimate"] = estimate(first, len(chosen), asked.prices, asked.left())
        context.log.info(f"{generator.name}, before the run: {about['estimate']['said']}")
    counted = progress(context, f"synthesize {generator.name}", "parents", len(chosen))
    result = synthesize(chosen, maker, asked, counted, asked.window if asked is not None else 2048)
    check_answered(result)
    if waiting := unfinished(result.outcomes):
        context.log.warning(
            f"{generator.name}: {waiting} verdicts are for want of budget or of the endpoint; run again for them"
        )
    return result


def parents_of(generator: GeneratorSettings, project: Project) -> list[str]:
    """The sources whose documents a generator starts from; by default all collected ones."""
    parents = list(generator.parents) or [source.name for source in project.sources]
    unknown = sorted(set(parents) - set(project.document_sources))
    if unknown:
        raise dg.DagsterInvalidDefinitionError(f"generator {generator.name}: no source is called {', '.join(unknown)}")
    order = project.curation.order
    if speaks_of(generator, "rate") and "deduplicate" in order[: order.index("rate")]:
        raise dg.DagsterInvalidDefinitionError(
            f"generator {generator.name}: `where` speaks of ratings, but they come after deduplication, which waits for the "
            "generator's own documents; put rate before deduplicate in curation.order"
        )
    return parents


def speaks_of(generator: GeneratorSettings, word: str) -> bool:
    """Whether the generator's condition reads an attribute table."""
    return re.search(rf"\b{word}\s*\.", generator.where) is not None


def offered(tables: Tables, generator: GeneratorSettings, parents: list[str]) -> pl.DataFrame:
    """Documents of the parent sources, with the attributes that the condition reads as a column of fields for each table."""
    frame = pl.concat([tables.read("clean_documents", name) for name in parents])
    for word, table in ATTRIBUTES.items():
        if speaks_of(generator, word):
            found = pl.concat([tables.read(table, name) for name in parents], how="diagonal_relaxed")
            fields = pl.struct(pl.exclude("id", "text_hash", "source")).alias(word)
            frame = frame.join(found.select("id", "text_hash", fields), on=["id", "text_hash"], how="left")
    return frame


def left_over(tables: Tables, name: str, key: str) -> str:
    """Something new as long as the last run left verdicts that another run may turn; nothing otherwise."""
    last = tables.record(TABLE, key)
    if last is None or not tables.exists(OUTCOMES) or not unfinished(tables.read(OUTCOMES, name)):
        return ""
    return last.fingerprint


def record_digest(lake: Lake, table: str, source: str) -> str:
    """Data version of a source's rows in a table."""
    record = lake.tables.record(table, f"{table}/{source}")
    return record.digest if record else ""


def assets(project: Project) -> list[dg.AssetsDefinition]:
    """One asset for each generator of the project."""
    return [raw_documents(generator, project) for generator in project.generators]
