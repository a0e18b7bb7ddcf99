"""Which component a document belongs to: the first whose SQL condition it meets."""

import duckdb
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.mixture import Component, Mixture
from midtrain_dagster.tables import database

NAMING_COLUMNS = ("source", "domain", "format")


def assign(documents: pl.DataFrame, settings: Mixture) -> pl.DataFrame:
    """`documents` with a column `component`, in the same order; null where no component takes a document.

    `documents` has whatever columns the conditions mention (documents joined with attributes). Raises MidtrainError for a
    condition that DuckDB refuses, with its words.
    """
    if not settings.components:
        if settings.component_column not in documents.columns:
            raise MidtrainError(
                f"mixture: there is no column {settings.component_column!r} to name components by; "
                f"documents have {', '.join(documents.columns)}"
            )
        return documents.with_columns(component=pl.col(settings.component_column).cast(pl.String))
    cases = " ".join(f"when ({_condition(c, documents.columns)}) then {_literal(c.name)}" for c in settings.components)
    frame = documents.with_row_index("_row").drop("component", strict=False)
    connection = database()
    try:
        connection.register("frame", frame.to_arrow())
        found = connection.sql(f"select _row, case {cases} end as component from frame order by _row").pl()
    except duckdb.Error as error:
        raise MidtrainError(f"mixture: a component's condition cannot be evaluated: {str(error).strip()}") from None
    finally:
        connection.close()
    return frame.drop("_row").with_columns(component=found["component"].cast(pl.String))


def _condition(component: Component, columns: list[str]) -> str:
    if component.where is not None:
        return component.where
    present = [c for c in NAMING_COLUMNS if c in columns]
    if not present:
        raise MidtrainError(
            f"mixture: component {component.name} has no condition, and documents have none of {', '.join(NAMING_COLUMNS)}"
        )
    return " or ".join(f'"{c}" = {_literal(component.name)}' for c in present)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def available(documents: pl.DataFrame, by_language: bool = False) -> pl.DataFrame:
    """What there is of each component: `component, documents, tokens` (and `language` where asked), sorted.

    `documents` has `component, tokens` and, optionally, `repetitions` (how often selection wants a document in one pass;
    1 where absent), which multiplies its tokens. Documents without a component are not counted.
    """
    if "repetitions" not in documents.columns:
        documents = documents.with_columns(repetitions=pl.lit(1.0))
    keys = ["component", *(["language"] if by_language else [])]
    return (
        documents.filter(pl.col("component").is_not_null() & (pl.col("repetitions") > 0))
        .group_by(keys)
        .agg(
            documents=pl.len().cast(pl.Int64),
            tokens=(pl.col("tokens") * pl.col("repetitions")).sum().round().cast(pl.Int64),
        )
        .sort(keys)
    )
