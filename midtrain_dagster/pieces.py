"""Rows of a table a piece at a time, so that memory does not grow with the table."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

from midtrain_dagster.errors import MidtrainError

PIECE = 128 << 20  # bytes of a frame
KEYS = ("id", "text_hash")


class Unreadable(MidtrainError):
    """A file of a table is gone or damaged."""


class Pieces(NamedTuple):
    """Rows of some files of a table: how many, and the rows themselves as often as they are wanted."""

    table: str
    files: Sequence[str]
    schema: pl.Schema  # with the `source` column
    options: dict[str, str] | None  # of the object store
    wanted: pl.DataFrame | None = None  # `id`, `text_hash` of the rows that count, each once; None: all of them

    def total(self) -> int:
        """How many rows there are. Raises Unreadable where a file is gone or damaged."""
        if self.wanted is not None:
            return len(self.wanted)
        return int(collected(self.table, self.lazy().select(pl.len())).item()) if self.files else 0

    def keys(self, about: Sequence[str] = ()) -> pl.DataFrame:
        """`id`, `text_hash` and the columns `about` of all rows: some hundred bytes of memory each."""
        if self.wanted is not None and not about:
            return self.wanted
        rows = self.lazy() if self.wanted is None else self.lazy().join(self.wanted.lazy(), on=KEYS, how="semi")
        return collected(self.table, rows.select(*KEYS, *about))

    def none(self) -> pl.DataFrame:
        """A frame of no rows."""
        return pl.DataFrame(schema=self.schema)

    def read(self) -> Iterator[pl.DataFrame]:
        """Frames of about PIECE bytes; nothing where there are no rows."""
        held, size = [], 0
        for frame in self._frames():
            held.append(frame)
            size += int(frame.estimated_size())
            if size >= PIECE:
                yield pl.concat(held)
                held, size = [], 0
        if held:
            yield pl.concat(held)

    def _frames(self) -> Iterator[pl.DataFrame]:
        for file in self.files if self.total() else ():
            try:
                for frame in scanned([file], self.schema, self.options).collect_batches(maintain_order=True):
                    if self.wanted is not None:
                        frame = frame.join(self.wanted, on=KEYS, how="semi", maintain_order="left")
                    if len(frame):
                        yield frame
            except (pl.exceptions.ComputeError, OSError) as error:
                raise _unreadable(self.table, error) from None

    def lazy(self) -> pl.LazyFrame:
        """All rows of the files, for a query of a few columns; `collected` carries it out."""
        return scanned(list(self.files), self.schema, self.options) if self.files else self.none().lazy()


def scanned(files: list[str], schema: pl.Schema, options: dict[str, str] | None) -> pl.LazyFrame:
    """Files of a table partitioned by source, as a lazy frame of its schema: what a file does not have is null."""
    stored = pl.Schema({n: t for n, t in schema.items() if n != "source"})
    frame = pl.scan_parquet(
        files,
        schema=stored,
        hive_partitioning=True,
        hive_schema={"source": pl.String},
        missing_columns="insert",
        extra_columns="ignore",
        storage_options=options,
    )
    return frame.select(list(schema))


def collected(table: str, frame: pl.LazyFrame) -> pl.DataFrame:
    """The rows of a lazy frame over a table's files; Unreadable where one is gone or damaged."""
    try:
        return frame.collect()
    except (pl.exceptions.ComputeError, OSError) as error:
        raise _unreadable(table, error) from None


def said(error: Exception) -> str:
    """An exception as one short line."""
    return " ".join(str(error).split())[:300]


def _unreadable(table: str, error: Exception) -> Unreadable:
    return Unreadable(f"table {table}: a file of it is gone or damaged: {said(error)}; `midtrain storage repair` mends it")
