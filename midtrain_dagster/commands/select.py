"""`midtrain select`: what a recipe keeps, or what it would keep if a threshold were another."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midtrain_dagster.commands import console
from midtrain_dagster.errors import MidtrainError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from midtrain_dagster.select.query import Rulesets

from midtrain_dagster.recipes.selection import Rule, Selection

Paths = list[Path]


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command("select")
    def select_command(
        documents: Annotated[
            Paths | None, typer.Option(help="Parquet of documents; without it the tables of the project here are read.")
        ] = None,
        out: Annotated[Path | None, typer.Option(help="Where selected.parquet and selection.sql go.")] = None,
        selection: Annotated[Path | None, typer.Option(help="YAML of a selection.")] = None,
        recipe: Annotated[str | None, typer.Option(help="Name or file of a recipe, for its selection.")] = None,
        change: Annotated[list[str] | None, typer.Option("--set", help="rate.edu>=2.5, contamination.score=0.3, …")] = None,
        signals: Annotated[Paths | None, typer.Option(help="Parquet of quality signals.")] = None,
        ratings: Annotated[Paths | None, typer.Option(help="Parquet of ratings.")] = None,
        coordinated: Annotated[Paths | None, typer.Option(help="Parquet of coordinated ratings, beside --ratings.")] = None,
        clusters: Annotated[Paths | None, typer.Option(help="Parquet of duplicate clusters.")] = None,
        matches: Annotated[Paths | None, typer.Option(help="Parquet of contamination matches.")] = None,
        rulesets: Annotated[
            Path | None, typer.Option(help="YAML of quality rulesets, name → rules, in place of the published.")
        ] = None,
        seed: Annotated[int | None, typer.Option(help="For sampling; otherwise the recipe's.")] = None,
        dry_run: Annotated[bool, typer.Option(help="Print the funnel, write nothing.")] = False,
    ) -> None:
        """Decide which documents are kept, and say why the others are not."""
        from midtrain_dagster.commands.relations import estimated, of_files, of_project
        from midtrain_dagster.select.what_if import changed
        from midtrain_dagster.tables import database

        started = time.monotonic()
        if out is None and not dry_run:
            raise MidtrainError("say where the selection goes with --out, or ask for --dry-run")
        measured = {
            "signals": signals,
            "ratings": ratings,
            "clusters": clusters,
            "matches": matches,
            "coordinated": coordinated,
        }
        if documents is None and (selection or any(measured.values())):
            raise MidtrainError(
                "--documents: name the documents too; without it the project's own tables and a --recipe are read"
            )
        rates = None
        with database() as con:
            if documents is None:
                whose, chosen, rates = of_project(con, recipe)
                chance = whose.seed
            else:
                chosen, chance = _selection(selection, recipe)
                of_files(con, {"documents": documents, **measured})
            chance = chance if seed is None else seed
            counted = _decided(con, changed(chosen, change or []), chance, _rulesets(rulesets), None if dry_run else out)
        counted = counted if rates is None else estimated(counted, rates)
        shown = _totals(counted)
        if shown["tokens"] is not None:
            shown["tokens_are"] = "counted" if rates is None else "estimated by those of the newest mixture"
        _show(shown, counted)
        console.result({**shown, "seed": chance, "seconds": round(time.monotonic() - started, 3)})


def _decided(
    con: "duckdb.DuckDBPyConnection", chosen: "Selection", seed: int, rules: "Rulesets", out: Path | None
) -> "pl.DataFrame":
    """The funnel of a selection; its rows and its query go to `out`, or with None nowhere."""
    from midtrain_dagster.files import ParquetSink
    from midtrain_dagster.select.funnel import funnel, summed
    from midtrain_dagster.select.query import build
    from midtrain_dagster.select.select import check_complete, select

    if out is None:
        counted = summed(con, build(con, chosen, seed, rules))
        check_complete(con, int(counted["documents"].sum()))
        return counted
    selected = select(con, chosen, seed, rules)
    with ParquetSink(out / "selected.parquet") as sink:
        sink.write(selected.documents)
    (out / "selection.sql").write_text(selected.query + "\n", encoding="utf-8")
    return funnel(selected.documents)


def _selection(file: Path | None, recipe: str | None) -> "tuple[Selection, int]":
    """The selection that is named, and its seed."""
    from midtrain_dagster.recipes.named import load

    if file is not None and recipe is None:
        return Selection.read(file), 0
    if recipe is None or file is not None:
        raise MidtrainError("name either a recipe (--recipe) or a selection's file (--selection)")
    found = load(recipe)
    return found.selection, found.seed


def _rulesets(file: Path | None) -> dict[str, list[Rule]]:
    import yaml

    from midtrain_dagster.clean.rules import as_rules

    if file is None:
        return as_rules()
    try:
        named = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MidtrainError(f"{file}: cannot be read: {error}") from None
    if not isinstance(named, dict) or not all(isinstance(rules, list) for rules in named.values()):
        raise MidtrainError(f"{file}: expected a mapping of ruleset names to lists of rules")
    return {name: [Rule.check(rule, where=f"{file}: {name}") for rule in rules] for name, rules in named.items()}


def _totals(counted: "pl.DataFrame") -> dict[str, Any]:
    import polars as pl

    kept = counted.filter(pl.col("kept"))
    return {
        "documents": int(counted["documents"].sum()),
        "kept": int(kept["documents"].sum()),
        "left_out": int(counted.filter(~pl.col("kept"))["documents"].sum()),
        "characters": int(kept["characters"].sum()),
        "tokens": int(kept["tokens"].sum()) if kept["tokens"].null_count() < len(kept) else None,
        "repeated_tokens": int(kept["repeated_tokens"].sum()) if kept["repeated_tokens"].null_count() < len(kept) else None,
        "funnel": counted.to_dicts(),
    }


def _show(totals: dict[str, Any], counted: "pl.DataFrame") -> None:
    """The funnel for people: a line for what is kept of each source, and for each reason that left some out."""
    from rich.table import Table

    table = Table(
        *("source", "what became of it"),
        title=f"{totals['kept']:,} of {totals['documents']:,} documents kept, {totals['characters']:,} characters",
    )
    shown = [
        name for name in ("documents", "characters", "tokens", "repeated_tokens") if counted[name].null_count() < len(counted)
    ]
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right")
    for row in counted.iter_rows(named=True):
        figures = ("" if row[name] is None else f"{row[name]:,}" for name in shown)
        table.add_row(row["source"], "[bold]kept[/bold]" if row["kept"] else row["rule"], *figures)
    console.terminal().print(table)
