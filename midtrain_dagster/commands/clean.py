"""`midtrain clean`: repair text, measure quality signals, find sensitive data, on plain files."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command()
    def clean(
        paths: Annotated[list[Path], typer.Option("--in", help="JSONL or Parquet files, or directories of them; repeatable.")],
        out: Annotated[
            Path, typer.Option("--out", help="Directory for documents, signals, spans and rejected_records (Parquet).")
        ],
        settings: Annotated[Path | None, typer.Option("--settings", help="YAML file with cleaning settings.")] = None,
        action: Annotated[
            str | None, typer.Option("--action", help="What to do with sensitive data: keep, mask or drop.")
        ] = None,
    ) -> None:
        """Repair text, identify languages, measure quality signals and find sensitive data."""
        from midtrain_dagster.clean.command import run
        from midtrain_dagster.commands import console
        from midtrain_dagster.project.cleaning import Cleaning

        chosen = Cleaning.read(settings) if settings else Cleaning()
        if action:
            chosen = Cleaning.check({**chosen.model_dump(), "action": action}, where="--action")
        console.result(run(paths, out, chosen, console.progress("clean", "documents")))
