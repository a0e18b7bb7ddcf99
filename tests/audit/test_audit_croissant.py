"""The Croissant file of a data card is valid by the reference library, and its records can be read through it."""

import json
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster.audit.cards import Facts, croissant

NONE = pl.DataFrame()


def test_the_reference_library_reads_what_it_describes(tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    documents = pl.DataFrame(
        {"id": ["a", "b"], "license": ["CC0-1.0", None], "tokens": [7, 9], "kept": [True, False], "rate": [0.5, 1]}
    )
    documents.write_parquet(tmp_path / "documents.parquet")
    content = (tmp_path / "documents.parquet").read_bytes()
    facts = Facts("my-recipe", "A recipe.", {}, "base", documents, *[NONE] * 3, {}, {}, *[NONE] * 3, [], {}, None)
    files = [{"name": "documents.parquet", "sha256": sha256(content).hexdigest(), "bytes": len(content)}]
    described = croissant(facts, files, {name: str(kind) for name, kind in documents.schema.items()})
    (tmp_path / "croissant.json").write_text(json.dumps(described))
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    assert dataset.metadata.ctx.issues.errors == set()
    rows = list(dataset.records(record_set="documents"))
    assert [(row["documents/id"], row["documents/tokens"], row["documents/kept"]) for row in rows] == [
        (b"a", 7, True),
        (b"b", 9, False),
    ]
