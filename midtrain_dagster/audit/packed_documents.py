"""Which documents were packed: from an id to its row number in `documents.parquet`, and from row numbers to rows.

On the first question the ids are read once, and what is kept is 12 bytes of each: a hash, sorted, and the row number it belongs
to. Rows are read by row group, which the packer makes small for it.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.tables import session

HASH = "md5_number_lower(id)::ubigint"  # the same with every version of everything, for it is kept


class PackedDocuments:
    """`documents.parquet` of packed sequences as an audit reads it. `cache`: where the index of its ids may be kept."""

    def __init__(self, file: Path, cache: Path):
        self.file, about = file, file.stat()
        self.place = cache / "packed_documents" / f"{file.parent.parent.name}-{about.st_size}-{about.st_mtime_ns}"

    def numbers(self, identifiers: pl.DataFrame) -> pl.DataFrame:
        """`id`, `document` (its row number) of those of a frame's ids that were packed, sorted by number."""
        asked = identifiers.select("id").unique()
        hashes, rows = self._index()
        with session() as con:
            con.register("asked", asked.to_arrow())
            wanted = con.sql(f"select {HASH} from asked").fetchnumpy().popitem()[1]
        low, high = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, side="right")
        met = [np.asarray(rows[a:b]) for a, b in zip(low, high, strict=True) if a < b]
        found = self.described(np.concatenate(met) if met else np.zeros(0, np.int64), ("id",))
        return found.join(asked, on="id", how="semi").select("id", "document").sort("document")

    def described(
        self, numbers: np.ndarray, columns: tuple[str, ...] = ("id", "text_hash", "source", "component")
    ) -> pl.DataFrame:
        """`document` and the columns of some row numbers, each once, sorted by number."""
        import pyarrow.parquet

        wanted = np.unique(numbers).astype(np.int64)
        with pyarrow.parquet.ParquetFile(self.file) as stored:
            about = stored.metadata
            ends = np.cumsum([0, *(about.row_group(group).num_rows for group in range(about.num_row_groups))])
            groups = np.searchsorted(ends, wanted, side="right") - 1
            parts = [pl.DataFrame(schema={"document": pl.Int64, **dict.fromkeys(columns, pl.String)})]
            for group in np.unique(groups):
                mine = wanted[groups == group]
                rows = pl.DataFrame(pl.from_arrow(stored.read_row_group(int(group), columns=list(columns))))
                parts.append(rows[mine - ends[group]].with_columns(document=pl.Series(mine)).select(parts[0].columns))
        return pl.concat(parts)

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all ids, sorted, and the row number of each."""
        if not (self.place / "rows.npy").exists():
            self._make_index()
        return np.load(self.place / "hashes.npy", mmap_mode="r"), np.load(self.place / "rows.npy", mmap_mode="r")

    def _make_index(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        file = str(self.file).replace("'", "''")
        with session() as con:
            read = f"select {HASH} as hash, file_row_number as row from read_parquet('{file}', file_row_number=true)"
            columns = con.sql(read).fetchnumpy()
        hashes, rows = columns["hash"], columns["row"]
        order = np.argsort(hashes)
        kind = np.uint32 if len(rows) < 1 << 32 else np.int64
        for name, values in (
            ("hashes", hashes[order]),
            ("rows", rows[order].astype(kind)),
        ):  # the last one says that both are there
            partial = self.place / f"{name}-{os.getpid()}.npy"
            np.save(partial, values)
            os.replace(partial, self.place / f"{name}.npy")
