"""`midtrain storage copy | repair`: moving the lake, and mending it."""

import typer

from midtrain_dagster.commands import console, here

OPTION = typer.Option([], "--option", help="NAME=VALUE of the object store's client; may be repeated.")


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Move the lake to another place, or mend damaged tables.", no_args_is_help=True)
    group.command("copy")(copy)
    group.command("repair")(repair)
    app.add_typer(group, name="storage")


def copy(
    to: str = typer.Argument(help="Where to: s3://bucket/path, gs://…, az://…, file:///path. Keys come from the environment."),
    option: list[str] = OPTION,
) -> None:
    """Copy all tables, with all versions, and all artifacts; what is there already is not copied again.

    Nothing may run meanwhile. Then set `storage:` (and `storage_options:`) in the project file to the same place.
    """
    from midtrain_dagster.errors import MidtrainError
    from midtrain_dagster.store import Store, copied

    lake, _ = here.lake()
    if lake.remote:
        raise MidtrainError(f"storage is {lake.storage} already; copy from there with that store's own tools")
    options = dict(part.partition("=")[::2] for part in option)
    progress = console.progress("copy", "files")
    files, size = copied(lake.local, Store(to, options), ("tables", "artifacts"), progress)
    console.say(f"Copied {files:,} files, {size / 1e6:,.1f} MB. Now set `storage: {to}` in the project file.")
    console.result({"to": to, "files": files, "bytes": size})


def repair(
    look: bool = typer.Option(False, "--look", help="Say what is damaged and change nothing."),
) -> None:
    """Read every table, and give up the rows that are damaged: the next run makes them again."""
    from midtrain_dagster.repair import damages, give_up

    tables = here.lake()[0].tables
    found = damages(tables)
    for damage in found:
        console.say(f"{damage.asset} in table {damage.table}: {damage.why}")
        if not look:
            give_up(tables, damage)
    console.say(f"{len(found)} damaged" + ("; run again to make them anew" if found and not look else ""))
    console.result({"damaged": [damage._asdict() for damage in found], "given up": 0 if look else len(found)})
