"""Rows on their way into a table: in memory while they are few, beyond that in files which the table's commit takes over.

So a source of any size is written in bounded memory and still appears in one commit, or not at all.
"""

import shutil
import tempfile
from pathlib import Path
from types import EllipsisType
from typing import Any
from uuid import uuid4

import polars as pl

from midtrain_dagster.tables import NOTHING, DataFile, Record, Tables, add, digest, stored_as, unwritten

HELD = 64 << 20  # bytes of a frame that are held in memory; a row group of a file
FILE = 128 << 20  # bytes of a file
LEFT = ".partial-"  # begins the name of the folder that a killed run leaves behind


class Staged:
    """Rows of one source for one table. Use as a context: what is not committed goes with it."""

    def __init__(self, tables: Tables, name: str, source: str):
        self.tables, self.name, self.source = tables, name, source
        self.rows = 0
        self._held: list[pl.DataFrame] = []
        self._size = 0
        self._digest = NOTHING
        self._files: list[DataFile] = []
        self._schema = pl.Schema()
        self._folder: Path | None = None
        self._writer: Any = None

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *reason: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, frame: pl.DataFrame) -> None:
        """Take rows, with or without their `source`; a column that only some frames have is null in the others."""
        self._held.append(frame.with_columns(source=pl.lit(self.source)))
        self._size += int(self._held[-1].estimated_size())
        self.rows += len(frame)
        if self._size >= HELD:
            self._flush()

    def digest(self) -> str:
        """Of all rows so far."""
        return add(self._digest, digest(self._together())) if self._held else self._digest

    def commit(self, record: Record, replace: bool, after: Record | EllipsisType | None = ...) -> int:
        """Append the rows to the table, or put them in the place of the source's; see `Tables.commit`. Returns its version."""
        if self._folder is None:
            return self.tables.commit(self.name, self.source, self._together(), record, replace, after)
        if self._held:
            self._flush()
        self._close()
        return self.tables.take_over(self.name, self.source, self._files, self._schema, record, replace, after)

    def _together(self) -> pl.DataFrame:
        if len(self._held) > 1:
            self._held = [pl.concat(self._held, how="diagonal_relaxed")]
        return self._held[0]

    def _flush(self) -> None:
        """Write what is held as a row group."""
        import pyarrow.parquet

        frame = self._together()
        self._digest = add(self._digest, digest(frame))
        if self._folder is None:
            self._open()
        self._schema = pl.Schema({**stored_as(frame.schema), **self._schema})
        frame = frame.cast({name: self._schema[name] for name in frame.columns})
        rows = frame.drop("source").to_arrow(compat_level=pl.CompatLevel.oldest())
        try:
            if self._writer is not None and self._writer.schema != rows.schema:
                self._close()
            if self._writer is None:
                path = self._path = Path(str(self._folder)) / f"part-{len(self._files):05}-{uuid4()}.parquet"
                self._writer, self._written = pyarrow.parquet.ParquetWriter(path, rows.schema, compression="zstd"), 0
            self._writer.write_table(rows, row_group_size=max(1, len(rows)))
            self._written += len(rows)
            if self._path.stat().st_size >= FILE:
                self._close()
        except OSError as error:
            raise unwritten(self.name, self.tables.root, error) from None
        self._held, self._size = [], 0

    def _open(self) -> None:
        """Beside the tables, so that a file moves into its table without a copy; a store's are uploaded."""
        self._schema = self.tables.schema(self.name) if self.tables.exists(self.name) else pl.Schema()
        beside = None if "://" in self.tables.root else Path(self.tables.root)
        if beside is not None:
            beside.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=LEFT, dir=beside))

    def _close(self) -> None:
        """End the file that is being written."""
        if self._writer is not None:
            self._writer.close()
            self._files.append(DataFile(self._path, self._written))
            self._writer = None
