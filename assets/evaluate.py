"""Evaluate: base and mid-trained checkpoint on the same questions and the same held-out text, and the report for people."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, picture, png, progress
from assets.reading import documents_of, selection_digest
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.evaluate.bits_per_byte import bits_per_byte, by_domain
from midtrain_dagster.evaluate.compare import changes, compare
from midtrain_dagster.evaluate.evaluate import evaluate
from midtrain_dagster.evaluate.plots import bits_plot, score_plot
from midtrain_dagster.evaluate.report import Gathered, contrast, render, verdict
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.select.funnel import funnel
from midtrain_dagster.tables import digest
from midtrain_dagster.train.plots import loss_and_rate
from resources.gpu import POOL
from resources.lake import Lake

GROUP = "evaluate"
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
        code_version=code_version("evaluate"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Benchmarks, bits per byte of gold answers and of held-out text, of {checkpoint}/{recipe.name}.",
    )
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        model = lake.artifacts.current(f"{checkpoint}/{recipe.name}")
        settings = recipe.evaluation
        held_out = held_out_documents(lake, recipe)
        data = data_directory(project, lake)
        mark = fingerprint(
            code_version("evaluate"), settings.model_dump(mode="json"), model.digest, digest(held_out), content_of(data)
        )

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            counted = progress(context, f"score {checkpoint}", "requests")
            scored = evaluate(model.path / "model", None, data, out, settings=settings, progress=counted)
            read = progress(context, f"bits per byte of {checkpoint}", "tokens")
            measured = bits_per_byte(
                model.path / "model", held_out, settings.window, settings.batch_tokens, settings.precision, read
            )
            measured.write_parquet(out / "bits_per_byte.parquet")
            domains = by_domain(measured, settings.confidence, settings.bootstrap, settings.seed)
            domains.write_parquet(out / "domains.parquet")
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


def held_out_documents(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """Held-out documents of the domains that the recipe speaks of, cut to its length: id, text, text_hash, domain."""
    wanted = recipe.evaluation.bits_per_byte_domains or (*recipe.goal.target, *recipe.goal.general)
    rows = documents_of(lake, recipe.name, kept=False).filter(pl.col("domain").is_in(list(wanted))).collect()
    few = rows.sort("id").group_by("domain", maintain_order=True).head(recipe.held_out.documents)
    return few.select("id", pl.col("text").str.slice(0, recipe.held_out.characters), "text_hash", "domain")


def data_directory(project: Project, lake: Lake) -> Path | None:
    """Where benchmark rows are: the directory of the project's first local benchmark."""
    for benchmark in project.benchmarks:
        if benchmark.path is not None:
            path = lake.root / benchmark.path
            return path if path.is_dir() else path.parent
    return None


def content_of(data: Path | None) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the rows' files: whether an evaluation is still that of these rows."""
    files = sorted(p for p in data.rglob("*") if p.is_file()) if data else []
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def content(samples: pl.DataFrame) -> str:
    """Digest of what a model answered and scored."""
    return digest(samples.select("question_id", "filter", "metric", "score", "output", "gold_bits"))


