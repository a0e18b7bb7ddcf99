"""A lake made by hand: two sources, a document made from another, packed sequences, and a run that read some of them."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.artifacts import Artifacts
from midtrain_dagster.documents import Batch, document_id, documents, rejected
from midtrain_dagster.outside import from_outside
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.sequences import SequenceWriter
from midtrain_dagster.tables import Tables
from midtrain_dagster.withdrawals import withdrawn, without

RECIPE = "mine"
LENGTH = 8
WEB = {
    "https://example.org/a": "the first page",
    "https://example.org/b": "the second page",
    "https://www.example.org/c": "the third page",
    "https://other.net/a": "the first page",
    "https://other.net/b": "another page",
}


def rows(source: str, texts: dict[str, str], parents: dict[str, list[str]] | None = None) -> list[dict[str, object]]:
    """Documents of a source by address."""
    made = parents or {}
    return [
        {
            "id": document_id(source, url),
            "text": text,
            "source": source,
            "domain": "web",
            "url": url,
            "license": "CC-BY-4.0" if "example" in url else None,
            "parent_ids": made.get(url, []),
        }
        for url, text in texts.items()
    ]


def refresh(tables: Tables, source: str, found: list[dict[str, object]]):
    """As the asset of a source does it."""
    return from_outside(
        tables,
        asset=f"raw_documents/{source}",
        name="raw_documents",
        source=source,
        base="1",
        outside=fingerprint(found),
        batches=lambda: without([Batch(documents(found), rejected([]))], withdrawn(tables)),
    )


def written(source: str = "written") -> list[dict[str, object]]:
    """A document made from web page a, and one made from that."""
    first = document_id(source, "made:1")
    parents = {"made:1": [document_id("web", "https://example.org/a")], "made:2": [first]}
    return rows(source, {"made:1": "a question about the first page", "made:2": "the question, harder"}, parents)


def filled(root: Path, order: list[int] | None = None, steps: tuple[int, ...] = (2, 4)) -> tuple[Tables, Artifacts]:
    """Tables and artifacts. Each web document is one sequence, in the order of WEB, and page a a second one at the end.

    The run read, at each step, as many sequences as `steps` says in sum; `order` where it was not the packed one.
    """
    tables, artifacts = Tables(root / "tables"), Artifacts(root / "artifacts")
    refresh(tables, "web", rows("web", WEB))
    refresh(tables, "written", written())
    ids = [document_id("web", url) for url in WEB]
    packed, _ = artifacts.build(f"packed_sequences/{RECIPE}", "p1", lambda out: pack(out, ids), {"raw_documents": 0})

    def train(out: Path) -> tuple[str, dict[str, int]]:
        lines = [{"step": n + 1, "sequences": read, "tokens": read * LENGTH} for n, read in enumerate(steps)]
        (out / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if order is not None:
            np.save(out / "order.npy", np.asarray(order))
        return "weights", {"tokens": steps[-1] * LENGTH, "steps": len(steps)}

    artifacts.build(f"midtrained_checkpoint/{RECIPE}", "c1", train, {f"packed_sequences/{RECIPE}": packed.fingerprint})
    return tables, artifacts


def pack(out: Path, ids: list[str]) -> tuple[str, dict[str, int]]:
    """Six sequences of eight tokens: documents 0 to 4, then 0 again."""
    out = out / "train"
    with SequenceWriter(out, LENGTH, 100, ("web",)) as writer:
        for number in (*range(len(ids)), 0):
            writer.append(np.full((1, LENGTH), number), np.asarray([[0, 0, LENGTH - 2, 0, number, 0]]))
    frame = pl.DataFrame({"id": ids}).with_columns(text_hash=pl.lit("t"), source=pl.lit("web"), component=pl.lit("web"))
    frame.write_parquet(out / "documents.parquet")
    return "packed", {"sequences": len(ids) + 1}
