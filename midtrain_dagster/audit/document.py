"""What a document came from, what was made of it, and which batches, steps and checkpoints saw it."""

import json
from typing import Any

import polars as pl

from midtrain_dagster.artifacts import Artifact, Artifacts
from midtrain_dagster.audit.spans import Packed, readings
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import SPAN_COLUMNS
from midtrain_dagster.tables import Tables

ATTRIBUTES = (
    "quality_signals", "sensitive_spans", "duplicate_clusters", "document_ratings", "coordinated_ratings", "contamination_matches",
)  # fmt: skip


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
    """What a recipe's selection decided, and what it cut out."""
    name, cuts = f"selected_documents/{recipe}", f"cut_spans/{recipe}"
    if not tables.exists(name):
        return None
    rows = tables.scan(name).filter(pl.col("id") == identifier).select("kept", "reason", "repetitions").collect()
    cut = attribute(tables, cuts, identifier) if tables.exists(cuts) else []
    return {**rows.row(0, named=True), **({"cut": cut} if cut else {})} if len(rows) else None


def uses(artifacts: Artifacts, recipe: str, identifier: str) -> list[dict[str, Any]]:
    """Every run that read the document: in which sequences, at which steps, how often, how many of its tokens."""
    found = []
    for checkpoint, sequences in trained(artifacts, recipe):
        packed = Packed(sequences.path / "train", artifacts.root.parent / "cache")
        numbers = packed.documents.numbers(pl.DataFrame({"id": [identifier]}))
        spans = packed.of_documents(numbers["document"].to_numpy())
        for run in readings(checkpoint, packed.folder) if len(spans) else ():
            times = run.times(spans[:, 0])
            if times.any():
                found.append(
                    {
                        "checkpoint": f"midtrained_checkpoint/{recipe}@{checkpoint.fingerprint}",
                        **({"run": run.run} if run.run else {}),
                        "sequences": sorted(set(spans[times > 0, 0].tolist())),
                        "steps": run.steps_of(spans[:, 0]),
                        "times": int(times[spans[:, 5] == 0].sum()),
                        "tokens": int((times * spans[:, 2]).sum()),
                    }
                )
    return found


def trained(artifacts: Artifacts, recipe: str) -> list[tuple[Artifact, Artifact]]:
    """Every checkpoint of a recipe that is kept, with the sequences that it read."""
    found = []
    for checkpoint in artifacts.all(f"midtrained_checkpoint/{recipe}"):
        sequences = artifacts.get(f"packed_sequences/{recipe}", str(checkpoint.inputs[f"packed_sequences/{recipe}"]))
        if sequences is not None:
            found.append((checkpoint, sequences))
    return found


def step(artifacts: Artifacts, recipe: str, number: int) -> pl.DataFrame:
    """The documents in the batch of one step: id, source, component, sequence, start, tokens; of a soup, all runs' with `run`.

    Raises MidtrainError where the run had no such step. `recipe@fingerprint` names an older checkpoint.
    """
    name, _, version = recipe.partition("@")
    found = (
        artifacts.get(f"midtrained_checkpoint/{name}", version)
        if version
        else artifacts.current(f"midtrained_checkpoint/{name}")
    )
    if found is None:
        raise MidtrainError(f"there is no checkpoint {recipe}")
    checkpoint = found
    sequences = artifacts.get(f"packed_sequences/{name}", str(checkpoint.inputs[f"packed_sequences/{name}"]))
    if sequences is None:
        raise MidtrainError(f"the sequences that {recipe} was trained on are no longer kept")
    packed = Packed(sequences.path / "train", artifacts.root.parent / "cache")
    parts = []
    for run in readings(checkpoint, packed.folder):
        if not 1 <= number <= run.steps:
            raise MidtrainError(f"the run of {recipe} had steps 1 to {run.steps}; there is no step {number}")
        spans = pl.DataFrame(packed.of_sequences(run.sequences(number)), schema=list(SPAN_COLUMNS))
        named = packed.documents.described(spans["document"].to_numpy()).rename({"component": "component_name"})
        rows = spans.join(named, on="document", how="left").sort("sequence", "start")
        shown = rows.select("id", "source", "component_name", "sequence", "start", tokens="length")
        parts.append(shown.with_columns(run=pl.lit(run.run)) if run.run else shown)
    return pl.concat(parts)
