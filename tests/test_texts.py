import gzip
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster import files
from midtrain_dagster.texts import read_texts

GOOD = '{"id": "a", "text": "one \\"id\\" é"}'


def _same(path):
    """What the fast reader finds, after holding that `files.read` finds the same."""
    slow, fast = list(files.read([path])), list(read_texts([path]))
    documents = pl.concat([batch.documents for batch in fast])
    assert documents.equals(pl.concat([batch.documents.select("id", "text") for batch in slow]))
    assert pl.concat([b.rejected for b in fast]).equals(pl.concat([b.rejected for b in slow]))
    return documents.rows()


@pytest.mark.parametrize(
    "line",
    [
        GOOD,
        '{"id":7,"text":"x"}',
        '{"id": 7.5, "text": "x"}',
        '{"id": true, "text": "x"}',
        '{"id": "b", "text": 5}',
        '{"id": "b", "text": ["x"]}',
        '{"id": "b", "text": "first", "text": "second"}',
        '{"id": "b", "meta": {"text": "inner"}}',
        '{"id": "text", "text": "id"}',
        '{"id": "b", "text": "\\ud800"}',
        '{"id": "b", "text": "C:\\\\udir x\\ud800y"}',
        '{"id": "b", "text": "\\ud83d\\ude00 and a\\u0000b"}',
        '{"id": "b", "text": "x"} {"id": "c", "text": "y"}',
        '{"id": "b", "te\\u0078t": "x"}',
        '{"id" : "b" , "text" : "x"}',
        '{"id": null, "text": "x"}',
        "[1, 2]",
        '[{"id": "b", "text": "x"}]',
        "nonsense",
        "",
        '{"id": "b", "text": "\xff"}',
    ],
)
def test_lines_are_those_of_the_slow_reader(tmp_path, line):
    for number, whole in enumerate([line, f"{GOOD}\n{line}\n{GOOD}\n", f"{line}\n{GOOD}", f"{GOOD}\n{line}\n\n"]):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(whole.encode("latin-1") if "\xff" in line else whole.encode())
        _same(path)


def test_blocks_and_a_truncated_archive(tmp_path, monkeypatch):
    monkeypatch.setattr("midtrain_dagster.texts.BLOCK_BYTES", 100)
    rows = [{"id": f"d{i}", "text": "word " * (i % 9)} for i in range(60)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    assert _same(path) == [(row["id"], row["text"]) for row in rows]
    path.write_bytes(path.read_bytes()[:-40])
    assert len(_same(path)) < 60
    plain = tmp_path / "b.jsonl"
    plain.write_text("".join(json.dumps({"id": i, "text": "x" * 150}) + "\n" for i in range(5)) + "broken\n" + GOOD)
    assert len(_same(plain)) == 6


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"text": ["x", "y"], "id": ["a", "b"], "more": [1, 2]}),
        pl.DataFrame({"id": [1, 2], "text": ["x", "y"]}),
        pl.DataFrame({"id": ["a", None, "c"], "text": ["x", "y", None]}),
        pl.DataFrame({"id": ["a"], "words": ["x"]}),
    ],
)
def test_rows_are_those_of_the_slow_reader(tmp_path, frame, monkeypatch):
    monkeypatch.setattr("midtrain_dagster.texts.BLOCK_ROWS", 1)
    frame.write_parquet(tmp_path / "a.parquet")
    _same(tmp_path / "a.parquet")
    broken = tmp_path / "b.parquet"
    broken.write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    assert next(iter(read_texts([broken]))).rejected["reason"].to_list() == ["unreadable file"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["id", "text", "more"]), st.text() | st.integers() | st.none()), max_size=4))
def test_any_records(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    _same(path)
