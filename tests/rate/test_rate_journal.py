"""Batches of ratings on disk: read back by version, whole or not at all."""

import numpy as np
import polars as pl

from midtrain_dagster.documents import documents
from midtrain_dagster.rate.journal import Journal
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
    found = journal.read(rater, given)
    assert [batch["id"].to_list() for batch in found] == [["d0", "d1"], ["d2", "d3"]]
    assert pl.concat(found).equals(rate(given, [rater]))
    assert journal.read(Length("2"), given) == []
    assert Journal(tmp_path / "code").read(rater, given) == []


def test_a_text_that_changed_is_not_taken_for_rated(tmp_path):
    journal, rater = Journal(tmp_path), Length()
    journal.write(rater, rate(frame("a", "bb"), [rater]))
    assert pl.concat(journal.read(rater, frame("a", "changed")))["id"].to_list() == ["d0"]


def test_what_a_killed_process_half_wrote_is_not_read(tmp_path):
    journal, rater = Journal(tmp_path), Length()
    journal.write(rater, rate(frame("a"), [rater]))
    (tmp_path / "length-1" / ".1-4711").write_bytes(b"half a file")
    assert len(journal.read(rater, frame("a"))) == 1
    journal.clear()
    assert journal.read(rater, frame("a")) == []
