"""Which columns a column comes from, for the UI and OpenLineage: by table, over the assets that an asset depends on."""

from typing import Any

import dagster as dg

from midtrain_dagster.tables import Tables

# Table → column → the columns it is computed from; `*` for every column that is not named and that no input has.
# A column that an input table has under the same name is carried over.
COMPUTED: dict[str, dict[str, tuple[str, ...]]] = {
    "clean_documents": {"text": ("text",), "text_hash": ("text",), "language": ("text", "language"), "*": ("text",)},
    "document_ratings": {"*": ("text",)},
    "coordinated_ratings": {"*": ("*",)},
    "contamination_matches": {"*": ("text", "question_text", "question", "answer")},
    "duplicate_clusters": {"*": ("text",)},
    "repeated_text": {"*": ("text",)},
    "semantic_clusters": {"*": ("text",)},
    "contamination_report": {"*": ("id", "question_id", "score", "benchmark")},
    "selected_documents": {"*": ("*",)},
}


def lineage(context: dg.AssetExecutionContext, tables: Tables, table: str) -> dict[str, Any]:
    """`dagster/column_lineage` of a table asset: nothing where it reads no other table."""
    computed = COMPUTED.get(table.split("/")[0], {})
    inputs = {key: schema for key in _parents(context) if (schema := _schema(tables, key)) is not None}
    found: dict[str, list[dg.TableColumnDep]] = {}
    for column in tables.schema(table):
        named = computed.get(column)
        if named is None:
            named = (column,) if any(column in schema for schema in inputs.values()) else computed.get("*", ())
        found[column] = [
            dg.TableColumnDep(asset_key=key, column_name=name)
            for key, schema in sorted(inputs.items())
            for name in (schema if named == ("*",) else named)
            if name in schema
        ]
    told = {column: deps for column, deps in found.items() if deps}
    return {"dagster/column_lineage": dg.TableColumnLineage(told)} if told else {}


def _parents(context: dg.AssetExecutionContext) -> list[dg.AssetKey]:
    return sorted(context.assets_def.asset_deps.get(context.asset_key, set()))


def _schema(tables: Tables, key: dg.AssetKey) -> list[str] | None:
    """Columns of the table that an asset keeps its rows in; None for an artifact."""
    for name in (key.path[0], key.to_user_string()):
        if tables.exists(name):
            return list(tables.schema(name))
    return None
