"""The report for people: what a recipe gained, what it forgot, and how much of it survives without leaked questions."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, picture, png
from assets.reading import decisive_matches, selection_digest
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.evaluate.compare import changes, compare
from midtrain_dagster.evaluate.domains import compare_domains
from midtrain_dagster.evaluate.plots import score_plot
from midtrain_dagster.evaluate.report import (
    benchmarks,
    cost,
    data,
    headline,
    held_out,
    kept,
    learning,
    long_context,
    questions,
    shares,
)
from midtrain_dagster.evaluate.report.page import Section, page
from midtrain_dagster.evaluate.verdicts import Judging
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.select.funnel import funnel
from midtrain_dagster.tables import digest
from midtrain_dagster.train.plots import loss_and_rate
from resources.lake import Lake

GROUP = "evaluate"
COMPARED_BY = code_version(*(f"evaluate.{name}" for name in ("compare", "curve", "domains", "plots", "report")))
READ = ("base_evaluation", "midtrained_evaluation", "midtrained_checkpoint", "packed_sequences")  # artifacts, in this order
SCALED = ("scaling_law", "scaling_plan")  # and these, where the recipe has a section `scaling`
COMPARED = ("comparison", "benchmark_domains", "domains", "retention", "lengths", "changes")  # tables kept beside the page


def evaluation_report(recipe: Recipe, project: Project) -> dg.AssetsDefinition:
    """What the model gained and what it forgot, in one HTML file that opens offline."""

    @dg.asset(
        key=["evaluation_report", recipe.name],
        deps=[
            *([name, recipe.name] for name in (*READ, *(["learning_curve"] if recipe.training.snapshot_every else []))),
            ["mixture", recipe.name],
            *([[name, recipe.name] for name in SCALED] if recipe.scaling else []),
            ["selected_documents", recipe.name],
            "contamination_report",
        ],
        group_name=GROUP,
        kinds={"html"},
        owners=OWNERS,
        code_version=COMPARED_BY,
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"What recipe `{recipe.name}` gained, what it forgot, and how much survives without leaked questions.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        inputs = versions(lake, recipe, project)
        mark = fingerprint(COMPARED_BY, recipe.model_dump(mode="json"), inputs)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            tables = compared(lake, recipe)
            for name in COMPARED:
                tables[name].write_parquet(out / f"{name}.parquet")
            first = headline.section(
                tables["domains"], tables["comparison"], tables["retention"], checkpoint(lake, recipe).about
            )
            html = page(recipe.name, recipe.description, first, sections(lake, recipe, project, tables, inputs))
            (out / "report.html").write_text(html, encoding="utf-8")
            return fingerprint(inputs, *(digest(tables[name]) for name in COMPARED)), {
                "verdict": headline.one_line(tables["domains"]),
                "in short": [sentence for _, sentence in first.values["sentences"]],
            }

        read = {f"{name}/{recipe.name}": lake.artifacts.current(f"{name}/{recipe.name}").fingerprint for name in READ}
        artifact, made = lake.artifacts.build(f"evaluation_report/{recipe.name}", mark, make, read)
        tables = {name: pl.read_parquet(artifact.path / f"{name}.parquet") for name in COMPARED}
        more: dict[str, Any] = {"report": dg.MetadataValue.path(str(artifact.path / "report.html"))}
        more["held-out text"] = markdown(tables["domains"])
        more["what had to be kept"] = markdown(tables["retention"])
        if len(tables["comparison"]):
            more["benchmarks"] = markdown(told(tables["comparison"]), rows=60)
            more["scores before and after"] = picture(score_plot(tables["comparison"]))
        return of_artifact(context, artifact, made, more)

    return asset


def told(comparison: pl.DataFrame) -> pl.DataFrame:
    """The columns that fit on a screen."""
    return comparison.select(
        "benchmark", "metric", "questions", "base", "mid", "difference", "verdict", "set_aside", without="clean_verdict"
    )


def checkpoint(lake: Lake, recipe: Recipe) -> Artifact:
    """The model that this report is about."""
    return lake.artifacts.current(f"midtrained_checkpoint/{recipe.name}")


def compared(lake: Lake, recipe: Recipe) -> dict[str, pl.DataFrame]:
    """Base against mid-trained: a table for each name in COMPARED."""
    judging = Judging.of(recipe.evaluation)
    base, mid = (lake.artifacts.current(f"{name}/{recipe.name}").path for name in READ[:2])
    before, after = (pl.read_parquet(side / "samples.parquet") for side in (base, mid))
    aside = leaked(lake, recipe)
    read, reread = (pl.read_parquet(side / "bits_per_byte.parquet") for side in (base, mid))
    texts, domains = held_out.contrast(read, reread, recipe), compare_domains(before, after, aside, judging)
    return {
        "comparison": compare(before, after, aside, judging),
        "benchmark_domains": domains,
        "domains": texts,
        "retention": kept.kept(texts, domains, recipe),
        "lengths": lengths_of(before, after),
        "changes": changes(before, after),
    }


def lengths_of(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Both models' scores by length of text; `model` says whose."""
    sides = [
        long_context.lengths(samples).with_columns(model=pl.lit(name)) for name, samples in (("base", before), ("mid", after))
    ]
    return pl.concat(sides)


