"""The recipes that come with the project: readable, complete, and true to what was published."""

import re

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.catalog import CATALOG
from midtrain_dagster.recipes import named as recipes
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.scaled import SIZES, scaled, steps_of
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.schedule import timetable

PUBLISHED = ("olmo-2", "phi-4", "phi-3.5", "llama-3", "yi-lightning", "smollm2", "olmo-3", "olmo-3-long", "minicpm")
GOALS = ("general", "core-cognitive", "task-execution", "extension")
SURVEY = {  # arXiv 2510.23081, table of objectives
    "phi-3.5": {"general", "multilingual", "long context"},
    "phi-4": {"general", "mathematics", "coding"},
    "llama-3": {"general", "reasoning"},
    "olmo-2": {"general", "coding"},
    "yi-lightning": {"general", "coding"},
}


def shares(name: str) -> dict[str, float]:
    return {component.name: component.share for component in recipes.load(name).mixture.components}


@pytest.mark.parametrize("name", [*PUBLISHED, *GOALS])
def test_every_recipe_is_complete(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name
    assert sum(shares(name).values()) == pytest.approx(1)
    assert recipe.goal.objectives
    assert {task.name for task in recipe.evaluation.tasks} <= set(CATALOG)
    assert any(component.general for component in recipe.mixture.components)
    assert recipe.selection.contamination is not None
    assert steps_of(recipe) >= 100


@pytest.mark.parametrize("name", [*PUBLISHED, *GOALS])
def test_every_source_speaks_of_a_key_that_the_recipe_has(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.sources
    for key in recipe.sources:
        value: object = recipe
        for part in key.split("."):
            value = getattr(value, part)
        assert value, key


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_not_published_is_said_to_be_ours(name: str) -> None:
    text = (recipes.folder() / f"{name}.yaml").read_text()
    assert "our choice" in text
    for line in text.splitlines():
        if re.match(r"\s+(peak_learning_rate|batch_sequences|steps):", line) and name != "yi-lightning":
            assert re.search(r"# .*(published|undisclosed|computed|tenth|tokens)", line), line


@pytest.mark.parametrize(("name", "objectives"), SURVEY.items())
def test_objectives_are_the_surveys(name: str, objectives: set[str]) -> None:
    assert set(recipes.load(name).goal.objectives) == objectives


def test_olmo_2() -> None:
    recipe = recipes.load("olmo-2")
    training = recipe.training
    assert training.peak_learning_rate == 6.1499e-5
    assert [(phase.shape, phase.end) for phase in training.schedule] == [("linear", 0.0)]
    assert training.steps == 11931
    assert recipe.mixture.budget_tokens == 11931 * 1024 * 4096
    assert recipe.mixture.budget_tokens == pytest.approx(50e9, rel=1e-3)
    assert training.soup_seeds == (42, 42069, 666)
    dolmino = {"web": 47.2, "qa": 16.6 + 2.45, "prose": 5.85 + 7.11, "math": 20.8}
    assert {name: 100 * share for name, share in shares("olmo-2").items()} == pytest.approx(dolmino, abs=0.011)


def test_phi_4() -> None:
    recipe = recipes.load("phi-4")
    assert recipe.mixture.budget_tokens == 250_000_000_000
    assert recipe.training.peak_learning_rate == pytest.approx(3e-4 / 10)
    assert recipe.training.context is not None
    assert (recipe.training.context.base, recipe.training.context.factor) == (250_000, 16384 / 4096)
    recall = {"web": 30, "synthetic": 40, "code": 20, "prose": 10}
    expected = {"long": 0.30, **{name: 0.7 * part / 100 for name, part in recall.items()}}
    assert shares("phi-4") == pytest.approx(expected)


def test_llama_3() -> None:
    recipe = recipes.load("llama-3")
    assert shares("llama-3") == {"general": 0.50, "math": 0.25, "code": 0.17, "multilingual": 0.08}
    assert recipe.training.context is not None
    assert recipe.training.context.factor == 131072 / 8192
    assert recipe.training.batch_sequences * recipe.packing.sequence_length == 16 * 2**20
    lengths = [stage.document_length for stage in recipe.mixture.stages]
    assert (len(lengths), lengths[0], lengths[-1], lengths) == (6, 8192, 131072, sorted(lengths))
    decay = recipe.training.schedule[-1]
    assert decay.end == 0
    assert decay.steps == -(-40_000_000 // (16 * 2**20))


def test_smollm2() -> None:
    recipe = recipes.load("smollm2")
    stages = [(stage.fraction, tuple(stage.shares.values())) for stage in recipe.mixture.stages]
    assert stages == [(0.4, (0.75, 0.20, 0.05)), (0.4, (0.74, 0.16, 0.10)), (0.2, (0.58, 0.24, 0.14, 0.04))]
    assert recipe.training.peak_learning_rate == 5e-4
    assert recipe.training.schedule[0].until == "stable 8T to 10T"  # 4T of the 5T tokens; the decay has the last


def test_olmo_3() -> None:
    middle, long = recipes.load("olmo-3"), recipes.load("olmo-3-long")
    assert (middle.mixture.budget_tokens, middle.packing.sequence_length) == (99_950_000_000, 8192)
    assert middle.training.peak_learning_rate == 2.0712e-4
    parts = {"web": 22.5 + 5, "prose": 5, "math": 10.7 + 5.63, "code": 20, "qa": 5.9 + 5 + 5 + 4.37 + 1.1}
    proportion = {name: part / sum(parts.values()) for name, part in parts.items()}
    assert shares("olmo-3") == pytest.approx(proportion, abs=0.001)
    assert shares("olmo-3-long")["long"] == 0.34
    assert long.training.schedule[0].steps == 200
    assert long.training.context is not None
    assert long.training.context.factor == 65536 / 8192


def test_minicpm() -> None:
    training = recipes.load("minicpm").training
    assert training.schedule[0].half_life == 5000
    assert training.batch_sequences * 4096 == pytest.approx(3.93e6, rel=1e-3)
    assert training.peak_learning_rate == pytest.approx(0.01 * 256 / 2304, rel=1e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*PUBLISHED, *GOALS])
def test_scaled_keeps_the_shape(name: str, size: str) -> None:
    whole, small = recipes.load(name), recipes.load(f"{name}:{size}")
    assert small.name == f"{name}-{size}"
    assert small.goal == whole.goal
    assert sum(c.share or 0 for c in small.mixture.components) == pytest.approx(1)
    lost = sum(c.share or 0 for c in whole.mixture.components if c.name in SIZES[size].without)
    for component in small.mixture.components:
        assert component.share == pytest.approx(shares(name)[component.name] / (1 - lost))
    assert [p.shape for p in small.training.schedule] == [p.shape for p in whole.training.schedule]
    assert bool(small.training.context) == bool(whole.training.context)
    if small.training.context and whole.training.context:
        assert small.training.context.factor == whole.training.context.factor


@pytest.mark.parametrize("name", [*PUBLISHED, *GOALS])
def test_scaled_rates_follow_the_published_curve(name: str) -> None:
    """At the same part of the run, the rate is the same part of the peak, but for phases shorter than a small step, and within
    a step where a phase ends with a stage of the data: it ends with the first step that reads none of it.
    """
    curves = []
    for recipe in (recipes.load(name), recipes.load(f"{name}:scaled-scratch")):
        steps = round(min(steps_of(recipe), 50_000) if recipe.training.steps is None else recipe.training.steps)
        stages = [{"name": stage.name, "fraction": stage.fraction} for stage in recipe.mixture.stages]
        paths = {"model": "m", "sequences": "s", "out": "o"}
        plan = TrainingPlan.from_values({**recipe.training.plan_values(), **paths, "steps": steps, "data_stages": stages})
        rates = timetable(plan, steps * plan.batch_sequences).rates
        curves.append([rates[round(len(rates) * part)] / plan.peak_learning_rate for part in (0.25, 0.5, 0.75)])
    tied = any(phase.until for phase in recipes.load(name).training.schedule)
    assert curves[1] == pytest.approx(curves[0], abs=0.04 if tied else 0.02)


def test_batch_ramp_and_steps_scale() -> None:
    values = recipes.load("olmo-3-long").model_dump(mode="json")
    values["training"] |= {"batch_sequences": 128, "batch_stages": [{"after": 0.5, "sequences": 256}]}
    ramped = Recipe.model_validate(values)
    sequences = 50e9 / 65536
    assert steps_of(ramped) == pytest.approx(sequences * (0.5 / 128 + 0.5 / 256))
    small = scaled(ramped, SIZES["scaled"], "small")
    assert small.training.batch_stages[0].sequences == 2 * small.training.batch_sequences


def test_unknown_size_is_an_error_that_names_the_known() -> None:
    with pytest.raises(MidtrainError, match="scaled-scratch"):
        recipes.load("olmo-2:tiny")


def test_recipe_of_unknown_length_cannot_be_scaled() -> None:
    values = recipes.load("general").model_dump(mode="json")
    values["mixture"]["budget_tokens"] = None
    with pytest.raises(MidtrainError, match=r"budget_tokens or training\.steps"):
        scaled(Recipe.model_validate(values), SIZES["scaled"], "small")
