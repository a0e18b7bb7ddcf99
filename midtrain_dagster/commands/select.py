"""`midtrain select`: what a recipe keeps, or what it would keep if a threshold were another."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import duckdb
    import polars as pl

from midtrain_dagster.recipes.selection import Rule, Selection

Paths = list[Path]


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command("select")
    def select_command(
        documents: Annotated[Paths, typer.Option(help="Parquet of documents; text is not read where characters is there.")],
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
        seed: Annotated[int, typer.Option(help="For sampling.")] = 0,
        dry_run: Annotated[bool, typer.Option(help="Print the funnel, write nothing.")] = False,
    ) -> None:
        """Decide which documents are kept, and say why the others are not."""

        from midtrain_dagster.commands import console
        from midtrain_dagster.errors import MidtrainError
        from midtrain_dagster.files import ParquetSink
        from midtrain_dagster.select.funnel import funnel, summed
        from midtrain_dagster.select.query import build
        from midtrain_dagster.select.select import check_complete, select
        from midtrain_dagster.select.what_if import changed
        from midtrain_dagster.tables import database

        started = time.monotonic()
        if out is None and not dry_run:
            raise MidtrainError("say where the selection goes with --out, or ask for --dry-run")
        chosen = changed(_selection(selection, recipe), change or [])
        rules = _rulesets(rulesets)
        with database() as con:
            relations = {"signals": signals, "ratings": ratings, "clusters": clusters, "matches": matches}
            for name, paths in {"documents": documents, **relations}.items():
                if paths:
                    _view(con, name, paths)
            if coordinated:
                _beside_ratings(con, coordinated, bool(ratings))
            if dry_run or out is None:
                counted = summed(con, build(con, chosen, seed, rules))
                check_complete(con, int(counted["documents"].sum()))
            else:
                selected = select(con, chosen, seed, rules)
                with ParquetSink(out / "selected.parquet") as sink:
                    sink.write(selected.documents)
                (out / "selection.sql").write_text(selected.query + "\n", encoding="utf-8")
                counted = funnel(selected.documents)
        console.result({**_totals(counted), "seed": seed, "seconds": round(time.monotonic() - started, 3)})


def _selection(file: Path | None, recipe: str | None) -> "Selection":
    from midtrain_dagster.errors import MidtrainError
    from midtrain_dagster.recipes.selection import Selection

    if file is not None and recipe is None:
        return Selection.read(file)
    if recipe is None or file is not None:
        raise MidtrainError("name either a recipe (--recipe) or a selection's file (--selection)")
    from midtrain_dagster.recipes.named import load

    found: Selection = load(recipe).selection
    return found


def _rulesets(file: Path | None) -> "dict[str, list[Rule]]":
    import yaml

    from midtrain_dagster.errors import MidtrainError
    from midtrain_dagster.recipes.selection import Rule

    if file is None:
        return _published()
    try:
        named = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MidtrainError(f"{file}: cannot be read: {error}") from None
    if not isinstance(named, dict) or not all(isinstance(rules, list) for rules in named.values()):
        raise MidtrainError(f"{file}: expected a mapping of ruleset names to lists of rules")
    return {name: [Rule.check(rule, where=f"{file}: {name}") for rule in rules] for name, rules in named.items()}


def _published() -> "dict[str, list[Rule]]":
    """The published heuristics, for prose or for code; a ratio without a denominator does not keep."""
    from midtrain_dagster.clean.rules import RULESETS
    from midtrain_dagster.recipes.selection import Rule

    def rule(ruleset: str, name: str, keep: str) -> Rule:
        scope = "document.format = 'code'" if ruleset == "stack" else "document.format = 'text'"
        return Rule(name=name, keep=f"({keep}) IS TRUE", where=scope)

    return {ruleset: [rule(ruleset, one["name"], one["keep"]) for one in rules] for ruleset, rules in RULESETS.items()}


def _view(con: "duckdb.DuckDBPyConnection", name: str, paths: Paths) -> None:
    """A view over Parquet files, its columns called as conditions call them; characters where there is only text."""
    import duckdb

    from midtrain_dagster.errors import MidtrainError
    from midtrain_dagster.files import find
    from midtrain_dagster.select.conditions import literal

    files = [path for path in find(paths) if path.suffix == ".parquet" and path.name != "rejected_records.parquet"]
    if not files:
        raise MidtrainError(f"--{name}: no Parquet files in {', '.join(map(str, paths))}")
    scan = f"read_parquet([{', '.join(literal(str(path)) for path in files)}], union_by_name = true)"
    try:
        columns = [row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()]
    except duckdb.Error as error:
        raise MidtrainError(f"--{name}: {' '.join(str(error).split())[:300]}") from None
    taken = "*"
    if name == "documents" and "text" in columns:
        taken = "* EXCLUDE (text)" + ("" if "characters" in columns else ", length(text) AS characters")
    if name == "clusters":
        short = [kind for kind in ("exact", "near") if f"{kind}_cluster" in columns and kind not in columns]
        taken += f" RENAME ({', '.join(f'{kind}_cluster AS {kind}' for kind in short)})" if short else ""
    if name == "matches" and "id" not in columns and "document_id" in columns:
        taken = "* RENAME (document_id AS id)"
    con.execute(f"CREATE VIEW {name} AS SELECT {taken} FROM {scan}")


def _beside_ratings(con: "duckdb.DuckDBPyConnection", paths: Paths, rated: bool) -> None:
    """Coordinated ratings become columns of the ratings."""
    from midtrain_dagster.errors import MidtrainError

    if not rated:
        raise MidtrainError("--coordinated: name the ratings that these belong to with --ratings")
    _view(con, "coordinated", paths)
    columns = [row[0] for row in con.execute("DESCRIBE coordinated").fetchall()]
    own = ", ".join(f'c."{name}"' for name in columns if name not in ("id", "text_hash", "source"))
    con.execute("ALTER VIEW ratings RENAME TO rated")
    con.execute(f"CREATE VIEW ratings AS SELECT r.*, {own} FROM rated r LEFT JOIN coordinated c USING (id, text_hash)")


def _totals(counted: "pl.DataFrame") -> dict[str, Any]:
    import polars as pl

    kept = counted.filter(pl.col("kept"))
    return {
        "documents": int(counted["documents"].sum()),
        "kept": int(kept["documents"].sum()),
        "left_out": int(counted.filter(~pl.col("kept"))["documents"].sum()),
        "characters": int(kept["characters"].sum()),
        "tokens": int(kept["tokens"].sum()) if kept["tokens"].null_count() < len(kept) else None,
        "repeated_tokens": int(kept["repeated_tokens"].sum()) if kept["tokens"].null_count() < len(kept) else None,
        "funnel": counted.to_dicts(),
    }