def sections(
    lake: Lake, recipe: Recipe, project: Project, tables: dict[str, pl.DataFrame], inputs: dict[str, Any]
) -> list[Section]:
    """The parts of the page, in order: what was gained and lost first, then how it came about."""
    base, mid, trained, packed = (lake.artifacts.current(f"{name}/{recipe.name}") for name in READ)
    before, after = (json.loads((side.path / "results.json").read_text())["midtrain"] for side in (base, mid))
    read, reread = (pl.read_parquet(side.path / "domains.parquet") for side in (base, mid))
    steps = pl.read_ndjson(trained.path / "steps.jsonl", infer_schema_length=None)
    made, confidence = generator_table(lake, project), recipe.evaluation.confidence
    lengths = [tables["lengths"].filter(model=name).drop("model") for name in ("base", "mid")]
    notes = {name: about["notes"] for name, about in after["benchmarks"].items()}
    drawn = [
        held_out.section(tables["domains"], read, reread, confidence),
        kept.section(tables["retention"], recipe),
        benchmarks.section(tables["comparison"], tables["benchmark_domains"], notes, confidence),
        long_context.section(*lengths),
        learned(lake, recipe),
        benchmarks.not_run(mid.about["not run"]),
        questions.section(tables["changes"]),
        cost.section(trained.about, before, after, made),
        data.training(trained.about, png(loss_and_rate(steps.to_dicts(), trained.about["validations"]), dpi=110)),
        data.mixture(pl.read_parquet(packed.path / "components.parquet")),
        argued(lake, recipe, tables["domains"]),
        data.sources(source_table(lake, project)),
        data.left_out(funnel(lake.tables.read(f"selected_documents/{recipe.name}"))),
        data.contamination(lake.tables.read("contamination_report"), recipe.decontamination, recipe.contamination_score),
        data.synthetic(made),
        data.versions(inputs),
    ]
    return [section for section in drawn if section is not None]


def argued(lake: Lake, recipe: Recipe, moved: pl.DataFrame) -> Section | None:
    """Why the mixture is what it is, where the recipe has proxy runs."""
    if recipe.scaling is None:
        return None
    law, plan = (lake.artifacts.current(f"{name}/{recipe.name}") for name in SCALED)
    pictures = {file.stem: file.read_bytes() for file in sorted(law.path.glob("*.png"))}
    return shares.section(plan.about, law.about, pictures, recipe.scaling.use_plan, moved)


def learned(lake: Lake, recipe: Recipe) -> Section | None:
    """The curves along the run, where the recipe keeps models on the way."""
    if not recipe.training.snapshot_every:
        return None
    place = lake.artifacts.current(f"learning_curve/{recipe.name}").path
    held, scores, subset = (pl.read_parquet(place / f"{name}.parquet") for name in ("held_out", "curve", "agreement"))
    return learning.section(held, scores, subset, recipe.evaluation.curve_limit)


