"""Disk stays in bounds, and nothing that a checkpoint was made from is ever removed."""

import time
from pathlib import Path

import pytest

from midtrain_dagster.artifacts import Artifacts
from midtrain_dagster.audit import lineage
from midtrain_dagster.audit.vacuum import carry_out, plan
from midtrain_dagster.documents import documents
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.tables import Record, Tables, digest

LATER = time.time() + 100 * 86_400
NAMES = ("raw_documents", "clean_documents")


class Days:
    """A source that is other text every day, cleaned; on some days a model is made of it."""

    def __init__(self, root: Path):
        self.tables, self.artifacts = Tables(root / "tables"), Artifacts(root / "artifacts")

    def day(self, number: int, trained: bool) -> None:
        texts = [{"id": str(i), "text": f"day {number}, page {i} " * 50, "source": "web"} for i in range(20)]
        self._put("raw_documents", texts, {}, number)
        self._put("clean_documents", texts, {"raw_documents": self.tables.version("raw_documents")}, number)
        read = {"clean_documents": self.tables.version("clean_documents")}
        packed = self._made("packed_sequences/mine", number, read)
        if trained:
            self._made("midtrained_checkpoint/mine", number, {"packed_sequences/mine": packed})

    def _put(self, name: str, texts: list[dict[str, object]], reads: dict[str, int], number: int) -> None:
        rows = documents(texts)
        record = Record(f"{name}/web", fingerprint(number), "", digest(rows), len(rows), reads, {})
        self.tables.commit(name, "web", rows, record, replace=True)

    def _made(self, name: str, number: int, inputs: dict[str, int | str]) -> str:
        def make(out: Path) -> tuple[str, dict[str, int]]:
            (out / "content").write_bytes(bytes([number]) * 1000)
            return f"digest of day {number}", {}

        return self.artifacts.build(name, f"day{number}", make, inputs)[0].fingerprint

    def size(self) -> int:
        root = Path(self.tables.root).parent
        return sum(f.stat().st_size for f in root.rglob("*") if f.is_file() and "_delta_log" not in f.parts)


@pytest.fixture
def days(tmp_path: Path) -> Days:
    made = Days(tmp_path)
    for number in range(6):
        made.day(number, trained=number in (1, 3))
    return made


def test_every_checkpoint_still_verifies_and_the_rest_is_gone(days: Days) -> None:
    before = days.size()
    found = plan(days.tables, days.artifacts, NAMES, days=30, now=LATER)
    assert sorted(found.artifacts) == [("packed_sequences/mine", f"day{number}") for number in (0, 2, 4)]
    assert days.size() == before
    carry_out(days.tables, days.artifacts, found)
    assert days.size() == pytest.approx(before / 2, rel=0.2)  # of six days, those of two checkpoints and the newest
    for number in (1, 3):
        root = lineage.tree(days.tables, days.artifacts, "midtrained_checkpoint/mine", f"day{number}")
        assert lineage.verify(root, days.tables, days.artifacts) == []
        version = days.artifacts.get("packed_sequences/mine", f"day{number}").inputs["clean_documents"]
        assert days.tables.read("clean_documents", version=version)["text"][0].startswith(f"day {number}")
    with pytest.raises(Exception, match=r"(?i)not found|no such file"):
        days.tables.read("clean_documents", version=0)


def test_what_is_young_stays(days: Days) -> None:
    found = plan(days.tables, days.artifacts, NAMES, days=30)
    assert (found.artifacts, sum(map(len, found.files.values()))) == ([], 0)


def test_a_second_vacuum_finds_nothing_and_a_refresh_goes_on(days: Days) -> None:
    carry_out(days.tables, days.artifacts, plan(days.tables, days.artifacts, NAMES, days=0, now=LATER))
    again = plan(days.tables, days.artifacts, NAMES, days=0, now=LATER)
    assert (again.artifacts, sum(map(len, again.files.values()))) == ([], 0)
    read = days.tables.record("clean_documents", "clean_documents/web").reads["raw_documents"]
    days.day(6, trained=True)
    changes = days.tables.changes("raw_documents", "web", read)  # needs the files of the version read last
    assert (changes.new.total(), len(changes.gone)) == (20, 20)


def test_disk_is_bounded_over_many_refreshes(tmp_path: Path) -> None:
    many = Days(tmp_path)
    sizes = []
    for number in range(12):
        many.day(number, trained=False)
        carry_out(many.tables, many.artifacts, plan(many.tables, many.artifacts, NAMES, days=0, now=LATER))
        sizes.append(many.size())
    assert max(sizes[3:]) <= 1.5 * sizes[2]


def test_what_a_killed_run_left_goes_when_it_is_old(days: Days) -> None:
    left = {days.artifacts.root / "mixture" / "mine" / ".partial-abc", Path(days.tables.root) / ".partial-def"}
    for partial in left:
        partial.mkdir(parents=True)
    assert not left & set(plan(days.tables, days.artifacts, NAMES, days=0).left)
    assert left <= set(plan(days.tables, days.artifacts, NAMES, days=0, now=LATER).left)


def test_files_that_a_killed_run_moved_in_and_did_not_commit_go_when_they_are_old(days: Days) -> None:
    table = Path(days.tables.uri("raw_documents"))
    stray = table / "source=web" / "part-00000-stray.parquet"
    stray.write_bytes(Path(days.tables.files("raw_documents")[0]).read_bytes())
    assert not any(plan(days.tables, days.artifacts, NAMES, days=0).strays.values())
    found = plan(days.tables, days.artifacts, NAMES, days=30, now=LATER)
    assert found.strays == {"raw_documents": [str(stray)], "clean_documents": []}
    carry_out(days.tables, days.artifacts, found)
    assert not stray.exists()
    assert not any(plan(days.tables, days.artifacts, NAMES, days=30, now=LATER).strays.values())
    assert days.tables.read("raw_documents")["text"][0].startswith("day 5")
