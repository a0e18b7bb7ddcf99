"""Scale: proxy runs, the law fitted on them, and what it recommends."""

import dagster as dg

from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe

GROUP = "scale"


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Three assets for each recipe that has a `scaling:` section."""
    return []