def evaluation_report(recipe: Recipe, project: Project) -> dg.AssetsDefinition:
    """What the model gained and what it forgot, in one HTML file that opens offline."""

    @dg.asset(
        key=["evaluation_report", recipe.name],
        deps=[
            ["base_evaluation", recipe.name],
            ["midtrained_evaluation", recipe.name],
            ["midtrained_checkpoint", recipe.name],
            ["packed_sequences", recipe.name],
            ["mixture", recipe.name],
            ["selected_documents", recipe.name],
            "contamination_report",
        ],
        group_name=GROUP,
        kinds={"html"},
        owners=OWNERS,
        code_version=code_version("evaluate"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"What recipe `{recipe.name}` gained, what it forgot, and how much survives without leaked questions.",
    )
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        gathered = gather(lake, recipe, project)
        mark = fingerprint(code_version("evaluate"), recipe.model_dump(mode="json"), gathered.versions)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            (out / "report.html").write_text(render(gathered), encoding="utf-8")
            gathered.comparison.write_parquet(out / "comparison.parquet")
            contrast(gathered).write_parquet(out / "domains.parquet")
            return fingerprint(gathered.versions, digest(gathered.comparison)), {"verdict": verdict(gathered)}

        artifact, made = lake.artifacts.build(
            f"evaluation_report/{recipe.name}",
            mark,
            make,
            {
                f"{name}/{recipe.name}": lake.artifacts.current(f"{name}/{recipe.name}").fingerprint
                for name in (*SIDES, "midtrained_checkpoint", "packed_sequences")
            },
        )
        plots = {
            "held-out text before and after": picture(bits_plot(gathered.base_domains, gathered.mid_domains)),
            "scores before and after": picture(score_plot(gathered.comparison)),
        }
        more = {
            **plots,
            "domains": markdown(contrast(gathered)),
            "report": dg.MetadataValue.path(str(artifact.path / "report.html")),
        }
        return of_artifact(context, artifact, made, more)

    return asset


def gather(lake: Lake, recipe: Recipe, project: Project) -> Gathered:
    """Everything that the report speaks of, from the lake."""
    tables, artifacts = lake.tables, lake.artifacts
    base, mid = (artifacts.current(f"{name}/{recipe.name}") for name in SIDES)
    trained, packed = (artifacts.current(f"{name}/{recipe.name}") for name in ("midtrained_checkpoint", "packed_sequences"))
    steps = pl.read_ndjson(trained.path / "steps.jsonl", infer_schema_length=None)
    before, after = (pl.read_parquet(side.path / "samples.parquet") for side in (base, mid))
    return Gathered(
        recipe=recipe,
        sources=source_table(lake, project),
        left=funnel(tables.read(f"selected_documents/{recipe.name}")),
        mixture=pl.read_parquet(packed.path / "components.parquet"),
        unpacked=pl.read_parquet(packed.path / "left.parquet"),
        loss_plot=png(loss_and_rate(steps.to_dicts(), trained.about["validations"]), dpi=110),
        training=trained.about,
        base_bits=pl.read_parquet(base.path / "bits_per_byte.parquet"),
        mid_bits=pl.read_parquet(mid.path / "bits_per_byte.parquet"),
        base_domains=pl.read_parquet(base.path / "domains.parquet"),
        mid_domains=pl.read_parquet(mid.path / "domains.parquet"),
        comparison=compare(
            before,
            after,
            leaked(lake, recipe),
            confidence=recipe.evaluation.confidence,
            resamples=recipe.evaluation.bootstrap,
            seed=recipe.seed,
        ),
        changes=changes(before, after),
        not_run=mid.about["not run"],
        contamination=tables.read("contamination_report").drop("source_right", strict=False),
        generators=generator_table(lake, project),
        versions={
            "sources": {row["source"]: row["data version"] for row in source_table(lake, project).iter_rows(named=True)},
            "selection": selection_digest(lake, recipe.name),
            "sequences": packed.digest,
            "base evaluation": base.digest,
            "mid-trained evaluation": mid.digest,
            "checkpoint": trained.digest,
            "leaked": digest(leaked(lake, recipe)),
        },
    )


def leaked(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """Questions that some collected document holds, at the recipe's threshold: `benchmark`, `row`.

    All collected documents count, not only those that were trained on: the base model may have read the others' like.
    """
    matches = lake.tables.scan("contamination_matches").filter(pl.col("score") >= recipe.decontamination.threshold)
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
    """One row a generator: parents, requests, tokens, cost, acceptance by reason."""
    from midtrain_dagster.synthesize.driver import Synthesized, summary

    rows = []
    for generator in project.generators:
        told = lake.tables.read("synthesis_outcomes", generator.name).drop("source")
        made = summary(Synthesized(lake.tables.read("raw_documents", generator.name), told))
        made["rejected"] = ", ".join(f"{reason} {count}" for reason, count in made["rejected"].items())
        samples = told.filter(pl.col("accepted"))["sample"].head(3).to_list()
        rows.append({"generator": generator.name, **made, "samples": samples})
    return pl.DataFrame(rows, infer_schema_length=None)


def assets(project: Project, recipes: list[Recipe], rows: list[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """Three assets for each recipe; `rows` are the assets that write benchmark rows, where this project writes them."""
    return [
        asset
        for recipe in recipes
        for asset in (*(evaluation(name, recipe, project, rows) for name in SIDES), evaluation_report(recipe, project))
    ]


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    """Whether what the base knew is still there."""

    def retained(recipe: Recipe) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=["evaluation_report", recipe.name], name="general_capability_retained")
        def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
            """Bits per byte of the general domains rose by no more than the recipe's tolerance."""
            report: Artifact = lake.artifacts.current(f"evaluation_report/{recipe.name}")
            table = pl.read_parquet(report.path / "domains.parquet").filter(pl.col("role") == "general")
            rises = dict(table.select("domain", "relative_change").iter_rows())
            return dg.AssetCheckResult(
                passed=bool(rises) and max(rises.values()) <= recipe.goal.tolerance,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"tolerance": recipe.goal.tolerance, **{f"rise of {domain}": rise for domain, rise in rises.items()}},
            )

        return check

    return [retained(recipe) for recipe in recipes]
