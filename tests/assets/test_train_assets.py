"""The plan before the run, the run, its pictures and its checks, on a model and sequences made here."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import train
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.ledger import Ledger
from midtrain_dagster.metering import Usage
from midtrain_dagster.project.operations import Budget
from midtrain_dagster.project.project import Compute
from midtrain_dagster.recipes import named as recipes
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.sequences import SequenceWriter
from midtrain_dagster.train.plan import TrainingPlan
from resources.gpu import Gpu
from resources.lake import Lake

NAMES = ("web", "math")


def sequences(path: Path, count: int, length: int = 64, seed: int = 0) -> None:
    """Half of one component, then half of the other; the next token is the last one plus one, or two."""
    draw = np.random.default_rng(seed)
    with SequenceWriter(path, length, 300, NAMES) as writer:
        for row in range(count):
            component = int(row >= count // 2)
            tokens = (draw.integers(300) + np.arange(length) * (component + 1)) % 300
            writer.append(tokens[None], np.array([(0, 0, length, component, 0, 0)]))


@pytest.fixture
def recipe() -> Recipe:
    """Two stages of data; the rate turns with them."""
    values = recipes.load("extension:scaled-scratch").model_dump(mode="json")
    training = values["training"] | {
        "schedule": [{"shape": "constant", "until": "first"}, {"shape": "linear", "until": "second"}],
        "batch_sequences": 4, "micro_batch": None, "validations": 1,
    }  # fmt: skip
    training["context"] = {"method": "yarn", "factor": 2.0, "probe_lengths": [128]}
    stages = [{"name": "first", "fraction": 0.5}, {"name": "second", "fraction": 0.5}]
    components = [{"name": name, "share": 0.5} for name in NAMES]
    return Recipe.model_validate(values | {"training": training, "mixture": {"components": components, "stages": stages}})


@pytest.fixture
def lake(recipe: Recipe, tmp_path: Path) -> Lake:
    """With a base checkpoint and packed sequences, as the assets before leave them."""
    from midtrain_dagster.train.base import make_model
    from midtrain_dagster.train.tokenizer import train_tokenizer

    lake = Lake(tmp_path, "lake")

    def base(out: Path) -> tuple[str, dict[str, Any]]:
        train_tokenizer(["The pass key is what you remember. " * 9], 300, out / "model")
        make_model(out / "model", 300, 1, 32, 2, 128)
        return "base", {}

    lake.artifacts.build(f"base_checkpoint/{recipe.name}", "b", base, {})
    pack(lake, recipe, 32)
    return lake


def pack(lake: Lake, recipe: Recipe, count: int) -> None:
    """Packed sequences, as the asset leaves them."""

    def packed(out: Path) -> tuple[str, dict[str, Any]]:
        sequences(out / "train", count)
        for number, name in enumerate(("general", "long")):
            sequences(out / "validation" / name, 4, seed=number + 1)
        filled = {"stage": [0, 1], "stage_name": ["first", "second"], "component": list(NAMES), "packed": [count * 32] * 2}
        pl.DataFrame(filled).write_parquet(out / "components.parquet")
        return f"packed {count}", {}

    lake.artifacts.build(f"packed_sequences/{recipe.name}", f"p{count}", packed, {})


def materialized(recipe: Recipe, lake: Lake, *assets: Any) -> dg.ExecuteInProcessResult:
    resources = {"lake": lake, "gpu": Gpu(Compute(device="cpu", devices=1, threads=1))}
    return dg.materialize([*assets], resources=resources, raise_on_error=False)


def test_the_plan_is_seen_before_the_run_and_the_run_follows_it(recipe: Recipe, lake: Lake) -> None:
    planned = materialized(recipe, lake, train.training_plan(recipe))
    assert planned.success
    (told,) = planned.asset_materializations_for_node(planned.get_asset_materialization_events()[0].step_key)
    assert "data:image/png" in str(told.metadata["learning rate, batch and data"].value)
    assert told.metadata["steps"].value == 8
    measured: Any = told.metadata["batch that fits"].value
    assert measured["micro_batch"] in (1, 2, 4)
    plan = TrainingPlan.read(lake.artifacts.current(f"training_plan/{recipe.name}").path / "plan.json")
    assert [(stage.name, stage.fraction) for stage in plan.data_stages] == [("first", 0.5), ("second", 0.5)]

    result = materialized(recipe, lake, train.midtrained_checkpoint(recipe), *train.checks([recipe]))
    assert result.success
    about = lake.artifacts.current(f"midtrained_checkpoint/{recipe.name}").about
    assert about["planned_steps"] == 8
    rates = [json.loads(line)["learning_rate"] for line in steps_of(lake, recipe)]
    assert rates[:5] == [max(rates)] * 5  # the last of these is where the decay begins
    assert rates[5] < rates[4]
    shown = result.get_asset_materialization_events()[-1].materialization.metadata
    for name in (
        "loss and learning rate",
        "held-out loss by component",
        "loss by position",
        "numbers found in long prompts",
        "steps",
    ):
        assert name in shown
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["loss_is_finite"].passed
    assert checks["no_guard_intervened"].passed
    assert checks["handover_is_smooth"].metadata["component"].value in NAMES


def steps_of(lake: Lake, recipe: Recipe) -> list[str]:
    return (lake.artifacts.current(f"midtrained_checkpoint/{recipe.name}").path / "steps.jsonl").read_text().splitlines()


def test_a_budget_stops_a_training_at_a_step_and_a_larger_one_goes_on(
    recipe: Recipe, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the asset: the child saves its checkpoint, the failure names the budget, the next run goes on from there."""
    quiet = {
        "batch_sequences": 1,
        "micro_batch": 1,
        "context": None,
        "peak_learning_rate": 1e-7,
    }  # no guard has anything to say
    long = recipe.model_copy(update={"training": recipe.training.model_copy(update=quiet)})
    pack(lake, long, 800)
    assert materialized(long, lake, train.training_plan(long)).success
    made = lake.artifacts.root / f"midtrained_checkpoint/{long.name}"

    def steps_so_far(ledger: Ledger, used: Usage) -> float:  # a dollar a step, whatever this machine's speed
        return float(sum(len(file.read_text().splitlines()) for file in made.glob(".partial-*/steps.jsonl")))

    monkeypatch.setattr(Ledger, "machine", steps_so_far)
    lake.ledger.budget = Budget(money=20)
    stopped = materialized(long, lake, train.midtrained_checkpoint(long))
    assert not stopped.success
    (failure,) = [event for event in stopped.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "of 20 money used" in str(failure.step_failure_data)
    assert not [event for event in stopped.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    (partial,) = made.glob(".partial-*")
    done = len((partial / "steps.jsonl").read_text().splitlines())
    assert done >= 20
    assert [json.loads(file.read_text())["step"] for file in partial.glob("state/*/state.json")][-1:] == [done]
    assert lake.ledger.lines()["outcome"].to_list()[-1] == "stopped"

    lake.ledger.budget = Budget(money=20_000)
    assert materialized(long, lake, train.midtrained_checkpoint(long)).success
    about = lake.artifacts.current(f"midtrained_checkpoint/{long.name}").about
    assert done < about["steps"] == len(steps_of(lake, long))
    first, second = (json.loads(line) for line in steps_of(lake, long)[done - 1 : done + 1])
    assert (first["step"], second["step"]) == (done, done + 1)


def test_a_plan_of_another_recipe_is_not_followed(recipe: Recipe, lake: Lake) -> None:
    plan = TrainingPlan("m", "s", "o")

    def other(out: Path) -> tuple[str, dict[str, Any]]:
        replace(plan, seed=1).write(out / "plan.json")
        return "x", {}

    lake.artifacts.build(f"training_plan/{recipe.name}", "another", other, {})
    result = materialized(recipe, lake, train.midtrained_checkpoint(recipe))
    assert not result.success
    errors = [event.event_specific_data.error for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert MidtrainError.__name__ in str(errors[0])
    assert "materialize it first" in str(errors[0])


def test_checks_warn_of_guards_and_of_a_jump(recipe: Recipe, lake: Lake) -> None:
    """A run in which a spike was skipped, and whose loss rose at the start."""

    def broken(out: Path) -> tuple[str, dict[str, Any]]:
        records = [
            {"step": n, "loss": loss, "skipped": "spike" if n == 2 else None, "components": {"web": loss}}
            for n, loss in enumerate((2.0, 9.0, 4.0, 3.0), start=1)
        ]
        (out / "steps.jsonl").write_text("\n".join(map(json.dumps, records)))
        side = {"loss": 2.0, "components": {"web": 2.0}}
        guards = {"nonfinite": 0, "spike": 1, "rollbacks": 0}
        return "x", {"guards": guards, "stopped": None, "validation": {"general": {"before": side, "after": side}}}

    lake.artifacts.build(f"midtrained_checkpoint/{recipe.name}", "broken", broken, {})
    found = {}
    for check in train.checks([recipe]):
        result: Any = check.node_def.compute_fn.decorated_fn(lake=lake)  # type: ignore[union-attr]
        found[check.check_key.name] = result
    assert found["loss_is_finite"].passed
    assert not found["no_guard_intervened"].passed
    assert found["no_guard_intervened"].metadata["spike"].value == 1
    assert not found["handover_is_smooth"].passed
    assert found["handover_is_smooth"].metadata["jump"].value == pytest.approx(10 / 3, abs=0.01)
    assert {found[name].severity for name in ("no_guard_intervened", "handover_is_smooth")} == {dg.AssetCheckSeverity.WARN}
