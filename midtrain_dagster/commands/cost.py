"""`midtrain cost`: what a recipe cost, by stage and for each point gained."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from midtrain_dagster.commands import console, here
from midtrain_dagster.errors import MidtrainError

if TYPE_CHECKING:
    import polars as pl


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cost")(cost)


def cost(
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Name of a recipe.")] = "demo",
    run: Annotated[str | None, typer.Option("--run", help="One run alone, with its retries.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="From this date on, as 2026-01-31.")] = None,
    assets: Annotated[bool, typer.Option("--assets", help="Every asset, not stages alone.")] = False,
) -> None:
    """What a recipe cost so far: time, CPU, accelerators, memory, bytes, teacher tokens, money; and what a point of gain cost."""
    from midtrain_dagster.audit import costs

    lake, _ = here.lake()
    name = recipe.removesuffix(".yaml").rpartition("/")[2]
    lines = costs.of_recipe(lake.ledger.lines(), name, run, since)
    if not len(lines):
        raise MidtrainError(f"the ledger has no line of recipe {name}{f' in run {run}' if run else ''}; run it first")
    spent = costs.total(lines)
    found = lake.artifacts.all(f"evaluation_report/{name}")
    gained = costs.per_point(costs.gains(lake.artifacts.current(f"evaluation_report/{name}").path), spent) if found else None
    shown(costs.by(lines, *(["stage", "asset"] if assets else ["stage"])).to_dicts(), spent, gained)
    console.result(
        {
            "recipe": name,
            "runs": lines["root_run"].n_unique(),
            "total": spent,
            "stages": costs.by(lines, "stage").to_dicts(),
            **({"assets": costs.by(lines, "stage", "asset").to_dicts()} if assets else {}),
            "per_point": gained.to_dicts() if gained is not None else None,
        }
    )


def shown(rows: list[dict[str, Any]], spent: dict[str, Any], gained: "pl.DataFrame | None") -> None:
    """Tables for people."""
    from rich.table import Table

    from midtrain_dagster.audit.costs import figures, seconds, size

    table = Table("", "times", "wall", "CPU", "GPU", "peak memory", "read", "written", "teacher tokens", "money")
    for row in (*rows, {"stage": "all", **spent}):
        named = str(row.get("asset") or row["stage"])
        tokens = int(row["teacher_prompt_tokens"]) + int(row["teacher_completion_tokens"])
        times = [seconds(row[f"{kind}_seconds"]) for kind in ("wall", "cpu", "gpu")]
        sizes = [size(row[name]) for name in ("peak_memory_bytes", "bytes_read", "bytes_written")]
        table.add_row(named, str(row["times"]), *times, *sizes, figures(tokens), figures(row["money"]))
    terminal = console.terminal()
    terminal.print(table)
    if gained is not None:
        points = Table("gained", "points", "verdict", "money a point", "CPU hours a point")
        for row in gained.iter_rows(named=True):
            cells = [figures(row["money_per_point"]), figures(row["cpu_hours_per_point"])]
            points.add_row(row["what"], f"{row['points']:+.2f}", row["verdict"] or "", *cells)
        terminal.print(points)
