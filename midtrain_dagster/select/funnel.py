"""The funnel: how much each step of a selection leaves out, source by source. Kept + left out = all."""

import duckdb
import polars as pl

from midtrain_dagster.tables import session

FUNNEL_SCHEMA = pl.Schema(
    {
        "source": pl.String,
        "rule": pl.String,  # the reason; null in the row of what is kept
        "kept": pl.Boolean,
        "documents": pl.Int64,
        "characters": pl.Int64,  # null where no document of the row has a count
        "tokens": pl.Int64,
        "repeated_tokens": pl.Int64,  # tokens × repetitions: what training will see
    }
)


def funnel(selected: pl.DataFrame) -> pl.DataFrame:
    """Sum a selection up: one row per source and reason, and one per source of which something is kept; sorted."""
    with session() as con:
        con.register("selected", selected.to_arrow())
        return summed(con, "SELECT * FROM selected")


def summed(con: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    """The funnel of a selection query, without its rows ever leaving DuckDB: what a what-if needs."""
    sums = f"""
        SELECT source, reason AS rule, kept, count(*) AS documents, sum(characters) AS characters, sum(tokens) AS tokens,
            sum(tokens * repetitions) AS repeated_tokens
        FROM ({query}) GROUP BY ALL ORDER BY source, kept DESC, rule"""
    return pl.DataFrame(con.sql(sums).to_arrow_table()).cast(FUNNEL_SCHEMA)
