"""`midtrain deduplicate`: the stage on plain files."""

import typer


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""
