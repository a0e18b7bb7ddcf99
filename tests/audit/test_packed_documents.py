"""From an id to its row and back, through the index."""

import os
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.audit.packed_documents import PackedDocuments

ROWS = pl.DataFrame({"id": [f"d{number}" for number in range(100)]}).with_columns(
    text_hash="id", source=pl.lit("web"), component=pl.lit("prose")
)


def packed(folder: Path, rows: pl.DataFrame) -> PackedDocuments:
    file = folder / "version" / "train" / "documents.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(file, row_group_size=7)
    return PackedDocuments(file, folder / "cache")


def test_ids_become_numbers_and_numbers_rows(tmp_path: Path) -> None:
    documents = packed(tmp_path, ROWS)
    asked = pl.DataFrame({"id": ["d99", "never packed", "d0", "d50", "d0"]})
    for _ in range(2):  # with the index made, and with it found
        assert documents.numbers(asked).rows() == [("d0", 0), ("d50", 50), ("d99", 99)]
    found = documents.described(np.asarray([50, 6, 7, 50]))
    assert found.select("document", "id", "component").rows() == [(6, "d6", "prose"), (7, "d7", "prose"), (50, "d50", "prose")]
    assert documents.numbers(asked[1:2]).rows() == []
    assert documents.described(np.asarray([], dtype=np.int64)).rows() == []


def test_another_file_in_its_place_has_another_index(tmp_path: Path) -> None:
    asked = pl.DataFrame({"id": ["d3"]})
    documents = packed(tmp_path, ROWS)
    assert documents.numbers(asked).rows() == [("d3", 3)]
    os.utime(documents.file, (0, 0))  # or a quick machine gives both the same time
    assert packed(tmp_path, ROWS.reverse()).numbers(asked).rows() == [("d3", 96)]


def test_equal_hashes_are_told_apart(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("midtrain_dagster.audit.packed_documents.HASH", "(length(id))::ubigint")
    assert packed(tmp_path, ROWS).numbers(pl.DataFrame({"id": ["d42", "d1"]})).rows() == [("d1", 1), ("d42", 42)]
