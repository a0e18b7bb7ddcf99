"""`midtrain train` and `midtrain extend-context`: the stage on plain files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from midtrain_dagster.train.plan import TrainingPlan


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""
    app.command("train")(train)
    app.command("extend-context")(extend_context)


def train(
    model: Annotated[Path, typer.Option("--model", help="Model directory: config.json, safetensors, tokenizer.")],
    sequences: Annotated[Path, typer.Option("--sequences", help="Packed sequences, as `midtrain mix` writes them.")],
    out: Annotated[Path, typer.Option("--out", help="Where checkpoints, log and the trained model go.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A recipe's name or file; its `training` section is used.")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A YAML file with the fields of a `training` section.")] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option("--validation", help="Packed held-out sequences, DIR or NAME=DIR (NAME: general). Repeatable."),
    ] = None,
) -> None:
    """Train a model on packed sequences; the same command goes on with a run that was interrupted."""
    from midtrain_dagster.commands import console
    from midtrain_dagster.errors import MidtrainError
    from midtrain_dagster.recipes.training import Training
    from midtrain_dagster.train.plan import TrainingPlan
    from midtrain_dagster.train.run import INTERRUPTED, Interrupted, run

    if (recipe is None) == (plan is None):
        raise MidtrainError("give either --recipe or --plan")
    pairs = [item.partition("=") for item in validation or []]
    sets = {name if path else "general": path or name for name, _, path in pairs}
    values: dict[str, Any] = {"model": str(model), "sequences": str(sequences), "out": str(out), "validation": sets}
    if recipe is not None:
        from midtrain_dagster.recipes.named import load

        whole = load(recipe)
        section = whole.training
        values["data_stages"] = [{"name": stage.name, "fraction": stage.fraction} for stage in whole.mixture.stages]
        if section.context:
            values["probe_lengths"] = section.context.lengths(whole.packing.sequence_length)
    else:
        assert plan is not None
        section = Training.read(plan)
    chosen = TrainingPlan.from_values({**section.plan_values(), **values})
    if section.micro_batch is None:
        chosen = with_measured_batch(chosen, console.say)
    try:
        summary = run(chosen, console.say)
    except Interrupted as error:
        console.say(f"midtrain: {error}")
        raise typer.Exit(INTERRUPTED) from None
    console.result(summary)


def with_measured_batch(plan: "TrainingPlan", say: Callable[[str], None]) -> "TrainingPlan":
    """The plan with as many sequences in a forward pass as fit: those of the run that OUT holds of the same plan, or measured."""
    from midtrain_dagster.train.fit import fitting
    from midtrain_dagster.train.plan import TrainingPlan

    file = Path(plan.out) / "plan.json"
    if file.exists():
        before = TrainingPlan.read(file)
        if replace(plan, micro_batch=before.micro_batch) == before:
            return before
    found = fitting(plan)
    say(f"{found['micro_batch']} sequences fit in one forward pass ({found['device']}, {found['limit_gb']} GB)")
    return replace(plan, micro_batch=found["micro_batch"])


def extend_context(
    model: Annotated[Path, typer.Option("--model", help="Model directory.")],
    out: Annotated[Path, typer.Option("--out", help="Where the extended model goes.")],
    method: Annotated[
        str, typer.Option("--method", help="linear, ntk, ntk-by-parts, dynamic, yarn, longrope, llama3 or base.")
    ] = "yarn",
    factor: Annotated[float, typer.Option("--factor", min=1.0, help="New context length over the old one.")] = 4.0,
    base: Annotated[float | None, typer.Option("--base", help="New rope theta (method base).")] = None,
    original: Annotated[int | None, typer.Option("--original", help="Length the model was trained at.")] = None,
    longrope: Annotated[
        Path | None, typer.Option("--longrope-factors", help="JSON file with short_factor and long_factor (method longrope).")
    ] = None,
) -> None:
    """Write a longer context into a model's configuration; the weights stay."""
    from midtrain_dagster.commands import console
    from midtrain_dagster.train import rope

    lists: dict[str, Any] = json.loads(longrope.read_text()) if longrope else {}
    console.result(rope.extend_context(model, method, factor, out, base=base, original=original, **lists))
