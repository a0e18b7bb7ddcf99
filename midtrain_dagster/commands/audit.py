"""`midtrain audit model | document | step`."""

from typing import Any

import typer

from midtrain_dagster.commands import console, here
from midtrain_dagster.errors import MidtrainError

SELECTION = "selected_documents/"


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Which documents made a checkpoint, and which checkpoints saw a document.", no_args_is_help=True)
    group.command("model")(model)
    group.command("document")(document)
    group.command("step")(step)
    app.add_typer(group, name="audit")


def model(
    recipe: str = typer.Argument(help="Recipe of the checkpoint; recipe@fingerprint for an older one."),
    verify: bool = typer.Option(False, "--verify", help="Recompute every digest from what is stored now."),
) -> None:
    """The tree of everything that a checkpoint was made from."""
    from midtrain_dagster.audit import lineage

    lake, _ = here.lake()
    name, _, version = recipe.partition("@")
    root = lineage.tree(lake.tables, lake.artifacts, f"midtrained_checkpoint/{name}", version or None)
    for line in lineage.lines(root):
        console.say(line)
    answer: dict[str, Any] = lineage.values(root)
    if verify:
        wrong = lineage.verify(root, lake.tables, lake.artifacts)
        answer["differences"] = wrong
        console.say("every digest is as recorded" if not wrong else f"{len(wrong)} digests differ")
    console.result(answer)
    if verify and wrong:
        raise MidtrainError("; ".join(wrong))


def document(identifier: str = typer.Argument(metavar="ID", help="Id of a document.")) -> None:
    """What a document came from, what was decided about it, and which steps and checkpoints saw it."""
    from midtrain_dagster.audit.document import document as look

    lake, project = here.lake()
    console.result(look(lake.tables, lake.artifacts, identifier, recipes_of(lake) or list(project.recipes)))


def step(
    recipe: str = typer.Argument(help="Recipe of the checkpoint."),
    number: int = typer.Argument(metavar="STEP", help="Training step, from 1."),
) -> None:
    """The documents in the batch of one training step."""
    from midtrain_dagster.audit.document import step as batch

    lake, _ = here.lake()
    found = batch(lake.artifacts, recipe, number)
    console.result({"recipe": recipe, "step": number, "documents": found["id"].n_unique(), "spans": found.to_dicts()})


def recipes_of(lake: Any) -> list[str]:
    """Recipes of which there is a selection, wherever the lake is."""
    return [name.removeprefix(SELECTION) for name in lake.tables.names(SELECTION)]
