"""A refresh costs what changed, and a killed one is simply done again."""

from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster.documents import documents
from midtrain_dagster.refresh import by_document, fingerprint
from midtrain_dagster.tables import Record, Tables, add, digest


def put(tables: Tables, source: str, texts: dict[str, str], replace: bool = True) -> None:
    rows = documents([{"id": i, "text": t, "source": source} for i, t in texts.items()])
    tables.commit(
        "raw", source, rows, Record(f"raw/{source}", fingerprint(texts), "", digest(rows), len(rows), {}, {}), replace
    )


class Lengths:
    """A stage that measures length into one table and says 'long' in another; it can be made to die half-way."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self.worked: list[str] = []

    def work(self, new: pl.DataFrame) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
        self.worked = sorted(new["id"])
        measured = new.select("id", "text_hash", length=pl.col("text").str.len_chars())
        return {"length": measured, "long": measured.filter(pl.col("length") > 3)}, {}

    def refresh(self, base: str = "1", passing: pl.DataFrame | None = None):
        self.worked = []
        return by_document(
            self.tables,
            asset="length/a",
            reads="raw",
            writes=("length", "long"),
            source="a",
            base=base,
            work=self.work,
            passing=passing,
        )


@pytest.fixture
def stage(tmp_path: Path) -> Lengths:
    return Lengths(Tables(tmp_path))


def lengths(stage: Lengths) -> dict[str, int]:
    return dict(stage.tables.read("length", "a").select("id", "length").sort("id").iter_rows())


def test_nothing_is_done_where_nothing_changed(stage: Lengths) -> None:
    put(stage.tables, "a", {"1": "one", "2": "three"})
    first = stage.refresh()
    assert (first.changed, first.worked, first.rows) == (True, 2, 2)
    second = stage.refresh()
    assert (second.changed, second.worked, second.digest) == (False, 0, first.digest)
    assert stage.worked == []


def test_only_new_documents_are_worked_on(stage: Lengths) -> None:
    put(stage.tables, "a", {"1": "one", "2": "three"})
    stage.refresh()
    put(stage.tables, "a", {"3": "fourteen"}, replace=False)
    assert stage.refresh().worked == 1
    assert stage.worked == ["3"]
    assert lengths(stage) == {"1": 3, "2": 5, "3": 8}


def test_a_changed_and_a_withdrawn_document(stage: Lengths) -> None:
    put(stage.tables, "a", {"1": "one", "2": "three", "3": "four"})
    stage.refresh()
    put(stage.tables, "a", {"1": "one", "2": "changed"})
    refreshed = stage.refresh()
    assert (stage.worked, refreshed.gone) == (["2"], 2)
    assert lengths(stage) == {"1": 3, "2": 7}
    assert stage.tables.read("long", "a")["id"].to_list() == ["2"]


def test_the_digest_is_that_of_the_content_however_it_came_about(stage: Lengths, tmp_path: Path) -> None:
    put(stage.tables, "a", {"1": "one", "2": "three"})
    stage.refresh()
    put(stage.tables, "a", {"3": "four"}, replace=False)
    grown = stage.refresh()
    other = Lengths(Tables(tmp_path / "other"))
    put(other.tables, "a", {"3": "four", "2": "three", "1": "one"})
    assert other.refresh().digest == grown.digest == digest(stage.tables.read("length", "a"))


def test_other_sources_move_the_table_on_without_work(stage: Lengths) -> None:
    put(stage.tables, "a", {"1": "one"})
    stage.refresh()
    put(stage.tables, "b", {"9": "nine"})
    assert stage.refresh().changed is False
    assert stage.worked == []


def test_new_code_works_on_everything(stage: Lengths) -> None:
    put(stage.tables, "a", {"1": "one", "2": "three"})
    stage.refresh(base="1")
    assert stage.refresh(base="2").worked == 2


def test_a_gate_admits_and_withdraws(stage: Lengths) -> None:
    put(stage.tables, "a", {"1": "one", "2": "three", "3": "four"})
    stage.refresh(passing=pl.DataFrame({"id": ["1", "2"]}))
    assert lengths(stage) == {"1": 3, "2": 5}
    stage.refresh(passing=pl.DataFrame({"id": ["2", "3"]}))
    assert stage.worked == ["3"]
    assert lengths(stage) == {"2": 5, "3": 4}
    version = stage.tables.version("length")
    stage.refresh(passing=pl.DataFrame({"id": ["2", "3"]}))
    assert stage.tables.version("length") == version


@pytest.mark.parametrize("survives", [0, 1])
def test_killed_between_two_commits(stage: Lengths, monkeypatch: pytest.MonkeyPatch, survives: int) -> None:
    put(stage.tables, "a", {"1": "one", "2": "three"})
    stage.refresh()
    put(stage.tables, "a", {"3": "fourteen"}, replace=False)
    commit, done = Tables.commit, []

    def dies(self, name, *arguments, **more):
        if len(done) == survives:
            raise KeyboardInterrupt
        done.append(name)
        return commit(self, name, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "commit", dies)
        with pytest.raises(KeyboardInterrupt):
            stage.refresh()
    refreshed = stage.refresh()
    assert lengths(stage) == {"1": 3, "2": 5, "3": 8}
    assert sorted(stage.tables.read("long", "a")["id"]) == ["2", "3"]
    assert refreshed.digest == digest(stage.tables.read("length", "a"))


def test_digests_add_and_subtract() -> None:
    frame = pl.DataFrame({"id": ["a", "b", "c"], "x": [1.5, None, 3.0]})
    assert add(digest(frame[:1]), digest(frame[1:])) == digest(frame) == digest(frame.reverse())
    assert add(digest(frame), digest(frame[1:]), -1) == digest(frame[:1])
    assert digest(frame) != digest(frame.with_columns(x=pl.lit(1.0)))
