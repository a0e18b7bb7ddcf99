"""Batches of ratings on disk: read back by version, whole or not at all."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.documents import documents
from midtrain_dagster.rate.journal import Journal, completed, journal_of
from midtrain_dagster.rate.rate import rate


class Length:
    name = "length"

    def __init__(self, version: str = "1"):
        self.version = version

    def score(self, frame: pl.DataFrame) -> np.ndarray:
        return frame["text"].str.len_chars().to_numpy().astype(np.float32)


def frame(*texts: str) -> pl.DataFrame:
    return documents([{"id": f"d{n}", "text": text} for n, text in enumerate(texts)])


def test_batches_come_back_in_order_and_for_their_version_alone(tmp_path):
    journal, rater = Journal(tmp_path / "web"), Length()
    given = frame("a", "bb", "ccc", "dddd")
    for batch in given.iter_slices(2):
        journal.write(rater, rate(batch, [rater]))
    journal = Journal(tmp_path / "web")
    found = journal.read(rater, given)
    assert [batch["id"].to_list() for batch in found] == [["d0", "d1"], ["d2", "d3"]]
    assert pl.concat(found).equals(rate(given, [rater]))
    assert journal.read(Length("2"), given) == []
    assert Journal(tmp_path / "code").read(rater, given) == []


def test_a_text_that_changed_is_not_taken_for_rated(tmp_path):
    journal, rater = Journal(tmp_path), Length()
    journal.write(rater, rate(frame("a", "bb"), [rater]))
    assert pl.concat(Journal(tmp_path).read(rater, frame("a", "changed")))["id"].to_list() == ["d0"]


def test_what_a_killed_process_half_wrote_is_not_read(tmp_path):
    journal, rater = Journal(tmp_path), Length()
    journal.write(rater, rate(frame("a"), [rater]))
    (tmp_path / "length-1" / ".1-4711").write_bytes(b"half a file")
    assert len(Journal(tmp_path).read(rater, frame("a"))) == 1
    journal.clear()
    assert Journal(tmp_path).read(rater, frame("a")) == []


def test_of_two_runs_the_second_waits_and_a_failed_one_leaves_its_ratings(tmp_path):
    given, rater, said = frame("a", "bb"), Length(), []

    def cut_short() -> None:
        with journal_of(tmp_path / "web") as journal:
            journal.write(rater, rate(given, [rater]))
            raise ValueError("cut short")

    with pytest.raises(ValueError, match="cut short"):
        cut_short()
    with ThreadPoolExecutor(1) as pool, journal_of(tmp_path / "web") as journal:
        assert len(journal.read(rater, given)) == 1

        def second() -> int:
            with journal_of(tmp_path / "web", said.append) as late:
                return len(late.read(rater, given))

        found = pool.submit(second)
        while not said:
            time.sleep(0.01)
        assert not found.done()
        assert "ratings of web: waiting for process" in said[0]
        journal.clear()
    assert found.result() == 0


class Counted(Length):
    """Remembers what it was asked."""

    def __init__(self, name: str, version: str = "1"):
        super().__init__(version)
        self.name, self.seen = name, Counter[str]()

    def score(self, frame: pl.DataFrame) -> np.ndarray:
        self.seen.update(frame["text"])
        return super().score(frame)


class Cut(Exception):
    """The machine went away."""


@settings(deadline=None, max_examples=60)
@given(data=st.data(), sizes=st.tuples(st.integers(0, 30), st.integers(1, 7)), seed=st.integers(0, 99))
def test_no_version_of_a_rater_rates_a_text_twice(data: st.DataObject, sizes: tuple[int, int], seed: int) -> None:
    """Over refreshes in which documents come, change and go, raters come and get another version, and any run may be cut short."""
    rng, (count, batch) = np.random.default_rng(seed), sizes
    texts, stored, raters = {}, None, {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(4):
            for n in range(count):
                if turn == 0 or rng.random() < 0.2:
                    texts[f"d{n}"] = f"text {n} of turn {turn}" + "." * int(rng.integers(0, 9))
            present = documents([{"id": id, "text": text} for id, text in sorted(texts.items()) if rng.random() < 0.9])
            wanted = data.draw(st.lists(st.sampled_from(["a1", "a2", "b1"]), min_size=1, max_size=2, unique_by=lambda n: n[0]))
            some = [raters.setdefault(name, Counted(name[0], name[1])) for name in wanted]
            cut = data.draw(st.one_of(st.none(), st.integers(0, 5)))
            for stop in [cut, None] if cut is not None else [None]:
                left = [stop]

                def score(some: Sequence[Counted], todo: pl.DataFrame, left: list[int | None] = left) -> Iterator[pl.DataFrame]:
                    for part in todo.iter_slices(batch):
                        if left[0] == 0:
                            raise Cut
                        left[0] = left[0] and left[0] - 1
                        yield rate(part, some)

                try:
                    found = completed(present, stored, some, Journal(Path(folder) / "ratings"), score)
                except Cut:
                    continue
            assert found["id"].to_list() == sorted(present["id"])
            expected = rate(present.sort("id"), [Length()])["length"]
            for rater in some:
                assert found[rater.name].to_list() == expected.to_list()
                assert set(found[f"{rater.name}_version"]) <= {rater.version}
            Journal(Path(folder) / "ratings").clear()
            kept = set(found["id"])
            gone = [raters[name] for name in raters if raters[name] not in some]
            stored, texts = found, {id: text for id, text in texts.items() if id in kept}
            for rater in gone:  # a rater that a project no longer has is forgotten with its column
                rater.seen.clear()
            assert all(times == 1 for rater in some for times in rater.seen.values())
