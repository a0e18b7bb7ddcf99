"""Audit: the lineage of each recipe's checkpoint, down to the sources and their licences."""

import dagster as dg

from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe

GROUP = "audit"


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    return []
