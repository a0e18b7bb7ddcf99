"""Ratings as they come, on the local disk until their table has them: a rating that was cut short goes on where it stopped."""

import os
import shutil
from pathlib import Path

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.rate import Rater


class Journal:
    """Batches of ratings that a source's raters have finished; each is a file of its own, there as a whole or not at all."""

    def __init__(self, folder: Path):
        """`folder` is a cache: its loss costs rating again and nothing else."""
        self.folder = folder

    def read(self, rater: Rater, documents: pl.DataFrame) -> list[pl.DataFrame]:
        """What this version of a rater has said of these documents (id, text_hash), batch by batch."""
        keys = documents.select("id", "text_hash")
        found = [pl.read_parquet(file) for file in sorted(self._place(rater).glob("*.parquet"))]
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
