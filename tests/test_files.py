"""Plain files that arrive broken: each record that cannot be read is a reject with its reason and place, and the rest is kept."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster import files


def read(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Ids, and (place, reason) of what was rejected."""
    batches = list(files.read([path]))
    rejects = pl.concat([batch.rejected for batch in batches])
    places = rejects["location"].str.strip_prefix(f"{path}")
    return [key for batch in batches for key in batch.documents["id"]], list(zip(places, rejects["reason"], strict=True))


def row(key: str) -> bytes:
    return json.dumps({"id": key, "text": f"text {key}", "created": "2020-01-02T03:04:05Z", "more": 1}).encode()


def test_each_broken_line_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST", 1 << 20)
    broken = [
        (b'{"id": "x", "text": "\xff"}', "invalid UTF-8"),
        (b'{"id": "x", "text": "\\ud800"}', "invalid Unicode"),
        (b"{" * 100_000, "not JSON"),
        (b'{"id": "x"', "not JSON"),
        (b"7", "not a record"),
        (b'{"text": "x"}', "no id"),
        (b'{"id": "x", "text": null, "\\ud800": 1}', "no text"),
        (b'{"text": "' + b"x" * (1 << 20) + b'"}', "record too large"),
    ]
    lines = [line for n, (line, _) in enumerate(broken) for line in (row(str(n)), line)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*lines, row("last")]))
    kept, lost = read(tmp_path / "a.jsonl")
    assert kept == [*map(str, range(len(broken))), "last"]
    assert lost == [(f":{2 * n + 2}", reason) for n, (_, reason) in enumerate(broken)]


def test_what_a_record_carries_is_kept(tmp_path: Path) -> None:
    strange = b'{"id": 5, "text": "t", "url": "\\ud800", "created": "long ago", "metadata": {"a": 1}, "parent_ids": "p"}'
    (tmp_path / "a.ndjson").write_bytes(row("1") + b"\n" + strange)
    first, second = next(files.read([tmp_path / "a.ndjson"])).documents.to_dicts()
    assert (first["created"].year, json.loads(first["metadata"])) == (2020, {"more": 1})
    assert (second["id"], second["url"], second["created"], second["parent_ids"]) == ("5", "?", None, [])
    assert json.loads(second["metadata"]) == {"a": 1, "created": "long ago"}


def test_damaged_and_empty_files(tmp_path: Path) -> None:
    whole = gzip.compress(b"\n".join(row(str(n)) for n in range(500)))
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-100])
    (tmp_path / "spoiled.jsonl.gz").write_bytes(whole[:200] + b"\xff" * 50 + whole[250:])
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 and no more")
    pl.DataFrame({"id": ["1"], "text": ["t"]}).write_parquet(tmp_path / "good.parquet")
    reasons = {path.name: read(path)[1] for path in sorted(tmp_path.iterdir())}
    assert reasons["cut.jsonl.gz"][-1][1] == "truncated file"
    assert reasons["spoiled.jsonl.gz"][-1][1] in ("truncated file", "not JSON")
    assert reasons["empty.jsonl"] == [("", "empty file")]
    assert reasons["junk.parquet"] == [(":1", "unreadable file")]
    assert reasons["good.parquet"] == []


def test_a_json_array_is_read_record_by_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[\n" + row("1") + b",\n" + row("2") + b", 3]")
    assert read(tmp_path / "a.json") == (["1", "2"], [(":3", "not a record")])
