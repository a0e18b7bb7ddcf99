"""Which document stands where in packed sequences, and at which step a run read it: answers without reading all spans.

Spans are sorted by sequence, so what a step read is found by bisection. The other way round, an index is made on the first
question and kept: row numbers of `spans.npy` sorted by document. Both are memory maps; a question touches the rows that it is
about and no others.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.audit.packed_documents import PackedDocuments
from midtrain_dagster.sequences import SPAN_COLUMNS

SEQUENCE, DOCUMENT = SPAN_COLUMNS.index("sequence"), SPAN_COLUMNS.index("document")
FEW = 200_000  # spans that are looked through as they are
BLOCK = 1 << 24  # rows of one column that are read at a time


class Packed:
    """Packed sequences as an audit reads them. `cache`: where the index may be kept."""

    def __init__(self, folder: Path, cache: Path):
        self.folder, self.cache = folder, cache
        self.spans: np.ndarray = np.load(folder / "spans.npy", mmap_mode="r")  # (spans, 6) with SPAN_COLUMNS
        about = json.loads((folder / "sequences.json").read_text())
        self.length, self.digest = int(about["length"]), str(about["digest"])
        self.documents = PackedDocuments(folder / "documents.parquet", cache)

    def of_documents(self, numbers: np.ndarray) -> np.ndarray:
        """The spans of some documents by their row numbers, (n, 6), in the order of the sequences."""
        if len(self.spans) <= FEW:
            return np.asarray(self.spans[np.isin(self.spans[:, DOCUMENT], numbers)])
        rows, first = self.index()
        wanted = np.unique(numbers)
        wanted = wanted[wanted < len(first) - 1]
        begins = np.asarray(first[wanted])
        counts = np.asarray(first[wanted + 1]) - begins
        places = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return np.asarray(self.spans[np.sort(rows[places])])

    def of_sequences(self, sequences: np.ndarray) -> np.ndarray:
        """The spans of some sequences, (n, 6)."""
        column = self.spans[:, SEQUENCE]
        low, high = np.searchsorted(column, sequences), np.searchsorted(column, sequences + 1)
        parts = [np.asarray(self.spans[a:b]) for a, b in zip(low, high, strict=True)]
        return np.concatenate(parts) if parts else np.empty((0, len(SPAN_COLUMNS)), np.int64)

    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of spans sorted by document; and where each document begins among them, one more than documents."""
        place = self.cache / "spans" / self.digest
        if not (place / "first.npy").exists():
            self._make_index(place)
        return np.load(place / "rows.npy", mmap_mode="r"), np.load(place / "first.npy", mmap_mode="r")

    def _make_index(self, place: Path) -> None:
        """A counting sort: two passes, and memory for one number a span and one a document."""
        place.mkdir(parents=True, exist_ok=True)
        counts = np.zeros(0, np.int64)
        for begin in range(0, len(self.spans), BLOCK):
            found = np.bincount(self.spans[begin : begin + BLOCK, DOCUMENT], minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        first = np.concatenate([[0], np.cumsum(counts)])
        kind = np.uint32 if len(self.spans) < 1 << 32 else np.int64
        partial = place / f"rows-{os.getpid()}.npy"
        rows = np.lib.format.open_memmap(partial, mode="w+", dtype=kind, shape=(len(self.spans),))
        free = first.copy()
        for begin in range(0, len(self.spans), BLOCK):
            column = np.asarray(self.spans[begin : begin + BLOCK, DOCUMENT])
            order = np.argsort(column, kind="stable")
            ordered = column[order]
            begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
            counted = np.diff(np.r_[begins, len(ordered)])
            within = np.arange(len(ordered)) - np.repeat(begins, counted)
            rows[free[ordered] + within] = order + begin
            free[ordered[begins]] += counted
        rows.flush()
        os.replace(partial, place / "rows.npy")
        np.save(place / f"first-{os.getpid()}.npy", first)
        os.replace(place / f"first-{os.getpid()}.npy", place / "first.npy")


class Reading(NamedTuple):
    """In which order one run read the packed sequences."""

    run: str  # empty, or `seed-3` of a soup
    borders: np.ndarray  # how many sequences had been read before each step, and at the end: (steps + 1,)
    order: np.ndarray | None  # the sequences as they were read; None where in the packed order, over and over
    packed: int  # how many sequences there are

    @property
    def steps(self) -> int:
        return len(self.borders) - 1

    @property
    def end(self) -> int:
        """How many sequences the run read."""
        return int(self.borders[-1])

    def steps_of(self, sequences: np.ndarray) -> list[int]:
        """The steps, from 1, in which any of some sequences was read, sorted; none for a sequence that the run did not reach."""
        if self.order is None:
            rounds = np.arange(-(-self.end // self.packed))[:, None] * self.packed
            places = (np.asarray(sequences)[None, :] + rounds).ravel()
        else:
            places = np.flatnonzero(np.isin(self.order[: self.end], sequences))
        return sorted(set(np.searchsorted(self.borders, places[places < self.end], side="right").tolist()))

    def times(self, sequences: np.ndarray) -> np.ndarray:
        """How often each of some sequences was read."""
        asked = np.asarray(sequences)
        if self.order is None:
            return np.maximum(0, (self.end - asked + self.packed - 1) // self.packed)
        return np.asarray(np.bincount(np.asarray(self.order[: self.end]), minlength=self.packed)[asked])

    def sequences(self, step: int) -> np.ndarray:
        """The sequences of a step, from 1."""
        low, high = int(self.borders[step - 1]), int(self.borders[step])
        return np.arange(low, high) % self.packed if self.order is None else np.asarray(self.order[low:high])


def readings(checkpoint: Artifact, packed: Path) -> list[Reading]:
    """The runs behind a checkpoint: one, or one for each seed of a soup. `packed`: the sequences that it read."""
    about = json.loads((packed / "sequences.json").read_text())
    folders = sorted(checkpoint.path.glob("seed-*")) or [checkpoint.path]
    return [reading(f, about["length"], about["count"], f.name if f != checkpoint.path else "") for f in folders]


def reading(folder: Path, length: int, count: int, run: str = "") -> Reading:
    """What the step log of one run says. A step that a guard took back counts by its last record."""
    steps = pl.read_ndjson(folder / "steps.jsonl", infer_schema_length=None)
    steps = steps.unique("step", keep="last", maintain_order=True).sort("step")
    read = steps["sequences"] if "sequences" in steps.columns else steps["tokens"] // length
    order = folder / "order.npy"
    borders = np.concatenate([[0], read.to_numpy()])
    return Reading(run, borders, np.load(order, mmap_mode="r") if order.exists() else None, count)
