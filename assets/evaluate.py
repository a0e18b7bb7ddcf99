"""Evaluate: base and mid-trained checkpoint on the same questions and the same held-out text. The report is in `assets/report.py`."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, picture, progress
from assets.reading import documents_of
from midtrain_dagster.code import code_version
from midtrain_dagster.evaluate.bits_per_byte import bits_per_byte, by_domain
from midtrain_dagster.evaluate.curve import agreement, curve, first
from midtrain_dagster.evaluate.evaluate import Evaluated, evaluate
from midtrain_dagster.evaluate.report.learning import curve_plots, held_out_curve
from midtrain_dagster.evaluate.verdicts import Judging
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.evaluation import Evaluation as EvaluationSettings
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.tables import digest
from resources.gpu import POOL
from resources.lake import Lake

GROUP = "evaluate"
# What decides a score. How the report compares and draws them does not: a changed template asks no model again.
SCORED = code_version(
    *(f"evaluate.{name}" for name in ("asking", "backend", "bits_per_byte", "catalog", "code", "environments", "evaluate")),
    *(f"evaluate.{name}" for name in ("harness", "language_model", "names", "packing", "parity", "precision", "probes")),
    *(f"evaluate.{name}" for name in ("responses", "rows", "samples", "server", "shapes", "tasks")),
    "sandbox",
)
SIDES = {"base_evaluation": "base_checkpoint", "midtrained_evaluation": "midtrained_checkpoint"}


def evaluation(name: str, recipe: Recipe, project: Project, rows: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """Scores and bits per byte of one of the two checkpoints."""
    checkpoint = SIDES[name]

    @dg.asset(
        key=[name, recipe.name],
        deps=[[checkpoint, recipe.name], ["selected_documents", recipe.name], *rows],
        group_name=GROUP,
        kinds={"lm-eval"},
        owners=OWNERS,
        pool=POOL,
        code_version=SCORED,
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Benchmarks, bits per byte of gold answers and of held-out text, of {checkpoint}/{recipe.name}.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        model = lake.artifacts.current(f"{checkpoint}/{recipe.name}")
        settings = recipe.evaluation
        held_out = held_out_documents(lake, recipe)
        data = places_of(project, lake)
        mark = fingerprint(SCORED, settings.model_dump(mode="json"), model.digest, digest(held_out), content_of(data))

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            scored = score(context, model.path / "model", settings, held_out, data, lake, out)
            measured, domains = (pl.read_parquet(out / f"{part}.parquet") for part in ("bits_per_byte", "domains"))
            return fingerprint(digest(measured), content(scored.samples)), {
                "questions": scored.samples["question_id"].n_unique(),
                "not run": scored.not_run,
                **{
                    f"bits per byte of {domain}": value
                    for domain, value in domains.select("domain", "bits_per_byte").iter_rows()
                },
            }

        artifact, made = lake.artifacts.build(
            f"{name}/{recipe.name}", mark, make, {f"{checkpoint}/{recipe.name}": model.fingerprint}
        )
        shown = markdown(pl.read_parquet(artifact.path / "domains.parquet"))
        return of_artifact(context, artifact, made, {"held-out text": shown})

    return asset


def learning_curve(recipe: Recipe, project: Project, rows: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """Models along the run on the first questions of each benchmark, and how far those stand for all."""

    @dg.asset(
        key=["learning_curve", recipe.name],
        deps=[*([name, recipe.name] for name in (*SIDES, "midtrained_checkpoint", "selected_documents")), *rows],
        group_name=GROUP,
        kinds={"lm-eval"},
        owners=OWNERS,
        pool=POOL,
        code_version=SCORED,
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"How `{recipe.name}` changed every {recipe.training.snapshot_every} steps, on the first questions of each set.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        base, mid = (lake.artifacts.current(f"{name}/{recipe.name}") for name in SIDES)
        model = lake.artifacts.current(f"midtrained_checkpoint/{recipe.name}")
        held_out, data, limit = held_out_documents(lake, recipe), places_of(project, lake), recipe.evaluation.curve_limit
        mark = fingerprint(
            SCORED,
            code_version("evaluate.curve", "evaluate.report.learning"),
            limit,
            base.fingerprint,
            mid.fingerprint,
            model.fingerprint,
        )

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            whole = {0: pl.read_parquet(base.path / "samples.parquet")}
            texts = {0: pl.read_parquet(base.path / "domains.parquet")}
            for path in sorted((model.path / "snapshots").glob("step-*")):
                step = int(path.name.removeprefix("step-"))
                into = out / path.name
                score(context, path, recipe.evaluation.subset(), held_out, data, lake, into)
                whole[step] = pl.read_parquet(into / "samples.parquet")
                texts[step] = pl.read_parquet(into / "domains.parquet")
            last = int(model.about["steps"])
            whole[last] = pl.read_parquet(mid.path / "samples.parquet")
            texts[last] = pl.read_parquet(mid.path / "domains.parquet")
            curve({step: first(samples, limit) for step, samples in whole.items()}).write_parquet(out / "curve.parquet")
            held_out_curve(texts).write_parquet(out / "held_out.parquet")
            agreement([whole[0], whole[last]], limit).write_parquet(out / "agreement.parquet")
            digests = [digest(pl.read_parquet(out / f"{name}.parquet")) for name in ("curve", "held_out", "agreement")]
            return fingerprint(*digests), {"steps": sorted(whole), "questions of each task": limit}

        read = {f"{name}/{recipe.name}": lake.artifacts.current(f"{name}/{recipe.name}").fingerprint for name in SIDES}
        read[f"midtrained_checkpoint/{recipe.name}"] = model.fingerprint
        artifact, made = lake.artifacts.build(f"learning_curve/{recipe.name}", mark, make, read)
        tables = [pl.read_parquet(artifact.path / f"{name}.parquet") for name in ("held_out", "curve", "agreement")]
        plots = {f"curve {at}": picture(png) for at, png in enumerate(curve_plots(tables[0], tables[1]), start=1)}
        return of_artifact(context, artifact, made, {**plots, "subset against all": markdown(tables[2])})

    return asset


def score(
    context: dg.AssetExecutionContext,
    model: Path,
    settings: EvaluationSettings,
    held_out: pl.DataFrame,
    data: list[Path],
    lake: Lake,
    out: Path,
) -> Evaluated:
    """Benchmarks and bits per byte of held-out documents, written to `out`. Answers are cached for the whole project."""
    name = context.asset_key.to_user_string() if model.name == "model" else model.name
    counted = progress(context, f"score {name}", "requests")
    answers = lake.cache_path("answers")
    scored = evaluate(model, None, data, out, settings=settings, cache=answers, progress=counted)
    read = progress(context, f"bits per byte of {name}", "tokens")
    measured = bits_per_byte(model, held_out, settings.window, settings.batch_tokens, settings.precision, read)
    measured.write_parquet(out / "bits_per_byte.parquet")
    by_domain(measured, Judging.of(settings)).write_parquet(out / "domains.parquet")
    return scored


def held_out_documents(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """Held-out documents of the domains that the recipe speaks of, cut to its length: id, text, text_hash, domain."""
    wanted = recipe.evaluation.bits_per_byte_domains or (*recipe.goal.target, *recipe.goal.general)
    rows = documents_of(lake, recipe.name, kept=False).filter(pl.col("domain").is_in(list(wanted))).collect()
    few = rows.sort("id").group_by("domain", maintain_order=True).head(recipe.held_out.documents)
    return few.select("id", pl.col("text").str.slice(0, recipe.held_out.characters), "text_hash", "domain")


def places_of(project: Project, lake: Lake) -> list[Path]:
    """Where benchmark rows are: the directories of the project's local benchmarks."""
    paths = [lake.root / benchmark.path for benchmark in project.benchmarks if benchmark.path is not None]
    return list(dict.fromkeys(path if path.is_dir() else path.parent for path in paths))


def content_of(places: list[Path]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the rows' files: whether an evaluation is still that of these rows."""
    files = sorted(p for place in places for p in place.rglob("*") if p.is_file())
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def content(samples: pl.DataFrame) -> str:
    """Digest of what a model answered and scored."""
    return digest(samples.select("question_id", "filter", "metric", "score", "output", "gold_bits"))


def assets(project: Project, recipes: list[Recipe], rows: list[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """Two assets for each recipe, and a curve where it keeps snapshots; `rows` are the assets that write benchmark rows, where this project writes them."""
    curves = [learning_curve(recipe, project, rows) for recipe in recipes if recipe.training.snapshot_every]
    return [*(evaluation(name, recipe, project, rows) for recipe in recipes for name in SIDES), *curves]
