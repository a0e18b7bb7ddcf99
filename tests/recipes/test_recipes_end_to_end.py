"""Every recipe, scaled to a tiny model, from the sources through the graph to its report."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from midtrain_dagster import definitions
from midtrain_dagster.project import project as projects
from midtrain_dagster.recipes import named as recipes
from midtrain_dagster.recipes.recipe import Recipe
from resources.lake import Lake

NAMES = [name for name in recipes.names() if name not in ("smoke", "demo")]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", NAMES)
def test_scaled_recipe_runs_from_sources_to_report(every_domain: Path, name: str) -> None:
    recipe = recipes.load(f"{name}:scaled-scratch")
    project, root = projects.load(every_domain), every_domain.parent
    defs = definitions.definitions(project, root, [recipe])
    job = defs.resolve_job_def(definitions.job_name(recipe.name))
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)
    failures = {
        event.step_key: (event.event_specific_data.error.cause or event.event_specific_data.error).message
        for event in result.all_events
        if event.event_type_value == "STEP_FAILURE"
    }
    assert result.success, failures

    lake = Lake(root, project.storage)
    table = pl.read_parquet(lake.artifacts.current(f"mixture/{recipe.name}").path / "mixture.parquet")
    assert int(table["tokens"].sum()) == recipe.mixture.budget_tokens
    mixed = dict(table.group_by("component").agg(pl.col("tokens").sum() / recipe.mixture.budget_tokens).iter_rows())
    assert mixed == pytest.approx(overall_shares(recipe), abs=1e-3)

    trained = lake.artifacts.current(f"midtrained_checkpoint/{recipe.name}")
    assert trained.about["validation"]["general"]["after"]["loss"] > 0
    assert len(trained.about.get("runs", [])) == len(recipe.training.soup_seeds)
    assert (lake.artifacts.current(f"evaluation_report/{recipe.name}").path / "domains.parquet").exists()


def overall_shares(recipe: Recipe) -> dict[str, float]:
    """Share of each component in the whole run; a linear transition averages the shares before and after."""
    plain = {component.name: component.share or 0.0 for component in recipe.mixture.components}
    found, before = dict.fromkeys(plain, 0.0), plain
    for stage in recipe.mixture.stages:
        shares = {name: stage.shares.get(name, 0.0) for name in plain} if stage.shares else plain
        middle = {n: (before[n] + shares[n]) / 2 if stage.transition == "linear" else shares[n] for n in plain}
        found = {n: found[n] + stage.fraction * middle[n] for n in plain}
        before = shares
    return found if recipe.mixture.stages else plain
