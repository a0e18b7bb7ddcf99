"""Ratings as they come, on the local disk until their table has them: a rating that was cut short goes on where it stopped."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.locks import alone
from midtrain_dagster.rate.rate import Rater, merged, rate, unrated


class Journal:
    """Batches of ratings that a source's raters have finished; each is a file of its own, there as a whole or not at all."""

    def __init__(self, folder: Path):
        """`folder` is a cache: its loss costs rating again and nothing else."""
        self.folder = folder
        self._left = sorted(folder.glob("*/*.parquet"))

    def read(self, rater: Rater, documents: pl.DataFrame) -> list[pl.DataFrame]:
        """What this version of a rater said of these documents (id, text_hash) in a run that was cut short, batch by batch."""
        keys = documents.select("id", "text_hash")
        found = [pl.read_parquet(file) for file in self._left if file.parent == self._place(rater)]
        return [batch.join(keys, on=["id", "text_hash"], how="semi") for batch in found]

    def write(self, rater: Rater, batch: pl.DataFrame) -> None:
        """Keep a batch of a rater's ratings. Raises MidtrainError where it cannot be written."""
        place = self._place(rater)
        partial = place / f".partial-{os.getpid()}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            batch.write_parquet(partial)
            partial.replace(place / f"{len(list(place.glob('*.parquet'))):08}.parquet")
        except (OSError, pl.exceptions.ComputeError) as error:  # polars calls a full disk a fault of the file
            raise MidtrainError(
                f"ratings: cannot be kept in {place}: {error}; see to room and permissions there, then run again"
            ) from None

    def clear(self) -> None:
        """Forget all: the table has it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _place(self, rater: Rater) -> Path:
        return self.folder / f"{rater.name}-{rater.version}"


@contextmanager
def journal_of(folder: Path, waiting: Callable[[str], None] | None = None) -> Iterator[Journal]:
    """A source's journal for this run alone, cleared when all went well.

    Of two runs at once the second waits (`waiting` is told) and finds the documents rated; see `locks.alone` for how long.
    """
    with alone(folder.with_name(f"{folder.name}.lock"), f"ratings of {folder.name}", waiting=waiting):
        journal = Journal(folder)
        yield journal
        journal.clear()


def completed(
    documents: pl.DataFrame,
    stored: pl.DataFrame | None,
    raters: Sequence[Rater],
    journal: Journal,
    score: Callable[[Sequence[Rater], pl.DataFrame], Iterable[pl.DataFrame]],
) -> pl.DataFrame:
    """Every rater's ratings of documents (id, text, text_hash), sorted by id; see `rate.rate` for the columns.

    What is `stored`, and what the journal has, is not rated again: only the rest goes to `score`, which yields its ratings batch by
    batch, and each is in the journal before the next is asked for. Raters that lack the same documents are asked together, so that
    those over one encoder can share its embeddings.
    """
    known = rate(documents.clear(), raters) if stored is None else stored
    ratings = known.join(documents.select("id", "text_hash"), on=["id", "text_hash"], how="semi")
    for rater in raters:
        ratings = merged(ratings, pl.concat([rate(documents.clear(), [rater]), *journal.read(rater, documents)]))
    together: dict[int, list[Rater]] = {}
    lacking = [unrated(documents, ratings, rater) for rater in raters]
    for rater, todo in zip(raters, lacking, strict=True):
        first = next(n for n, other in enumerate(lacking) if other["id"].equals(todo["id"]))
        together.setdefault(first, []).append(rater)
    for number, group in together.items():
        fresh = [rate(documents.clear(), group)]
        for batch in score(group, lacking[number]):
            for rater in group:
                journal.write(rater, batch.select("id", "text_hash", *columns(rater)))
            fresh.append(batch)
        ratings = merged(ratings, pl.concat(fresh))
    return ratings.select("id", "text_hash", *(name for rater in raters for name in columns(rater)))


def columns(rater: Rater) -> tuple[str, str]:
    """Of a rater's score and of its version."""
    return rater.name, f"{rater.name}_version"