def versions(lake: Lake, recipe: Recipe, project: Project) -> dict[str, Any]:
    """Data versions of everything that the report speaks of."""
    base, mid, trained, packed = (lake.artifacts.current(f"{name}/{recipe.name}") for name in READ)
    found: dict[str, Any] = {
        "sources": {row["source"]: row["data version"] for row in source_table(lake, project).iter_rows(named=True)},
        "selection": selection_digest(lake, recipe.name),
        "sequences": packed.digest,
        "base evaluation": base.digest,
        "mid-trained evaluation": mid.digest,
        "checkpoint": trained.digest,
        "leaked": digest(leaked(lake, recipe)),
    }
    if recipe.training.snapshot_every:
        found["learning curve"] = lake.artifacts.current(f"learning_curve/{recipe.name}").digest
    if recipe.scaling:
        found["scaling plan"] = lake.artifacts.current(f"scaling_plan/{recipe.name}").digest
    return found


def leaked(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """Questions that some collected document holds, at the recipe's threshold: `benchmark`, `row`.

    All collected documents count, not only those that were trained on: the base model may have read the others' like.
    """
    matches = decisive_matches(lake, recipe).lazy()
    questions = lake.tables.scan("benchmark_questions").select("question_id", "benchmark", "row")
    return (
        questions.join(matches.select("question_id").unique(), on="question_id", how="semi").collect().sort("benchmark", "row")
    )


def source_table(lake: Lake, project: Project) -> pl.DataFrame:
    """One row a source: documents, rejects, characters, licences, data version."""
    rows = []
    for name in project.document_sources:
        record = lake.tables.record("raw_documents", f"raw_documents/{name}")
        texts = lake.tables.scan("raw_documents", name).select(pl.col("text").str.len_chars().sum()).collect().item()
        licences = lake.tables.scan("raw_documents", name).group_by("license").len().sort("len", descending=True).collect()
        rows.append(
            {
                "source": name,
                "documents": record.rows if record else 0,
                "rejected": (record.about.get("rejected") or 0) if record else 0,
                "characters": int(texts or 0),
                "licences": ", ".join(str(licence or "not stated") for licence in licences["license"].head(4)),
                "data version": record.digest[:12] if record else "",
            }
        )
    return pl.DataFrame(rows)


def generator_table(lake: Lake, project: Project) -> pl.DataFrame:
    """One row a generator: parents, requests, tokens, cost, acceptance by reason, three samples."""
    from midtrain_dagster.synthesize.driver import Synthesized, samples, summary

    rows = []
    for generator in project.generators:
        told = lake.tables.read("synthesis_outcomes", generator.name).drop("source")
        made = Synthesized(lake.tables.read("raw_documents", generator.name), told)
        counted = summary(made)
        counted["rejected"] = ", ".join(f"{reason} {count:,}" for reason, count in counted["rejected"].items())
        rows.append({"generator": generator.name, "kind": generator.kind, **counted, "samples": list(samples(made, 3))})
    return pl.DataFrame(rows, infer_schema_length=None)


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """A report for each recipe."""
    return [evaluation_report(recipe, project) for recipe in recipes]


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    """Whether what the base knew is still there."""

    def retained(recipe: Recipe) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=["evaluation_report", recipe.name], name="general_capability_retained")
        def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
            """No general domain lost more than the recipe's tolerance: of held-out text, and of benchmarks where they ran."""
            table = pl.read_parquet(lake.artifacts.current(f"evaluation_report/{recipe.name}").path / "retention.parquet")
            lost = table.filter(pl.col("verdict") == "lost")
            measured = {f"loss of {row['domain']}, {row['metric']}": row["fall"] for row in table.iter_rows(named=True)}
            accepted = {
                "tolerance of text": recipe.goal.tolerance,
                "tolerance of scores": recipe.evaluation.retention_tolerance,
            }
            unsure = table.filter(pl.col("verdict") == "cannot tell").height
            return dg.AssetCheckResult(
                passed=table.height > 0 and lost.is_empty(),
                severity=dg.AssetCheckSeverity.WARN,
                description=f"{table.height} measures, {lost.height} lost, {unsure} too few questions to exclude a loss",
                metadata={**accepted, **measured},
            )

        return check

    return [retained(recipe) for recipe in recipes]
