"""Where a checkpoint came from: the tree of everything that it was made from, down to the sources."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.artifacts import Artifact, Artifacts, content_digest
from midtrain_dagster.audit.takedown import marks
from midtrain_dagster.repair import source_of, wrong
from midtrain_dagster.tables import Record, Tables


class Node(NamedTuple):
    """One asset at one version, and what it was made from."""

    name: str  # of the asset
    table: str | None  # where its rows are; None for an artifact
    version: str  # fingerprint of an artifact; version of the table
    digest: str  # of the content
    about: dict[str, Any]
    inputs: tuple["Node", ...]


Known = dict[tuple[str, int], list["Node"]]


def tree(tables: Tables, artifacts: Artifacts, name: str, fingerprint: str | None = None, known: Known | None = None) -> Node:
    """The lineage of an artifact (`midtrained_checkpoint/demo`), the newest one unless a fingerprint names another.

    `known` holds tables looked up already: one table at one version is the input of many. Raises MidtrainError where the
    artifact has not been made.
    """
    known = {} if known is None else known
    found = artifacts.current(name) if fingerprint is None else artifacts.get(name, fingerprint)
    if found is None:
        return Node(name, None, str(fingerprint), "", {"missing": "it is no longer kept"}, ())
    inputs = []
    for read, version in sorted(found.inputs.items()):
        if isinstance(version, int):
            inputs += table_nodes(tables, read, version, known)
        else:
            inputs.append(tree(tables, artifacts, read, version, known))
    about = {**found.about, **({"made": found.made} if found.made else {}), **of_checkpoint(tables, artifacts, name, found)}
    return Node(name, None, found.fingerprint, found.digest, about, tuple(inputs))


def of_checkpoint(tables: Tables, artifacts: Artifacts, name: str, found: Artifact) -> dict[str, Any]:
    """Of a checkpoint: the configuration of its training run, and what has been withdrawn since it read it."""
    stage, _, recipe = name.partition("/")
    if stage != "midtrained_checkpoint":
        return {}
    plan = found.path / "plan.json"
    told: dict[str, Any] = {"configuration": json.loads(plan.read_text())} if plan.exists() else {}
    packed = artifacts.get(f"packed_sequences/{recipe}", str(found.inputs.get(f"packed_sequences/{recipe}")))
    withdrawn = marks(tables, recipe, found, packed) if packed else []
    return {**told, **({"withdrawn": withdrawn} if withdrawn else {})}


def table_nodes(tables: Tables, name: str, version: int, known: Known) -> list[Node]:
    """A node for each asset that has rows in a table at a version."""
    if (name, version) not in known:
        known[name, version] = [_table_node(tables, name, version, record, known) for record in tables.records(name, version)]
    return known[name, version]


def _table_node(tables: Tables, name: str, version: int, record: Record, known: Known) -> Node:
    source = source_of(record.asset, name)
    inputs = [
        node
        for read, at in sorted(record.reads.items())
        for node in table_nodes(tables, read, at, known)
        if source is None or source_of(node.name, read) in (None, source)
    ]
    about = {"rows": record.rows, **record.about}
    if name == "raw_documents" and source is not None:
        about |= collected(tables, source, version)
    return Node(record.asset, name, str(version), record.digest, about, tuple(inputs))


def collected(tables: Tables, source: str, version: int) -> dict[str, Any]:
    """When a source was retrieved and under which licences."""
    rows = tables.scan("raw_documents", source, version)
    times = rows.select(first=pl.col("collected").min(), last=pl.col("collected").max()).collect().row(0)
    licences = rows.group_by("license").len().sort("len", "license", descending=[True, False]).collect()
    return {
        "retrieved": [str(time) for time in times],
        "licences": {str(licence or "not stated"): count for licence, count in licences.iter_rows()},
    }


def lines(node: Node, depth: int = 0) -> Iterator[str]:
    """The tree as indented lines for people."""
    told = [
        f"{key}: {value}" for key, value in node.about.items() if key in ("rows", "retrieved", "licences", "tokens", "steps")
    ]
    made = node.about.get("made", {})
    told += [f"{key}: {made[key]}" for key in ("at", "commit") if made.get(key)]
    yield "  " * depth + f"{place(node)}  @{node.version}  {node.digest[:12]}" + (f"  ({'; '.join(told)})" if told else "")
    for mark in node.about.get("withdrawn", []):
        counted = f"{mark['documents']:,} documents, {mark['tokens']:,} tokens"
        yield "  " * depth + f"  WITHDRAWN since, takedown {mark['takedown']}: {counted}; {mark['reason']}"
    for child in node.inputs:
        yield from lines(child, depth + 1)


def values(node: Node) -> dict[str, Any]:
    """The tree as JSON values."""
    return {**node._asdict(), "inputs": [values(child) for child in node.inputs]}


def place(node: Node) -> str:
    """Where a node's content is: an artifact's name, or table and source; an asset may write tables beside its own."""
    source = source_of(node.name, node.table) if node.table is not None else None
    return node.name if source is None else f"{node.table}/{source}"


def verify(node: Node, tables: Tables, artifacts: Artifacts, done: set[tuple[str, str]] | None = None) -> list[str]:
    """Recompute every digest of the tree from what is stored now, each once; returns what differs, one line each."""
    done = set() if done is None else done
    if (place(node), node.version) in done:
        return []
    done.add((place(node), node.version))
    found = [problem for child in node.inputs for problem in verify(child, tables, artifacts, done)]
    if "missing" in node.about:
        return [*found, f"{node.name}@{node.version}: {node.about['missing']}"]
    if node.table is not None:
        why = wrong(tables, node.table, node.name, node.digest, int(node.version))
        return [*found, f"{node.name}@{node.version}: {why}"] if why else found
    artifact = artifacts.get(node.name, node.version)
    assert artifact is not None
    if content_digest(artifact.path) != artifact.files:
        found.append(f"{node.name}@{node.version}: files have changed since they were written")
    return found
