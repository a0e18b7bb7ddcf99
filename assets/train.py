"""Train: the base model as it is imported, the plan of the run, and the mid-trained checkpoint."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import numpy as np
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, plot
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import LocalBase, Recipe
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.base import describe, import_base
from midtrain_dagster.train.handover import handover_jump
from midtrain_dagster.train.plan import TrainingPlan, starting_state
from midtrain_dagster.train.rope import extend_context
from midtrain_dagster.train.schedule import timetable
from resources.gpu import POOL, Gpu
from resources.lake import Lake
from resources.packaged import packaged_model

GROUP = "train"
SHOWN_STEPS = 60
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
    @measured
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
                chosen = extension.model_dump(exclude={"method", "factor", "probe_lengths"}, exclude_none=True)
                about |= extend_context(into, extension.method, extension.factor, out / "model", **chosen)
                about |= describe(out / "model")
                shutil.rmtree(into)
            return about["digest"], about

        read = {"clean_documents": lake.tables.version("clean_documents")} if scratch else {}
        artifact, made = lake.artifacts.build(f"base_checkpoint/{recipe.name}", mark, make, read)
        return of_artifact(context, artifact, made)

    return asset


def plan_of(recipe: Recipe, base: Artifact, sequences: Artifact) -> TrainingPlan:
    """The recipe's training section with the places of its inputs and the curriculum as it was packed; `out` is left open."""
    filled = pl.read_parquet(sequences.path / "components.parquet")
    stages = filled.group_by("stage", "stage_name", maintain_order=True).agg(pl.col("packed").sum()).sort("stage")
    whole = max(int(stages["packed"].sum()), 1)
    return TrainingPlan.from_values(
        {
            **recipe.training.plan_values(),
            "model": str(base.path / "model"),
            "sequences": str(sequences.path / "train"),
            "validation": {p.name: str(p) for p in sorted((sequences.path / "validation").iterdir())},
            "data_stages": [
                {"name": row["stage_name"], "fraction": row["packed"] / whole} for row in stages.iter_rows(named=True)
            ],
            "probe_lengths": recipe.training.context.lengths(recipe.packing.sequence_length) if recipe.training.context else (),
            "out": "",
        }
    )


class Inputs(NamedTuple):
    """What a run is made from; the plan and the checkpoint made by it have the same mark."""

    base: Artifact
    sequences: Artifact
    mark: str
    fingerprints: dict[str, str | int]


def inputs_of(lake: Lake, recipe: Recipe) -> Inputs:
    """The newest base and sequences of a recipe."""
    names = (f"base_checkpoint/{recipe.name}", f"packed_sequences/{recipe.name}")
    base, sequences = (lake.artifacts.current(name) for name in names)
    mark = fingerprint(TRAIN_CODE, recipe.training.model_dump(mode="json"), base.digest, sequences.digest)
    return Inputs(base, sequences, mark, dict(zip(names, (base.fingerprint, sequences.fingerprint), strict=True)))


def training_plan(recipe: Recipe) -> dg.AssetsDefinition:
    """What the run will do at every step, to be looked at before it starts."""

    @dg.asset(
        key=["training_plan", recipe.name],
        deps=[["base_checkpoint", recipe.name], ["packed_sequences", recipe.name]],
        group_name=GROUP,
        kinds={"json"},
        owners=OWNERS,
        pool=POOL,
        code_version=TRAIN_CODE,
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Learning rate, batch and data of recipe `{recipe.name}`, step by step, before it trains.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], gpu: dg.ResourceParam[Gpu]
    ) -> dg.MaterializeResult:
        inputs = inputs_of(lake, recipe)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            plan = plan_of(recipe, inputs.base, inputs.sequences)
            fitted = None if recipe.training.micro_batch else gpu.fitting(plan, out)
            plan = replace(plan, micro_batch=fitted["micro_batch"]) if fitted else plan
            plan.write(out / "plan.json")
            return fingerprint(inputs.mark, plan.micro_batch), outlook(plan) | ({"batch that fits": fitted} if fitted else {})

        artifact, made = lake.artifacts.build(f"training_plan/{recipe.name}", inputs.mark, make, inputs.fingerprints)
        from midtrain_dagster.train.plots import schedule

        plan = TrainingPlan.read(artifact.path / "plan.json")
        return of_artifact(context, artifact, made, {"learning rate, batch and data": plot(schedule(plan))})

    return asset


def outlook(plan: TrainingPlan) -> dict[str, Any]:
    """Steps, tokens and rates of a run that has not started."""
    data = Sequences.open(Path(plan.sequences))
    times = timetable(plan, data.count)
    sizes = np.diff(times.offsets)
    return {
        "steps": times.steps,
        "tokens": int(times.offsets[-1]) * data.length,
        "passes over the data": float(times.offsets[-1]) / data.count,
        "tokens a step": f"{int(sizes.min()) * data.length:,} to {int(sizes.max()) * data.length:,}",
        "sequences in one forward pass": plan.micro_batch,
        "first learning rate": float(times.rates[0]),
        "highest learning rate": float(times.rates.max()),
        "last learning rate": float(times.rates[-1]),
        "optimizer state": str(starting_state(plan) or "starts at zero"),
    }


