"""What a project may ask for beyond clusters: passages that a source repeats, and documents that say the same."""

import json
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import graph
from assets.reading import relations
from midtrain_dagster.definitions import resources
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.selection import Deduplication, Rule, Selection
from midtrain_dagster.select.select import select
from midtrain_dagster.tables import Tables, database

NOTICE = "This page is part of the archive and may be copied by anyone who keeps this notice."
TALES = [
    "The ferry left at noon with nobody on board but the pilot, who had forgotten his coat.",
    "Two brothers sold the orchard and bought a clock that had never been known to stop.",
    "In the third winter the well froze over, and the village learnt to live on snow.",
]


class Topics:
    """A dimension for each of a few words: texts with the same word point the same way."""

    version = "topics"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        found = np.array([[word in text for word in ("ferry", "orchard", "winter")] for text in texts], dtype=np.float32)
        return found.reshape(len(texts), 3)


def write(root: Path, name: str, rows: dict[str, str]) -> None:
    lines = [json.dumps({"id": key, "text": text, "url": f"https://coast.example/{key}"}) for key, text in rows.items()]
    (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def project() -> Project:
    sources = [{"name": name, "kind": "jsonl", "location": f"{name}.jsonl"} for name in ("web", "press")]
    wanted = {"repeated": True, "semantic_clusters": True, "line_documents": 3}
    return Project(sources=sources, deduplication=wanted)


def materialize(project: Project, root: Path) -> tuple[Tables, dict[str, dg.MaterializeResult]]:
    assets = {asset.key.to_user_string(): asset for asset in graph(project, [], root)[0]}
    made = resources(project, root) | {"embedder": Topics()}
    names = [f"{stage}/{source}" for stage in ("raw_documents", "clean_documents") for source in ("web", "press")]
    names += ["duplicate_clusters", "repeated_text/web", "repeated_text/press", "semantic_clusters"]
    with dg.DagsterInstance.ephemeral() as instance:
        told = {name: assets[name](dg.build_asset_context(resources=made, instance=instance)) for name in names}
    return made["lake"].tables, told


def fates(tables: Tables, selection: Selection) -> dict[str, str | None]:
    """The last part of each document's address, and why it was left out."""
    with database() as con:
        relations(con, tables, ["web", "press"], "ngram")
        chosen = select(con, selection, 0).documents
    urls = tables.read("clean_documents").select("id", pl.col("url").str.split("/").list.last())
    return dict(chosen.join(urls, on="id").sort("url").select("url", "reason").iter_rows())


def test_repeated_passages_and_semantic_clusters_are_evidence_for_recipes(project: Project, tmp_path: Path) -> None:
    again = "Everybody had left by noon on that ferry, people say, and the pilot was alone, without coat."
    write(tmp_path, "web", {f"w{n}": f"{tale}\n\n{NOTICE}\n{NOTICE}" for n, tale in enumerate(TALES)} | {"w9": again})
    write(tmp_path, "press", {"p1": "Press: the ferry at noon was empty but for its pilot, whose coat was at home. " * 4})
    tables, told = materialize(project, tmp_path)
    assert told["repeated_text/web"].metadata["documents with repeated lines"] == 3
    assert told["semantic_clusters"].metadata["documents with a semantic duplicate"] == 3
    shares = Selection(rules=(Rule(name="notices", keep="signal.repeated_line_character_ratio < 0.6"),))
    assert fates(tables, shares) == {"p1": None, "w0": "notices", "w1": "notices", "w2": "notices", "w9": None}
    longest = Selection(deduplication=Deduplication(by=("near", "semantic")))
    assert [key for key, why in fates(tables, longest).items() if why is None] == ["p1", "w1", "w2"]
    rule = Deduplication(by=("semantic",), survivor=("preferred_source", "longest"), preferred_sources=("web",))
    found = fates(tables, Selection(deduplication=rule))
    assert [key for key, why in found.items() if why is None] == ["w0", "w1", "w2"]
    assert found["p1"] == "duplicate: semantic"


def test_new_documents_alone_are_split_and_embedded(project: Project, tmp_path: Path) -> None:
    write(tmp_path, "web", {f"w{n}": f"{tale}\n{NOTICE}" for n, tale in enumerate(TALES[:2])})
    write(tmp_path, "press", {"p1": TALES[2]})
    tables, told = materialize(project, tmp_path)
    assert tables.read("repeated_text", "web")["repeated_lines"].sum() == 0
    write(tmp_path, "web", {f"w{n}": f"{tale}\n{NOTICE}" for n, tale in enumerate(TALES)})
    tables, told = materialize(project, tmp_path)
    assert tables.read("repeated_text", "web")["repeated_lines"].to_list() == [1, 1, 1]
    assert [told[name].metadata["worked on"] for name in ("repeated_text/web", "semantic_clusters")] == [1, 1]
    _, told = materialize(project, tmp_path)
    assert all(result.metadata["up to date"] for result in told.values())
