"""What a document came from, what was made of it, and which batches, steps and checkpoints saw it."""

import json
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.artifacts import Artifact, Artifacts
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import SPAN_COLUMNS
from midtrain_dagster.tables import Tables

ATTRIBUTES = ("quality_signals", "sensitive_spans", "duplicate_clusters", "document_ratings", "contamination_matches")


def document(tables: Tables, artifacts: Artifacts, identifier: str, recipes: list[str]) -> dict[str, Any]:
    """Everything that is known of a document.

    Raises MidtrainError where no document has this id.
    """
    raw = tables.scan("raw_documents").filter(pl.col("id") == identifier).collect()
    if not len(raw):
        raise MidtrainError(f"no document has the id {identifier}")
    row = raw.row(0, named=True)
    children = (
        tables.scan("raw_documents").filter(pl.col("parent_ids").list.contains(identifier)).select("id", "source").collect()
    )
    return {
        "document": {**row, "text": row["text"][:500], "generator": json.loads(row["generator"]) if row["generator"] else None},
        "prompts": prompts(tables, row["source"], identifier),
        "parents": [ancestors(tables, parent) for parent in row["parent_ids"] or []],
        "children": children.to_dicts(),
        "attributes": {name: attribute(tables, name, identifier) for name in ATTRIBUTES if tables.exists(name)},
        "decisions": {recipe: decision(tables, recipe, identifier) for recipe in recipes},
        "seen_by": [use for recipe in recipes for use in uses(artifacts, recipe, identifier)],
    }


def prompts(tables: Tables, source: str, identifier: str) -> list[dict[str, Any]]:
    """What the teacher was asked in the conversation that a synthetic document came out of, and what it replied.

    `made_from`: whether the document is made from this very reply; the others led up to it. Empty for a collected document
    and for one that was made by rule.
    """
    if not tables.exists("synthesis_requests") or not tables.exists("synthesis_outcomes"):
        return []
    told = tables.scan("synthesis_outcomes", source).filter(
        (pl.col("document_id") == identifier) & pl.col("request").is_not_null()
    )
    origin = told.select("parent_id", "request").unique().collect()
    if not len(origin):
        return []
    asked = tables.scan("synthesis_requests", source).filter(pl.col("parent_id") == origin["parent_id"][0]).collect()
    return [
        {
            "request": row["request"],
            "made_from": row["request"] in origin["request"],
            "messages": json.loads(row["messages"]),
            "parameters": json.loads(row["parameters"]),
            "reply": row["reply"],
            "error": row["error"],
            "key": row["key"],
        }
        for row in asked.sort("request").iter_rows(named=True)
    ]


def ancestors(tables: Tables, identifier: str) -> dict[str, Any]:
    """A parent and its parents in turn."""
    rows = (
        tables.scan("raw_documents")
        .filter(pl.col("id") == identifier)
        .select("source", "url", "license", "parent_ids")
        .collect()
    )
    if not len(rows):
        return {"id": identifier, "missing": "withdrawn"}
    row = rows.row(0, named=True)
    return {"id": identifier, **row, "parent_ids": [ancestors(tables, parent) for parent in row["parent_ids"] or []]}


def attribute(tables: Tables, name: str, identifier: str) -> list[dict[str, Any]]:
    """Rows of one attribute table about a document."""
    return tables.scan(name).filter(pl.col("id") == identifier).drop("id").collect().to_dicts()


def decision(tables: Tables, recipe: str, identifier: str) -> dict[str, Any] | None:
    """What a recipe's selection decided."""
    name = f"selected_documents/{recipe}"
    if not tables.exists(name):
        return None
    rows = tables.scan(name).filter(pl.col("id") == identifier).select("kept", "reason", "repetitions").collect()
    return rows.row(0, named=True) if len(rows) else None


def uses(artifacts: Artifacts, recipe: str, identifier: str) -> list[dict[str, Any]]:
    """Every checkpoint whose training read the document: in which sequences, at which steps, how many tokens."""
    found = []
    for checkpoint in artifacts.all(f"midtrained_checkpoint/{recipe}"):
        packed = artifacts.get(f"packed_sequences/{recipe}", str(checkpoint.inputs[f"packed_sequences/{recipe}"]))
        if packed is None:
            continue
        rows = spans(packed).filter(pl.col("id") == identifier)
        if len(rows):
            steps = steps_of(offsets(checkpoint, packed), rows["sequence"].to_numpy())
            found.append(
                {
                    "checkpoint": f"midtrained_checkpoint/{recipe}@{checkpoint.fingerprint}",
                    "sequences": sorted(set(rows["sequence"].to_list())),
                    "steps": sorted(set(steps.tolist())),
                    "times": len(rows.filter(pl.col("document_offset") == 0)),
                    "tokens": int(rows["length"].sum()),
                }
            )
    return found


def spans(packed: Artifact) -> pl.DataFrame:
    """Spans of packed sequences with the document behind each."""
    table = pl.DataFrame(np.load(packed.path / "train" / "spans.npy"), schema=list(SPAN_COLUMNS))
    documents = pl.read_parquet(packed.path / "train" / "documents.parquet").rename({"component": "component_name"})
    return table.join(documents.with_row_index("document").cast({"document": pl.Int64}), on="document", how="left")


def offsets(checkpoint: Artifact, packed: Artifact) -> np.ndarray:
    """First sequence of each step, and the end: (steps + 1,)."""
    steps = pl.read_ndjson(checkpoint.path / "steps.jsonl", infer_schema_length=None)
    length = json.loads((packed.path / "train" / "sequences.json").read_text())["length"]
    return np.concatenate([[0], steps["tokens"].to_numpy() // length])


def steps_of(borders: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """The step, from 1, in which each sequence was read first."""
    return np.searchsorted(borders, sequences, side="right")


def step(artifacts: Artifacts, recipe: str, number: int) -> pl.DataFrame:
    """The documents in the batch of one step: id, source, component, sequence, tokens.

    Raises MidtrainError where the run had no such step.
    """
    checkpoint = artifacts.current(f"midtrained_checkpoint/{recipe}")
    packed = artifacts.get(f"packed_sequences/{recipe}", str(checkpoint.inputs[f"packed_sequences/{recipe}"]))
    if packed is None:
        raise MidtrainError(f"the sequences that {recipe} was trained on are no longer kept")
    borders = offsets(checkpoint, packed)
    if not 1 <= number < len(borders):
        raise MidtrainError(f"the run of {recipe} had steps 1 to {len(borders) - 1}; there is no step {number}")
    batch = spans(packed).filter(pl.col("sequence").is_between(int(borders[number - 1]), int(borders[number]) - 1))
    return batch.select("id", "source", "component_name", "sequence", "start", tokens="length").sort("sequence", "start")