def midtrained_checkpoint(recipe: Recipe) -> dg.AssetsDefinition:
    """The decay run of a recipe, in a process of its own, resumed from its checkpoint when it was killed."""

    @dg.asset(
        key=["midtrained_checkpoint", recipe.name],
        deps=[[name, recipe.name] for name in ("base_checkpoint", "packed_sequences", "training_plan")],
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
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], gpu: dg.ResourceParam[Gpu]
    ) -> dg.MaterializeResult:
        inputs = inputs_of(lake, recipe)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            planned = lake.artifacts.get(f"training_plan/{recipe.name}", inputs.mark)
            if planned is None:
                raise MidtrainError(f"training_plan/{recipe.name} is of another recipe, model or data; materialize it first")
            plan = TrainingPlan.read(planned.path / "plan.json")
            replace(plan, out=str(out), threads=plan.threads or gpu.threads).write(out / "plan.json")
            gpu.launch(context, out / "plan.json")
            summary = json.loads((out / "training.json").read_text())
            return summary["weights_digest"], summary

        artifact, made = lake.artifacts.build(f"midtrained_checkpoint/{recipe.name}", inputs.mark, make, inputs.fingerprints)
        return of_artifact(context, artifact, made, pictures(artifact))

    return asset


def pictures(artifact: Artifact) -> dict[str, dg.MetadataValue]:
    """Loss and rate of a finished run; losses before and after; what guards did; what it does with a long context."""
    from midtrain_dagster.train.plots import loss_and_rate, loss_by_position

    about = artifact.about
    steps = pl.read_ndjson(artifact.path / "steps.jsonl", infer_schema_length=None).to_dicts()
    shown = {
        "loss and learning rate": plot(loss_and_rate(steps, about["validations"])),
        "held-out loss by component": markdown(by_component(about)),
        "loss by position": plot(loss_by_position(about["validation"])),
        "steps": markdown(
            pl.DataFrame(steps[:: -(-len(steps) // SHOWN_STEPS)], infer_schema_length=None).unnest(
                "components", separator=": "
            ),
            rows=SHOWN_STEPS,
        ),
    }
    if about.get("needle"):
        shown["numbers found in long prompts"] = markdown(pl.DataFrame(about["needle"]), rows=60)
    return shown


def by_component(about: dict[str, Any]) -> pl.DataFrame:
    """One row a validation set and component: loss before, after, and the difference, nats a token."""
    rows = [
        {"set": name, "component": component, "before": before, "after": sides["after"]["components"][component]}
        for name, sides in about["validation"].items()
        for component, before in sides["before"]["components"].items()
    ]
    return pl.DataFrame(rows).with_columns(change=pl.col("after") - pl.col("before"))


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Three assets for each recipe."""
    return [
        asset
        for recipe in recipes
        for asset in (base_checkpoint(recipe, project), training_plan(recipe), midtrained_checkpoint(recipe))
    ]


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    """A broken checkpoint must not be evaluated; a bad start or guards at work should be seen."""
    return [check for recipe in recipes for check in (finite(recipe), smooth(recipe), unguarded(recipe))]


def trained(lake: Lake, recipe: Recipe) -> tuple[Artifact, pl.DataFrame]:
    """The newest checkpoint of a recipe and the records of its steps."""
    artifact = lake.artifacts.current(f"midtrained_checkpoint/{recipe.name}")
    return artifact, pl.read_ndjson(artifact.path / "steps.jsonl", infer_schema_length=None)


def finite(recipe: Recipe) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=["midtrained_checkpoint", recipe.name], name="loss_is_finite", blocking=True)
    def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        """Every applied step's loss is a number, and so are all losses on held-out text."""
        artifact, steps = trained(lake, recipe)
        applied = steps.filter(pl.col("skipped").is_null())
        bad = len(applied.filter(~pl.col("loss").is_finite() | pl.col("loss").is_null()))
        after = [sides["after"]["loss"] for sides in artifact.about["validation"].values()]
        held = all(value is not None and math.isfinite(value) for value in after)
        return dg.AssetCheckResult(
            passed=bad == 0 and held and len(applied) > 0, metadata={"steps applied": len(applied), "not finite": bad}
        )

    return check


def smooth(recipe: Recipe) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=["midtrained_checkpoint", recipe.name], name="handover_is_smooth")
    def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        """The loss of no component jumped when training took over from the base model."""
        artifact, steps = trained(lake, recipe)
        jump = handover_jump(artifact.about, steps.to_dicts(), recipe.training.guards.handover_tolerance)
        return dg.AssetCheckResult(
            passed=jump is None or jump.passed,
            severity=dg.AssetCheckSeverity.WARN,
            description="too few steps to tell" if jump is None else None,
            metadata={} if jump is None else vars(jump) | {"tolerance": recipe.training.guards.handover_tolerance},
        )

    return check


def unguarded(recipe: Recipe) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=["midtrained_checkpoint", recipe.name], name="no_guard_intervened")
    def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        """No step was skipped or rolled back, and no guard ended the run before its last step."""
        about = trained(lake, recipe)[0].about
        runs = about.get("runs") or [about]
        counts = {name: sum(run["guards"][name] for run in runs) for name in ("nonfinite", "spike", "rollbacks")}
        stopped = "; ".join(run["stopped"] for run in runs if run["stopped"])
        return dg.AssetCheckResult(
            passed=not any(counts.values()) and not stopped,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={**counts, "stopped": stopped or "at its last step"},
        )

    return check
