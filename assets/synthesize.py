"""Synthesize: a generator is a source whose collector is a language model. Its documents then take the same way as all others."""

import dagster as dg
import polars as pl

from assets.outcome import AUTOMATION, OWNERS, markdown, of_table, progress
from midtrain_dagster.code import code_version
from midtrain_dagster.documents import Batch, rejected
from midtrain_dagster.project.generators import GeneratorSettings
from midtrain_dagster.project.project import Project
from midtrain_dagster.refresh import fingerprint, from_outside
from midtrain_dagster.sandbox import Sandbox
from midtrain_dagster.synthesize.driver import Synthesized, choose, samples, summary, synthesize
from midtrain_dagster.synthesize.generator import Tools
from midtrain_dagster.synthesize.kinds import make
from midtrain_dagster.tables import Record, digest
from resources.lake import Lake
from resources.project_teacher import ProjectTeacher

GROUP = "synthesize"
TABLE = "raw_documents"
OUTCOMES = "synthesis_outcomes"


def raw_documents(generator: GeneratorSettings, project: Project) -> dg.AssetsDefinition:
    """The documents that one generator makes from its parents."""
    collected = [source.name for source in project.sources]
    parents = list(generator.parents) or collected
    unknown = sorted(set(parents) - set(project.document_sources))
    if unknown:
        raise dg.DagsterInvalidDefinitionError(f"generator {generator.name}: no source is called {', '.join(unknown)}")

    @dg.asset(
        key=[TABLE, generator.name],
        deps=[["clean_documents", name] for name in parents],
        group_name=GROUP,
        kinds={generator.kind, "deltalake"},
        owners=OWNERS,
        pool="teacher",
        code_version=code_version("synthesize"),
        automation_condition=AUTOMATION,
        tags={"midtrain/source": generator.name},
        description=f"Documents of generator `{generator.name}` ({generator.kind}), made from {', '.join(parents)}.",
    )
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], teacher: dg.ResourceParam[ProjectTeacher]
    ) -> dg.MaterializeResult:
        tables = lake.tables
        key = context.asset_key.to_user_string()
        made: list[Synthesized] = []

        def batches() -> list[Batch]:
            frame = pl.concat([tables.read("clean_documents", name) for name in parents])
            maker = make(generator, Tools(Sandbox.find()))
            chosen = choose(frame, maker)
            asked = teacher.open() if maker.needs_teacher else None
            counted = progress(context, f"synthesize {generator.name}", "parents", len(chosen))
            result = synthesize(chosen, maker, asked, counted)
            made.append(result)
            told = result.outcomes.with_columns(source=pl.lit(generator.name))
            mark = Record(key, "", "", digest(told), len(told), {}, {})
            tables.commit(OUTCOMES, generator.name, told, mark, replace=True)
            return [Batch(result.documents, rejected([]))]

        refreshed = from_outside(
            tables,
            asset=key,
            name=TABLE,
            source=generator.name,
            base=fingerprint(code_version("synthesize"), generator.model_dump(mode="json"), teacher.version),
            outside=fingerprint([record_digest(lake, name) for name in parents]),
            batches=batches,
        )
        told = tables.read(OUTCOMES, generator.name)
        result = made[0] if made else Synthesized(tables.read(TABLE, generator.name), told.drop("source"))
        more = {
            "yield": dg.MetadataValue.json(summary(result)),
            "samples": markdown(pl.DataFrame(list(samples(result.outcomes)))),
        }
        return of_table(context, tables, TABLE, refreshed, more)

    return asset


def record_digest(lake: Lake, source: str) -> str:
    """Data version of a source's cleaned documents."""
    record = lake.tables.record("clean_documents", f"clean_documents/{source}")
    return record.digest if record else ""


def assets(project: Project) -> list[dg.AssetsDefinition]:
    """One asset for each generator of the project."""
    return [raw_documents(generator, project) for generator in project.generators]
