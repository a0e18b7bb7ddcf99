"""`midtrain deduplicate`: exact and near duplicates on plain files."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command()
    def deduplicate(
        paths: Annotated[list[Path], typer.Option("--in", help="JSONL or Parquet files, or directories of them; repeatable.")],
        out: Annotated[Path, typer.Option("--out", help="Directory for signatures, clusters and rejected_records (Parquet).")],
        known: Annotated[
            list[Path] | None, typer.Option("--known", help="signatures.parquet of an earlier run; repeatable.")
        ] = None,
        lines: Annotated[
            bool,
            typer.Option("--lines", help="Also repeated_text.parquet: how much of each document many of its source have."),
        ] = False,
        settings: Annotated[Path | None, typer.Option("--settings", help="YAML file with deduplication settings.")] = None,
        jaccard: Annotated[
            float | None, typer.Option("--jaccard", help="Similarity from which documents are near duplicates.")
        ] = None,
        survivor: Annotated[str | None, typer.Option("--survivor", help="Which member stays: longest or first.")] = None,
    ) -> None:
        """Find exact and near duplicates, also of documents seen before, and say which one stays."""
        from midtrain_dagster.commands import console
        from midtrain_dagster.deduplicate.command import run
        from midtrain_dagster.project.deduplication import Deduplication

        chosen = Deduplication.read(settings) if settings else Deduplication()
        given = {name: value for name, value in (("jaccard", jaccard), ("survivor", survivor)) if value is not None}
        chosen = Deduplication.check({**chosen.model_dump(), **given}, where="options")
        console.result(run(paths, known or [], out, chosen, console.progress("deduplicate", "documents"), lines))
