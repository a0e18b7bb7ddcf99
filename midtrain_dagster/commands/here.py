"""The project here: its file, its lake, a recipe of it. Here is the working directory or one above, or what MIDTRAIN_PROJECT names."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from midtrain_dagster.project.project import Project
    from midtrain_dagster.recipes.recipe import Recipe
    from resources.lake import Lake


def project() -> "tuple[Project, Path]":
    """The project, and the directory of its file."""
    from midtrain_dagster.project import project as projects

    file = projects.path()
    return projects.load(file), file.parent


def lake() -> "tuple[Lake, Project]":
    """The project and its lake."""
    from resources.lake import Lake

    found, root = project()
    return Lake(root, found.storage, found.storage_options, found.operations), found


def recipe(name: str | None, among: "Project", root: Path) -> "Recipe":
    """One of the project's recipes by its file's name, or any that `recipes.load` knows; without a name the project's first."""
    from midtrain_dagster.recipes import named

    own = {Path(entry).stem: entry for entry in among.recipes if entry.endswith((".yaml", ".yml"))}
    return named.load(own.get(name, name) if name else next(iter(among.recipes), "demo"), root)
