"""`midtrain vacuum`: remove what no checkpoint and no refresh needs any more."""

from pathlib import Path
from typing import Annotated, Any

import typer

from midtrain_dagster.commands import console
from midtrain_dagster.commands.audit import opened, recipes_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("vacuum")(vacuum)


def vacuum(
    days: Annotated[
        float | None, typer.Option("--days", min=0, help="Keep what is younger; without it as the project says.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and remove nothing.")] = False,
) -> None:
    """Remove old table versions and artifacts. What a checkpoint was made from always stays. Not beside a run."""
    from midtrain_dagster.audit.vacuum import carry_out, plan, told

    lake, project = opened()
    kept = project.operations.retention.days if days is None else days
    found = plan(lake.tables, lake.artifacts, table_names(lake, list(project.recipes)), kept)
    answer = {"days": kept, **told(found), "removed": not dry_run}
    files = sum(answer["files"].values())
    verb = "would remove" if dry_run else "removes"
    console.say(f"{verb} {len(found.artifacts):,} artifacts and {files:,} files of tables: {found.bytes / 1e6:,.1f} MB")
    if not dry_run:
        carry_out(lake.tables, found)
    console.result(answer)


def table_names(lake: Any, recipes: list[str]) -> list[str]:
    """All tables of a lake: looked up on a local disk, by their known names elsewhere."""
    from midtrain_dagster.audit.takedown import TABLES

    root = Path(lake.tables.root)
    if not lake.remote:
        return sorted(path.parent.relative_to(root).as_posix() for path in root.glob("**/_delta_log"))
    fixed = ["takedowns", "withdrawn_documents", "benchmark_questions", "contamination_report", "rejected_records"]
    return [*TABLES, *fixed, *(f"selected_documents/{recipe}" for recipe in recipes_of(lake) or recipes)]
