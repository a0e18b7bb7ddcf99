"""A source's unchanged files are not read again, and the tables are what reading everything would give."""

import json
import os
import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster import pieces, staging
from midtrain_dagster.collect.collect import collect
from midtrain_dagster.collect.present import present
from midtrain_dagster.documents import text_hash
from midtrain_dagster.outside import PARTS, refresh
from midtrain_dagster.parts import Outside
from midtrain_dagster.project.sources import source
from midtrain_dagster.refresh import Refreshed
from midtrain_dagster.staging import Staged
from midtrain_dagster.tables import Tables, digest
from midtrain_dagster.withdrawals import Rule, enforce, withdraw, withdrawn, without

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Files:
    """JSON lines outside, and two lakes: one reads in parts, the other everything."""

    def __init__(self, root: Path):
        self.folder = root / "in"
        self.folder.mkdir()
        self.parted, self.whole = Tables(root / "parted"), Tables(root / "whole")
        self.settings = source({"name": "s", "kind": "jsonl", "location": str(self.folder)}, "here")
        self.read: list[str] = []
        self.clock = 0

    def write(self, name: str, *rows: tuple[str, str] | str, more: bool = False) -> None:
        """Documents (id, text), or lines as they are."""
        lines = [row if isinstance(row, str) else json.dumps({"id": row[0], "text": row[1]}) for row in rows]
        with (self.folder / name).open("a" if more else "w") as file:
            file.write("".join(line + "\n" for line in lines))
        self.clock += 1
        os.utime(self.folder / name, ns=(self.clock, self.clock))  # two writes within one tick of the clock are two

    def bring(self, base: str = "1") -> Refreshed:
        """Bring the lake that reads in parts up to date."""
        self.read.clear()
        outside = present(self.settings, self.folder, NOW)

        def read(names, holders):
            self.read += names
            return without(outside.read(names, holders), withdrawn(self.parted))

        return self._bring(self.parted, base, outside._replace(read=read))

    def bring_whole(self, base: str = "1") -> Refreshed:
        marks = present(self.settings, self.folder, NOW).marks
        read = lambda names, holders: without(collect(self.settings, self.folder, NOW), withdrawn(self.whole))  # noqa: E731
        return self._bring(self.whole, base, Outside("whole", {"s": str(marks)}, read))

    def _bring(self, tables: Tables, base: str, outside: Outside) -> Refreshed:
        done = refresh(tables, asset="raw_documents/s", name="raw_documents", source="s", base=base, outside=outside)
        enforce(tables, "s")
        return done

    def texts(self) -> dict[str, str]:
        rows = self.parted.read("raw_documents").with_columns(place=pl.col("metadata").str.json_path_match("$.location"))
        return dict(rows.select("place", "text").sort("place").iter_rows())

    def rejects(self, tables: Tables) -> list[tuple[str, ...]]:
        if not tables.exists("rejected_records"):
            return []
        return sorted(tables.read("rejected_records").select("location", "reason", "detail").rows())

    def take_down(self, text: str) -> None:
        for tables in (lake for lake in (self.parted, self.whole) if lake.exists("raw_documents")):
            rows = tables.read("raw_documents").filter(text_hash=text_hash(text))
            found = rows.select("id", "text_hash", "url", "license", "source", via=pl.lit("text"))
            withdraw(tables, found, (Rule("text", text_hash(text)),), "asked", "us", NOW)

    def equal(self) -> None:
        """Both lakes hold the same, and say the same of it."""
        columns = ["id", "text", "text_hash", "metadata"]
        rows = [tables.read("raw_documents").select(columns).sort("id").rows() for tables in (self.parted, self.whole)]
        assert rows[0] == rows[1]
        assert self.rejects(self.parted) == self.rejects(self.whole)
        records = [tables.record("raw_documents", "raw_documents/s") for tables in (self.parted, self.whole)]
        assert records[0] is not None
        assert records[1] is not None
        assert (records[0].digest, records[0].rows) == (records[1].digest, records[1].rows)
        assert records[0].about == records[1].about | {"files": len(list(self.folder.iterdir()))}
        for name in self.parted.names():
            told = self.parted.record(name, "raw_documents/s")
            assert told is None or (told.digest, told.rows) == (digest(found := self.parted.read(name)), len(found))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_unchanged_files_are_not_read_again(files: Files) -> None:
    files.write("1.jsonl", ("a", "one"), ("b", "two"))
    files.write("2.jsonl", ("c", "three"), "no JSON")
    files.bring()
    files.write("3.jsonl", ("d", "four"), ("a", "another one"))
    grown = files.bring()
    assert (files.read, grown.worked, grown.gone, grown.rows) == (["3.jsonl"], 1, 0, 4)
    assert files.rejects(files.parted) == [("2.jsonl:2", "not JSON", REASON), ("3.jsonl:2", "duplicate id", "a")]
    assert grown.about["rejected because"] == {"duplicate id": 1, "not JSON": 1}
    assert (files.bring().changed, files.read) == (False, [])


REASON = "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"


