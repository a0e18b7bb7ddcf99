"""What a selection reads, as views of one DuckDB connection: Parquet files that are named, or the tables of the project here."""

from pathlib import Path
from typing import TYPE_CHECKING

from midtrain_dagster.errors import MidtrainError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from midtrain_dagster.recipes.recipe import Recipe
    from midtrain_dagster.recipes.selection import Selection
    from resources.lake import Lake

Paths = list[Path]


def of_project(con: "duckdb.DuckDBPyConnection", name: str | None) -> "tuple[Recipe, Selection, pl.DataFrame | None]":
    """Views over the project's newest tables, as its own selection reads them; a recipe, its selection with what is held out, and
    `tokens_per_character` of its sources."""
    from assets.reading import allow_list, cuts_of, relations
    from assets.select import selection_of
    from midtrain_dagster.commands import here
    from midtrain_dagster.decontaminate.allow_list import read_allow_list

    lake, project = here.lake()
    recipe = here.recipe(name, project, lake.root)
    if not lake.tables.exists("clean_documents"):
        raise MidtrainError(
            f"{lake.root}: this project has no documents yet; `midtrain run` makes them, or name some with --documents"
        )
    allowed = read_allow_list(allow_list(lake, recipe.decontamination))
    sources, method = list(project.document_sources), recipe.decontamination.method
    relations(con, lake.tables, sources, method, allowed, cuts_of(lake, recipe.name), bool(project.coordinated))
    return recipe, selection_of(recipe), tokens_per_character(con, lake, recipe.name)


def tokens_per_character(con: "duckdb.DuckDBPyConnection", lake: "Lake", recipe: str) -> "pl.DataFrame | None":
    """`source`, `rate`, as the recipe's newest mixture counted its documents; a source that it has none of gets the rate over all.
    None before the first mixture: documents are tokenized when they are mixed."""
    from midtrain_dagster.select.conditions import literal

    if lake.artifacts.newest(f"mixture/{recipe}") is None:
        return None
    file = lake.artifacts.current(f"mixture/{recipe}").path / "documents.parquet"
    counted = f"(select id, tokens from read_parquet({literal(str(file))})) m"
    return con.sql(
        f"with met as (select d.source, tokens, characters from {counted} join documents d using (id)), "
        "rates as (select source, sum(tokens) / sum(characters) as rate from met group by source) "
        "select s.source, coalesce(rate, (select sum(tokens) / sum(characters) from met)) as rate "
        "from (select distinct source from documents) s left join rates using (source)"
    ).pl()


def estimated(counted: "pl.DataFrame", rates: "pl.DataFrame") -> "pl.DataFrame":
    """A funnel with tokens by the rate of each source where none were counted."""
    import polars as pl

    by_rate = (pl.col("characters") * pl.col("rate")).round().cast(pl.Int64)
    joined = counted.join(rates, on="source", how="left", maintain_order="left")
    return joined.with_columns(tokens=pl.col("tokens").fill_null(by_rate)).drop("rate")


def of_files(con: "duckdb.DuckDBPyConnection", named: dict[str, Paths | None]) -> None:
    """Views over Parquet files, by the name of the relation; `coordinated` ratings become columns of `ratings`."""
    for name, paths in named.items():
        if paths and name != "coordinated":
            _view(con, name, paths)
    if coordinated := named.get("coordinated"):
        _beside_ratings(con, coordinated, bool(named.get("ratings")))


def _view(con: "duckdb.DuckDBPyConnection", name: str, paths: Paths) -> None:
    """A view over Parquet files, its columns called as conditions call them; characters where there is only text."""
    import duckdb

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

    if not rated:
        raise MidtrainError("--coordinated: name the ratings that these belong to with --ratings")
    _view(con, "coordinated", paths)
    columns = [row[0] for row in con.execute("DESCRIBE coordinated").fetchall()]
    own = ", ".join(f'c."{name}"' for name in columns if name not in ("id", "text_hash", "source"))
    con.execute("ALTER VIEW ratings RENAME TO rated")
    con.execute(f"CREATE VIEW ratings AS SELECT r.*, {own} FROM rated r LEFT JOIN coordinated c USING (id, text_hash)")
