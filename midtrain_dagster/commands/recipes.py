"""`midtrain recipes list | show | check`."""

import typer

from midtrain_dagster.commands import console

RECIPE = "Name of a recipe, or the path of its YAML file; with `:scaled` behind it, the same shape in minutes."


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="The named recipes, and checking one's own.", no_args_is_help=True)
    group.command("list")(listed)
    group.command("show")(show)
    group.command("check")(check)
    app.add_typer(group, name="recipes")


def listed() -> None:
    """The recipes that come with the project."""
    from rich.table import Table

    from midtrain_dagster.recipes import named as recipes
    from midtrain_dagster.recipes.scaled import SIZES

    found = [recipes.load(name) for name in recipes.names()]
    table = Table("recipe", "objectives", "what it is")
    for recipe in found:
        table.add_row(recipe.name, ", ".join(recipe.goal.objectives), recipe.description)
    console.terminal().print(table)
    console.say(f"each also at another size, the same shape on few tokens: {', '.join(f'NAME:{size}' for size in SIZES)}")
    console.result({"recipes": [recipe.name for recipe in found], "sizes": list(SIZES)})


def show(name: str = typer.Argument(help=RECIPE)) -> None:
    """A recipe with every default filled in, as JSON."""
    from midtrain_dagster.recipes import named as recipes

    console.result(recipes.load(name).model_dump(mode="json"))


def check(name: str = typer.Argument(help=RECIPE)) -> None:
    """Whether a recipe can be read: every key known, every value in its bounds."""
    from midtrain_dagster.recipes import named as recipes

    found = recipes.load(name)
    console.say(f"{found.name}: a recipe without mistakes")
    console.result({"recipe": found.name, "valid": True})
