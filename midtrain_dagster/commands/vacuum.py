"""`midtrain vacuum`: remove what no checkpoint and no refresh needs any more."""

from typing import Annotated

import typer

from midtrain_dagster.commands import console, here


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

    lake, project = here.lake()
    kept = project.operations.retention.days if days is None else days
    found = plan(lake.tables, lake.artifacts, lake.tables.names(), kept)
    answer = {"days": kept, **told(found), "removed": not dry_run}
    files = sum((*answer["files"].values(), *answer["strays"].values()))
    verb = "would remove" if dry_run else "removes"
    console.say(
        f"{verb} {len(found.artifacts) + len(found.left):,} artifacts and {files:,} files of tables: {found.bytes / 1e6:,.1f} MB"
    )
    if not dry_run:
        carry_out(lake.tables, lake.artifacts, found)
    console.result(answer)
