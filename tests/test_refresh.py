"""A refresh costs what changed, and a killed one is simply done again."""

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster import pieces, staging
from midtrain_dagster.documents import Batch, documents, rejected
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.outside import from_outside
from midtrain_dagster.refresh import by_document, fingerprint
from midtrain_dagster.staging import Staged
from midtrain_dagster.tables import Record, Tables, add, digest


@pytest.fixture(autouse=True, params=["in memory", "row by row, through files"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All of this holds whether rows fit in memory or are written as they come."""
    if request.param != "in memory":
        monkeypatch.setattr(staging, "HELD", 1)
        monkeypatch.setattr(staging, "FILE", 2000)
        monkeypatch.setattr(pieces, "PIECE", 1)
    return str(request.param)


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
        self.worked = sorted([*self.worked, *new["id"]])
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
    commit, done = Staged.commit, []

    def dies(self, *arguments, **more):
        if len(done) == survives:
            raise KeyboardInterrupt
        done.append(self.name)
        return commit(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Staged, "commit", dies)
        with pytest.raises(KeyboardInterrupt):
            stage.refresh()
    refreshed = stage.refresh()
    assert lengths(stage) == {"1": 3, "2": 5, "3": 8}
    assert sorted(stage.tables.read("long", "a")["id"]) == ["2", "3"]
    assert refreshed.digest == digest(stage.tables.read("length", "a"))


def outside(tables: Tables, texts: dict[str, str], mark: str, broken: int = 0):
    """A source read from outside, a document a batch."""

    def batches():
        for i, text in texts.items():
            yield Batch(documents([{"id": i, "text": text, "source": "a"}]), rejected([]))
        lost = [{"source": "a", "location": f"{n}", "reason": "empty text", "detail": ""} for n in range(broken)]
        yield Batch(documents([]), rejected(lost))

    return from_outside(tables, asset="raw/a", name="raw", source="a", base="1", outside=mark, batches=batches)


def test_a_source_from_outside_grows_changes_and_shrinks(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    first = outside(tables, {"1": "one", "2": "two", "3": "three"}, "first", broken=2)
    assert (first.changed, first.worked, first.rows) == (True, 3, 3)
    assert first.about == {"read": 5, "kept": 3, "rejected": 2, "rejected because": {"empty text": 2}}
    assert not outside(tables, {}, "first").changed
    grown = outside(tables, {"1": "one", "2": "two", "3": "three", "4": "four"}, "second")
    assert (grown.worked, grown.gone, grown.rows, len(tables.read("rejected_records"))) == (1, 0, 4, 0)
    shrunk = outside(tables, {"1": "one", "2": "changed", "4": "four"}, "third")
    assert (shrunk.worked, shrunk.gone, shrunk.rows) == (1, 2, 3)
    rows = tables.read("raw", "a")
    assert dict(rows.select("id", "text").iter_rows()) == {"1": "one", "2": "changed", "4": "four"}
    assert (
        shrunk.digest == digest(rows) == outside(Tables(tmp_path / "b"), {"4": "four", "1": "one", "2": "changed"}, "x").digest
    )


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    outside(tables, {"1": "one"}, "first")

    def batches():
        yield Batch(documents([{"id": "2", "text": "two", "source": "a"}]), rejected([]))
        raise MidtrainError("the line went dead")

    with pytest.raises(MidtrainError, match="went dead"):
        from_outside(tables, asset="raw/a", name="raw", source="a", base="1", outside="second", batches=batches)
    assert tables.read("raw")["id"].to_list() == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert len(list(tmp_path.rglob("*.parquet"))) == len(tables.files("raw"))


KILLED = """
import os, signal, sys
from deltalake import DeltaTable
from midtrain_dagster import staging
from midtrain_dagster.documents import Batch, documents, rejected
from midtrain_dagster.outside import from_outside
from midtrain_dagster.tables import Tables

root, moment, staging.HELD = sys.argv[1], sys.argv[2], 1

def batches():
    for number in range(5):
        yield Batch(documents([{"id": str(number), "text": f"text {number}", "source": "a"}]), rejected([]))
        if moment == "while reading" and number == 3:
            os.kill(os.getpid(), signal.SIGKILL)

commit = DeltaTable.create_write_transaction

def killed(self, *arguments, **more):
    if moment == "after the commit":
        commit(self, *arguments, **more)
    os.kill(os.getpid(), signal.SIGKILL)

if moment != "never":
    DeltaTable.create_write_transaction = killed
made = from_outside(Tables(root), asset="raw/a", name="raw", source="a", base="1", outside="x", batches=batches)
print(made.digest, made.changed)
"""


@pytest.mark.parametrize("moment", ["while reading", "before the commit", "after the commit"])
def test_a_source_that_is_killed_on_its_way_into_the_table(tmp_path: Path, held: str, moment: str) -> None:
    if held == "in memory":
        pytest.skip("nothing is on its way")

    def run(root: str, moment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", KILLED, tmp_path / root, moment], capture_output=True, text=True)

    assert run("one", moment).returncode == -signal.SIGKILL
    second, undisturbed = run("one", "never"), run("two", "never")
    assert second.stdout.split()[0] == undisturbed.stdout.split()[0]
    rows = Tables(tmp_path / "one").read("raw")
    assert sorted(rows["id"]) == list("01234")
    assert second.stdout.split()[1] == str(moment != "after the commit")


def test_columns_that_only_some_pieces_have(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    record = Record("t/a", "1", "", "", 2, {}, {})
    with Staged(tables, "t", "a") as rows:
        rows.add(pl.DataFrame({"id": ["1"], "x": [1]}))
        rows.add(pl.DataFrame({"id": ["2"], "y": [["b"]]}))
        rows.commit(record, replace=True)
    with Staged(tables, "t", "b") as rows:
        rows.add(pl.DataFrame({"id": ["3"], "z": [1.5], "x": pl.Series([7], dtype=pl.Int32)}))
        rows.commit(record._replace(asset="t/b"), replace=True)
    found = tables.read("t").sort("id").select("id", "x", "y", "z", "source").rows()
    assert found == [("1", 1, None, None, "a"), ("2", None, ["b"], None, "a"), ("3", 7, None, 1.5, "b")]


def test_the_second_of_two_writers_of_one_source_is_refused(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    outside(tables, {"1": "one"}, "first")
    stood = tables.record("raw", "raw/a")
    outside(tables, {"1": "one", "2": "two"}, "second")
    with Staged(tables, "raw", "a") as late:
        late.add(documents([{"id": "3", "text": "late", "source": "a"}]))
        with pytest.raises(MidtrainError, match="another run has just written it"):
            late.commit(Record("raw/a", "late", "", "", 1, {}, {}), replace=False, after=stood)
    assert sorted(tables.read("raw")["id"]) == ["1", "2"]


def test_digests_add_and_subtract() -> None:
    frame = pl.DataFrame({"id": ["a", "b", "c"], "x": [1.5, None, 3.0]})
    assert add(digest(frame[:1]), digest(frame[1:])) == digest(frame) == digest(frame.reverse())
    assert add(digest(frame), digest(frame[1:]), -1) == digest(frame[:1])
    assert digest(frame) != digest(frame.with_columns(x=pl.lit(1.0)))
