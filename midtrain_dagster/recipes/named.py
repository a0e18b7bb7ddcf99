"""The recipes that come with the project, found by name."""

from pathlib import Path

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.scaled import SIZES, scaled


def folder() -> Path:
    """Where the named recipes are."""
    return Path(__file__).parent


def names() -> list[str]:
    """The recipes that come with the project, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def load(name: str, root: Path | None = None) -> Recipe:
    """A recipe by name, or by the path of a YAML file (relative to `root`); `NAME:scaled` is its shape in minutes.

    Raises MidtrainError with the known names when there is none, and with the place of the mistake in a bad file.
    """
    name, _, size = name.partition(":")
    path = (root or Path()) / name if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if not path.exists():
        raise MidtrainError(f"there is no recipe {name}; known are {', '.join(names())}, or give the path of a .yaml file")
    recipe = Recipe.read(path)
    return resized(recipe, size) if size else recipe


def resized(recipe: Recipe, size: str) -> Recipe:
    """The recipe's shape at a named size, called `<name>-<size>`."""
    if size not in SIZES:
        raise MidtrainError(f"recipe {recipe.name}: there is no size {size}; known are {', '.join(SIZES)}")
    return scaled(recipe, SIZES[size], f"{recipe.name}-{size}")
