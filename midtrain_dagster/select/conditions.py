"""Conditions that a recipe gives: parsed, held to one row, and resolved to the tables that have their columns.

A condition is text from a file that someone else may have written, and it ends up inside a query. So it is parsed by DuckDB
itself and only what computes on the row is let through: no subquery, no table function, no aggregate, no function that reads
a file, a setting, the clock or a random number.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.tables import session

TABLES = {"document": "documents", "signal": "signals", "rate": "ratings", "cluster": "clusters", "match": "matches"}
"""The word that a condition uses, and the relation that it stands for."""

COMPUTING_NODES = {
    "CONSTANT",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "OPERATOR",
    "FUNCTION",
    "BETWEEN",
    "CASE",
    "CAST",
    "TYPE",
}
COMPUTING_MACROS = {
    "nullif",
    "ifnull",
    "split_part",
    "md5_number_lower",
    "md5_number_upper",
}  # DuckDB writes these as macros over plain scalar functions

Schemas = Mapping[str, Mapping[str, str]]  # table word → column → DuckDB type; a word that is absent was not measured


class Column(NamedTuple):
    table: str  # a key of TABLES
    name: str


class Expression(NamedTuple):
    """A condition with every column written as `table."column"`, and the columns that it reads."""

    sql: str
    columns: frozenset[Column]


def resolve(condition: str, schemas: Schemas, where: str) -> Expression:
    """Check one condition and qualify its columns. `where` names it in errors: `rule long_enough`.

    Raises MidtrainError when it is not a single expression over the row, or names a column that nobody measured.
    """
    text = condition.strip().encode()
    edits: list[tuple[int, int, str]] = []
    columns: set[Column] = set()
    for node in _nodes(_expression(condition.strip(), where)):
        _admit(node, condition, where)
        if node["class"] == "COLUMN_REF":
            column, rest = _column(node["column_names"], schemas, condition, where)
            columns.add(column)
            start = node["query_location"] - len("SELECT ")
            written = ".".join([column.table, *map(quoted, (column.name, *rest))])
            if column.table == "match":  # no match is a score of zero: every document was scanned
                written = f"coalesce({written}, 0)"
            edits.append((start, start + node["query_location_length"], written))
    for start, end, written in sorted(edits, reverse=True):
        text = text[:start] + written.encode() + text[end:]
    comment = "\n" if b"--" in text else ""  # whatever follows must not become part of it
    return Expression(text.decode() + comment, frozenset(columns))


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """An SQL string."""
    return "'" + value.replace("'", "''") + "'"


def _expression(condition: str, where: str) -> dict[str, Any]:
    with session() as con:
        answer = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT {condition}"]).fetchall()[0][0]
    parsed = json.loads(answer)
    if parsed["error"]:
        raise MidtrainError(f"{where}: {condition!r} is not an SQL condition: {parsed['error_message']}")
    single = len(parsed["statements"]) == 1
    node = parsed["statements"][0]["node"]
    bare = (
        single
        and node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and not any(node[part] for part in ("where_clause", "group_expressions", "having", "sample", "qualify"))
        and not node["select_list"][0]["alias"]
    )
    if not bare:
        raise MidtrainError(f"{where}: {condition!r} must be one expression; it holds a whole query or several expressions")
    expression: dict[str, Any] = node["select_list"][0]
    return expression


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for branch in tree.values():
            yield from _nodes(branch)
    elif isinstance(tree, list):
        for branch in tree:
            yield from _nodes(branch)


def _admit(node: Mapping[str, Any], condition: str, where: str) -> None:
    if node["class"] not in COMPUTING_NODES:
        raise MidtrainError(f"{where}: {condition!r} holds a {node['class'].lower()}; it may only compute on its own row")
    if node["class"] != "FUNCTION":
        return
    name = node["function_name"]
    plain = not (node["schema"] or node["catalog"] or node["distinct"] or node["filter"] or node["order_bys"]["orders"])
    if not plain or not _computes(name):
        raise MidtrainError(f"{where}: {condition!r} calls {name}, which is unknown or does more than compute on its own row")


@cache
def _computes(function: str) -> bool:
    """Whether all functions of that name give the same answer for the same arguments, and read nothing else."""
    if function in COMPUTING_MACROS:
        return True
    with session() as con:
        kinds = con.execute(
            "SELECT DISTINCT function_type, stability, has_side_effects FROM duckdb_functions() WHERE function_name = ?",
            [function],
        ).fetchall()
    return bool(kinds) and all(kind == ("scalar", "CONSISTENT", False) for kind in kinds)


def _column(names: list[str], schemas: Schemas, condition: str, where: str) -> tuple[Column, list[str]]:
    """The column that a dotted name means, and the struct fields after it."""
    if len(names) > 1 and names[0] in TABLES:
        table, name, rest = names[0], names[1], names[2:]
        if table not in schemas:
            raise MidtrainError(f"{where}: {condition!r} needs {TABLES[table]}, which were not given")
        if name not in schemas[table]:
            aside = {"text_hash", *(f"{rater}_version" for rater in schemas[table])}
            known = ", ".join(sorted(set(schemas[table]) - aside)) or "none"
            raise MidtrainError(f"{where}: {TABLES[table]} have no column {name}; there are: {known}")
        return Column(table, name), rest
    holders = [table for table in TABLES if names[0] in schemas.get(table, {})]
    if not holders:
        given = ", ".join(TABLES[table] for table in TABLES if table in schemas)
        raise MidtrainError(f"{where}: nothing called {names[0]} was measured; looked in {given}")
    if "document" in holders:
        holders = ["document"]
    if len(holders) > 1:
        choices = " or ".join(f"{table}.{names[0]}" for table in holders)
        raise MidtrainError(f"{where}: {names[0]} could mean {choices}; write which")
    return Column(holders[0], names[0]), names[1:]
