"""Selection: which documents a recipe trains on. Every row comes back, with whether it is kept and, if not, why."""

from typing import NamedTuple

import duckdb
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.selection import Selection
from midtrain_dagster.select.query import Rulesets, build

SELECTED_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "text_hash": pl.String,
        "source": pl.String,
        "characters": pl.Int64,  # null: documents have no such column
        "tokens": pl.Int64,  # null: documents have no such column
        "kept": pl.Boolean,
        "reason": pl.String,  # null when kept; else the first step that the document failed
        "repetitions": pl.Int32,  # how often a kept document is shown; 0 when it is not
    }
)


class Selected(NamedTuple):
    """The fate of every document, and the query that decided it, for the lineage."""

    documents: pl.DataFrame  # SELECTED_SCHEMA, sorted by id
    query: str


def select(con: duckdb.DuckDBPyConnection, selection: Selection, seed: int, rulesets: Rulesets | None = None) -> Selected:
    """Decide for each row of the relation `documents` of `con` whether it is kept.

    `con` has `documents`: id, source, and whichever of text_hash, domain, language, characters, tokens, … there are. It has
    as many of `signals`, `clusters`, `ratings` (id, text_hash, …; one row a document) and `matches` (id, score; a row per
    question) as were measured; one that the selection does not speak of may be absent. `rulesets` are the quality rules
    that it names.
    Raises MidtrainError for a refused condition, something that was not measured, and a table with two rows for a document.
    """
    query = build(con, selection, seed, rulesets)
    rows = pl.DataFrame(con.sql(f"{query}\nORDER BY id, source").to_arrow_table()).cast(SELECTED_SCHEMA)
    check_complete(con, len(rows))
    return Selected(rows, query)


def check_complete(con: duckdb.DuckDBPyConnection, rows: int) -> None:
    """Raise MidtrainError unless a selection's rows are as many as there are documents."""
    documents = con.execute("SELECT count(*) FROM documents").fetchall()[0][0]
    if rows != documents:
        raise MidtrainError(
            f"{documents:,} documents became {rows:,} rows: signals, clusters or ratings hold several rows for one document;"
            " give each document one row per table"
        )