def test_the_file_that_held_a_document_goes(files: Files) -> None:
    files.write("1.jsonl", ("a", "one"))
    files.write("2.jsonl", ("a", "another one"), ("b", "two"))
    files.write("3.jsonl", ("c", "three"))
    files.bring()
    assert files.texts() == {"1.jsonl:1": "one", "2.jsonl:2": "two", "3.jsonl:1": "three"}
    (files.folder / "1.jsonl").unlink()
    done = files.bring()
    assert (files.read, done.worked, done.gone) == (["2.jsonl"], 1, 1)
    assert files.texts() == {"2.jsonl:1": "another one", "2.jsonl:2": "two", "3.jsonl:1": "three"}
    assert files.rejects(files.parted) == []


def test_a_new_file_before_the_others_takes_its_documents(files: Files) -> None:
    files.write("2.jsonl", ("a", "one"), ("b", "two"))
    files.write("3.jsonl", ("c", "three"))
    files.bring()
    files.write("1.jsonl", ("a", "another one"))
    files.bring()
    assert files.read == ["1.jsonl", "2.jsonl"]
    assert files.texts() == {"1.jsonl:1": "another one", "2.jsonl:2": "two", "3.jsonl:1": "three"}
    assert files.rejects(files.parted) == [("2.jsonl:1", "duplicate id", "a")]


def test_new_settings_read_all_and_keep_what_is_the_same(files: Files) -> None:
    files.write("1.jsonl", ("a", "one"))
    files.write("2.jsonl", ("b", "two"))
    first = files.bring()
    again = files.bring(base="2")
    assert (files.read, again.changed, again.worked, again.digest) == (["1.jsonl", "2.jsonl"], False, 0, first.digest)


def test_a_document_that_was_taken_down_is_looked_at_once_more(files: Files) -> None:
    files.write("1.jsonl", ("a", "one"), ("b", "two"))
    files.write("2.jsonl", ("c", "three"))
    files.bring()
    files.take_down("two")
    assert (files.bring().rows, files.read) == (2, [])
    files.write("3.jsonl", ("d", "four"))
    files.bring()
    assert files.read == ["3.jsonl", "1.jsonl"]
    assert [reject[1] for reject in files.rejects(files.parted)] == ["withdrawn"]
    files.write("4.jsonl", ("e", "two"))
    files.bring()
    assert files.read == ["4.jsonl"]
    assert sorted(files.texts().values()) == ["four", "one", "three"]


def test_what_was_known_of_the_files_is_gone(files: Files) -> None:
    files.write("1.jsonl", ("a", "one"))
    files.write("2.jsonl", ("b", "two"))
    files.bring()
    for file in files.parted.files(PARTS):
        Path(file).unlink()
    files.write("3.jsonl", ("c", "three"))
    done = files.bring()
    assert (files.read, done.worked, done.rows) == (["1.jsonl", "2.jsonl", "3.jsonl"], 1, 3)
    files.write("4.jsonl", ("d", "four"))
    files.bring()
    assert files.read == ["4.jsonl"]


def change(files: Files, chance: random.Random) -> str:
    """Something happens outside: a file appears, changes, grows, vanishes or is renamed."""
    names = [f"{number}.jsonl" for number in range(5)]
    there = sorted(path.name for path in files.folder.iterdir())
    broken = ["no JSON", '{"id": "x"}', '{"id": "a", "text": " "}']

    def rows() -> list[tuple[str, str] | str]:
        made = [(chance.choice("abcdefgh"), f"text {chance.randrange(3)}") for _ in range(chance.randrange(5))]
        return [*made, *chance.sample(broken, chance.randrange(2))]

    kind = chance.choice(("write", "write", "more", "rename", "remove", "remove two")) if there else "write"
    if kind == "write":
        files.write(chance.choice(names), *rows())
    elif kind == "more":
        files.write(chance.choice(there), *rows(), more=True)
    elif kind == "rename":
        (files.folder / chance.choice(there)).rename(files.folder / chance.choice(names))
    else:
        for name in chance.sample(there, min(len(there), 2 if kind == "remove two" else 1)):
            (files.folder / name).unlink()
    return kind


@pytest.mark.parametrize("seed", range(int(os.environ.get("MIDTRAIN_TEST_SEEDS", "3"))))
def test_whatever_happens_to_the_files(files: Files, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Kills between commits, takedowns and new settings among it. Odd seeds write row by row, through files."""
    if seed % 2:
        monkeypatch.setattr(staging, "HELD", 1)
        monkeypatch.setattr(pieces, "PIECE", 1)
    chance = random.Random(seed)
    commit, left = Staged.commit, [99]

    def dies(self, *arguments, **more):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return commit(self, *arguments, **more)

    monkeypatch.setattr(Staged, "commit", dies)
    said = []
    for step in range(10):
        said.append(change(files, chance))
        base = str(step // 6)
        if step == 4:
            files.take_down("text 1")
        if chance.random() < 0.4:
            left[0] = chance.randrange(3)
            try:
                files.bring(base)
            except KeyboardInterrupt:
                said.append("killed")
            left[0] = 99
            if chance.random() < 0.5:
                said.append(change(files, chance))
        files.bring(base)
        files.bring_whole(base)
        try:
            files.equal()
        except AssertionError:
            print(said)
            raise
    assert {"write", "remove"} & set(said)
