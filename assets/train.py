"""Train: the base model as it is imported, and the mid-trained checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.outcome import AUTOMATION, OWNERS, of_artifact, plot
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import LocalBase, Recipe
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.train.base import describe, import_base
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.rope import extend_context
from resources.gpu import POOL, Gpu
from resources.lake import Lake
from resources.packaged import packaged_model

GROUP = "train"
IMPORT_CODE = code_version("train.base", "train.tokenizer", "train.rope")
TRAIN_CODE = code_version("train", "sequences")


def base_checkpoint(recipe: Recipe, project: Project) -> dg.AssetsDefinition:
    """The model that a recipe starts from, in one layout whatever it came in; its context extended where the recipe says so."""
    scratch = recipe.base.kind == "scratch"

    @dg.asset(
        key=["base_checkpoint", recipe.name],
        deps=[["clean_documents", source.name] for source in project.sources] if scratch else [],
        group_name=GROUP,
        kinds={"huggingface", "safetensors"},
        owners=OWNERS,
        code_version=IMPORT_CODE,
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Base model of recipe `{recipe.name}` ({recipe.base.kind}) as safetensors with its tokenizer.",
    )
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        extension = recipe.training.context
        mark = fingerprint(
            IMPORT_CODE,
            recipe.base.model_dump(mode="json"),
            extension.model_dump(mode="json") if extension else None,
            recipe.seed if scratch else 0,
        )

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            first = lake.tables.scan("clean_documents").sort("id").select("text").head(2000) if scratch else None
            texts = first.collect()["text"] if first is not None else ()
            into = out / ("original" if extension else "model")
            # The packaged model is dequantised once for the whole project: a local teacher uses the same directory.
            base = LocalBase(kind="local", path=packaged_model(lake)) if recipe.base.kind == "packaged" else recipe.base
            about = import_base(base, into, root=lake.root, texts=texts, seed=recipe.seed)
            if extension:
                chosen = extension.model_dump(exclude={"method", "factor"}, exclude_none=True)
                about |= extend_context(into, extension.method, extension.factor, out / "model", **chosen)
                about |= describe(out / "model")
                shutil.rmtree(into)
            return about["digest"], about

        read = {"clean_documents": lake.tables.version("clean_documents")} if scratch else {}
        artifact, made = lake.artifacts.build(f"base_checkpoint/{recipe.name}", mark, make, read)
        return of_artifact(context, artifact, made)

    return asset


def plan_of(recipe: Recipe, base: Artifact, sequences: Artifact, out: Path, threads: int) -> TrainingPlan:
    """The recipe's training section with the places of its inputs."""
    return TrainingPlan.from_values(
        {
            "threads": threads,
            **{name: value for name, value in recipe.training.plan_values().items() if value is not None},
            "model": str(base.path / "model"),
            "sequences": str(sequences.path / "train"),
            "validation": {p.name: str(p) for p in sorted((sequences.path / "validation").iterdir())},
            "out": str(out),
        }
    )


def midtrained_checkpoint(recipe: Recipe) -> dg.AssetsDefinition:
    """The decay run of a recipe, in a process of its own, resumed from its checkpoint when it was killed."""

    @dg.asset(
        key=["midtrained_checkpoint", recipe.name],
        deps=[["base_checkpoint", recipe.name], ["packed_sequences", recipe.name]],
        group_name=GROUP,
        kinds={"torch", "safetensors"},
        owners=OWNERS,
        pool=POOL,
        code_version=TRAIN_CODE,
        automation_condition=AUTOMATION,
        retry_policy=dg.RetryPolicy(max_retries=1),
        tags={"midtrain/recipe": recipe.name},
        description=f"The model that recipe `{recipe.name}` trains: {recipe.description}",
    )
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], gpu: dg.ResourceParam[Gpu]
    ) -> dg.MaterializeResult:
        base = lake.artifacts.current(f"base_checkpoint/{recipe.name}")
        sequences = lake.artifacts.current(f"packed_sequences/{recipe.name}")
        settings = recipe.training.model_dump(mode="json")
        mark = fingerprint(TRAIN_CODE, settings, base.digest, sequences.digest)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            plan = plan_of(recipe, base, sequences, out, gpu.threads)
            plan.write(out / "plan.json")
            gpu.launch(context, out / "plan.json")
            summary = json.loads((out / "training.json").read_text())
            return summary["weights_digest"], summary

        artifact, made = lake.artifacts.build(
            f"midtrained_checkpoint/{recipe.name}",
            mark,
            make,
            {f"base_checkpoint/{recipe.name}": base.fingerprint, f"packed_sequences/{recipe.name}": sequences.fingerprint},
        )
        from midtrain_dagster.train.plots import loss_and_rate

        steps = pl.read_ndjson(artifact.path / "steps.jsonl", infer_schema_length=None).to_dicts()
        return of_artifact(
            context, artifact, made, {"loss and learning rate": plot(loss_and_rate(steps, artifact.about["validations"]))}
        )

    return asset


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Two assets for each recipe."""
    return [asset for recipe in recipes for asset in (base_checkpoint(recipe, project), midtrained_checkpoint(recipe))]


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    """A broken checkpoint must not be evaluated."""

    def finite(recipe: Recipe) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=["midtrained_checkpoint", recipe.name], name="loss_is_finite", blocking=True)
        def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
            """Every step's loss is a number, and so are all losses on held-out text."""
            artifact = lake.artifacts.current(f"midtrained_checkpoint/{recipe.name}")
            steps = pl.read_ndjson(artifact.path / "steps.jsonl", infer_schema_length=None)
            bad = len(steps.filter(~pl.col("loss").is_finite() | pl.col("loss").is_null()))
            after = [sides["after"]["loss"] for sides in artifact.about["validation"].values()]
            held = all(value is not None and value == value and abs(value) != float("inf") for value in after)
            return dg.AssetCheckResult(
                passed=bad == 0 and held and len(steps) > 0, metadata={"steps": len(steps), "not finite": bad}
            )

        return check

    return [finite(recipe) for recipe in recipes]
