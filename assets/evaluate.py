"""Evaluate."""

import dagster as dg

from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe

GROUP = "evaluate"


def assets(project: Project, recipes: list[Recipe], rows: list[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    return []


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    return []
