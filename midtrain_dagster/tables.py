"""Versioned tables of documents and attributes, kept with Delta Lake.

Every table is partitioned by `source`. A commit carries a `Record`: which asset made it, from which versions of which
tables, with which code and configuration, and a digest of the content. So the table itself says whether an asset is up to
date, and a run that was killed leaves either the old version or the new one.

Anyone can read the tables: DuckDB through `relation`, Polars through `scan`, both at a pinned version.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple

import duckdb
import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.store import Store

# A record is looked up in the table's log, so the log is kept for good; checkpoints keep reading it cheap.
CONFIGURATION = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
# When it was collected says nothing of what was collected, and the text is covered by its hash.
NOT_CONTENT = ("text", "collected")
RETRIES = 20


class Unreadable(MidtrainError):
    """A file of a table is gone or damaged."""


class Record(NamedTuple):
    """How a commit came about."""

    asset: str  # key of the asset, as in `clean_documents/web`
    fingerprint: str  # of code, configuration and input digests: equal fingerprint, nothing to do
    base: str  # of code and configuration alone: equal base, only changed documents need work
    digest: str  # of the content of this asset's rows after the commit
    rows: int  # rows of this asset after the commit
    reads: dict[str, int]  # table read → its version
    about: dict[str, Any]  # counts, settings, package versions: whatever the stage wants remembered


class Changes(NamedTuple):
    """What differs between two versions of a source in a table."""

    new: pl.DataFrame  # rows that are new or have a new text_hash
    gone: list[str]  # ids that are no longer there, or whose row in `new` replaces an older one


class Tables:
    """All tables under one root: a directory, or the URI of an object store with its options.

    `cache` is a local directory for DuckDB, which reads a store's files from there; they never change, so none is stale.
    """

    def __init__(self, root: str | Path, storage_options: Mapping[str, str] | None = None, cache: Path | None = None):
        self.root, self.cache = str(root), cache
        self.storage_options = dict(storage_options or {}) or None

    def names(self, within: str = "") -> list[str]:
        """Every table there is below a folder (`selected_documents/`, or all), sorted."""
        if "://" in self.root:
            found = Store(self.root, self.storage_options).files(within.rstrip("/"))
            return sorted({path.partition("/_delta_log/")[0] for path in found if "/_delta_log/" in path})
        root = Path(self.root)
        return sorted(p.parent.relative_to(root).as_posix() for p in (root / within).rglob("_delta_log"))

    def uri(self, name: str) -> str:
        return f"{self.root}/{name}"

    def open(self, name: str, version: int | None = None) -> DeltaTable:
        """The table; MidtrainError where it was never written."""
        if not self.exists(name):
            raise MidtrainError(f"table {name} has not been written yet in {self.root}; materialize its asset first")
        return DeltaTable(self.uri(name), version=version, storage_options=self.storage_options)

    def exists(self, name: str) -> bool:
        return DeltaTable.is_deltatable(self.uri(name), storage_options=self.storage_options)

    def version(self, name: str) -> int:
        return int(self.open(name).version())

    def files(self, name: str, version: int | None = None, source: str | None = None) -> list[str]:
        """Parquet files of a version, of one source or of all, sorted."""
        uris = self.open(name, version).file_uris()
        return sorted(u for u in uris if source is None or f"/source={source}/" in u)

    def scan(self, name: str, source: str | None = None, version: int | None = None) -> pl.LazyFrame:
        """Rows of a version, as a lazy frame with the `source` column."""
        files = self.files(name, version, source)
        if not files:
            return pl.DataFrame(schema=self.schema(name)).lazy()
        return _scan(files, self.schema(name), self.storage_options)

    def read(self, name: str, source: str | None = None, version: int | None = None) -> pl.DataFrame:
        """Rows of a version. Raises Unreadable where one of its files is gone or damaged."""
        return _collect(name, self.scan(name, source, version))

    def schema(self, name: str) -> pl.Schema:
        return pl.Schema(self.open(name).schema())

    def relation(self, name: str, version: int | None = None, sources: list[str] | None = None) -> str:
        """SQL for DuckDB: `read_parquet([...])` of a pinned version. MidtrainError where there is nothing to read."""
        files = [f for f in self.files(name, version) if sources is None or any(f"/source={s}/" in f for s in sources)]
        if not files:
            raise MidtrainError(f"table {name} holds no rows{' of ' + ', '.join(sources) if sources else ''}")
        listed = ", ".join("'" + f.replace("'", "''") + "'" for f in self._at_hand(files))
        return f"read_parquet([{listed}], hive_partitioning=true, hive_types={{'source': VARCHAR}}, union_by_name=true)"

    def _at_hand(self, files: list[str]) -> list[str]:
        """The files as local paths, those of a store fetched into the cache."""
        if "://" not in self.root or self.cache is None:
            return files
        store = Store(self.root, self.storage_options)
        found = []
        for uri in files:
            path = uri.removeprefix(f"{self.root}/")
            if not (self.cache / path).exists():
                store.download(path, self.cache / path)
            found.append(str(self.cache / path))
        return found

    def record(self, name: str, asset: str) -> Record | None:
        """The newest record of an asset in a table, or None where it never committed."""
        return _newest(self.open(name), asset) if self.exists(name) else None

    def version_of(self, name: str, asset: str, fingerprint: str) -> int | None:
        """The newest version whose commit was made by this asset with this fingerprint, or None."""
        for entry in self.open(name).history():
            record = json.loads(entry.get("midtrain", "{}"))
            if record.get("asset") == asset and record.get("fingerprint") == fingerprint:
                return int(entry["version"])
        return None

    def records(self, name: str, version: int | None = None) -> list[Record]:
        """The record of each asset that a table holds at a version, sorted by asset."""
        newest: dict[str, Record] = {}
        for entry in self.open(name).history():
            if "midtrain" in entry and (version is None or entry["version"] <= version):
                record = Record(**json.loads(entry["midtrain"]))
                newest.setdefault(record.asset, record)
        return [newest[asset] for asset in sorted(newest)]

    def changes(self, name: str, source: str, since: int | None) -> Changes:
        """Rows of a source that are new since a version (all of them for None), and ids that went.

        Only files that were added or removed between the two versions are read, so the cost grows with the change.
        Raises Unreadable where one of these is gone or damaged.
        """
        now = self.files(name, source=source)
        before = [] if since is None else self.files(name, since, source)
        schema = self.schema(name)
        added, removed = sorted(set(now) - set(before)), sorted(set(before) - set(now))
        new = _collect(name, _scan(added, schema, self.storage_options)) if added else pl.DataFrame(schema=schema)
        if not removed:
            return Changes(new, [])
        old = _collect(name, _scan(removed, schema, self.storage_options).select("id", "text_hash"))
        fresh = new.join(old, on=["id", "text_hash"], how="anti")
        gone = old.join(new.select("id", "text_hash"), on=["id", "text_hash"], how="anti")["id"]
        return Changes(fresh, sorted(set(gone)))

    def commit(
        self,
        name: str,
        source: str | None,
        rows: pl.DataFrame,
        record: Record,
        replace: bool,
        after: Record | EllipsisType | None = ...,
    ) -> int:
        """Append rows of a source, or replace all of that source's rows (of every source for None), in one commit.

        Writers of other sources do not disturb each other. `after` is the asset's record that the work went out from (left
        out: the one that is there now). If another run has committed for the same asset since, MidtrainError is raised and
        nothing is written: its rows would be there twice. Returns the new version.
        """
        expected = self.record(name, record.asset) if after is ... else after
        for attempt in range(RETRIES):
            table = self.open(name) if self.exists(name) else None
            if (_newest(table, record.asset) if table else None) != expected:
                raise MidtrainError(f"{record.asset}: another run has just written it; run again")
            try:
                return self._write(name, table, source, rows, record, replace)
            except CommitFailedError:
                time.sleep(0.01 * attempt)
            except (DeltaError, OSError) as error:
                if table is None and self.exists(name):
                    continue  # another writer has just created it
                raise MidtrainError(
                    f"table {name}: could not be written in {self.root}, nothing of it was changed: {_said(error)}; "
                    "see to room and permissions there, then run again"
                ) from None
        raise MidtrainError(f"table {name}: other writers kept getting in first, {RETRIES} times; run again")

    def _write(
        self, name: str, table: DeltaTable | None, source: str | None, rows: pl.DataFrame, record: Record, replace: bool
    ) -> int:
        """One try: it fails where anyone has committed after the version that `table` is open at."""
        whole = rows.rechunk().to_arrow()  # the writer deals chunks out to its threads, and their order would be chance
        options: dict[str, Any] = {
            "mode": "overwrite" if replace else "append",
            "commit_properties": CommitProperties(
                custom_metadata={"midtrain": json.dumps(record._asdict(), sort_keys=True)}, max_commit_retries=0
            ),
        }
        if table is None:
            options |= {"mode": "error", "partition_by": ["source"], "configuration": CONFIGURATION}
            write_deltalake(self.uri(name), whole, storage_options=self.storage_options, **options)
            return 0
        if replace and source is not None:
            options["predicate"] = f"source = '{source}'"
        options["schema_mode"] = "overwrite" if replace and source is None else "merge"
        before = table.version()
        write_deltalake(table, whole, **options)
        return int(before) + 1


def _newest(table: DeltaTable, asset: str) -> Record | None:
    for limit in (8, 64, None):  # each entry is a file of the log: a request each in an object store
        for entry in table.history(limit):
            if "midtrain" in entry:
                record = json.loads(entry["midtrain"])
                if record["asset"] == asset:
                    return Record(**record)
    return None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _collect(name: str, frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.ComputeError, OSError) as error:
        raise Unreadable(
            f"table {name}: a file of it is gone or damaged: {_said(error)}; `midtrain storage repair` mends it"
        ) from None


def _scan(files: list[str], schema: pl.Schema, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    stored = pl.Schema({n: t for n, t in schema.items() if n != "source"})
    frame = pl.scan_parquet(
        files,
        schema=stored,
        hive_partitioning=True,
        hive_schema={"source": pl.String},
        missing_columns="insert",
        extra_columns="ignore",
        storage_options=storage_options,
    )
    return frame.select(list(schema))


# The annotation is a string: as an object it would hold DuckDB's module beyond the interpreter's end, and a screen of "nanobind: leaked" follows.
def database(path: str = ":memory:", **config: str) -> "duckdb.DuckDBPyConnection":
    """A DuckDB connection of its own; the module's shared one refuses a second thread.

    Without DuckDB's progress bar, which would be written to standard output, where programs read answers.
    """
    connection = duckdb.connect(path, config=dict(config))
    connection.execute("SET enable_progress_bar = false")
    return connection


def digest(frame: pl.DataFrame) -> str:
    """Digest of a table's content, 32 hex digits: the same rows give the same digest in whatever order.

    A sum of row hashes, so the digest of a union of disjoint tables is `add` of theirs: appending costs what is appended.
    Text is represented by its hash; when a document was collected does not count.
    """
    content = frame.select(sorted(column for column in frame.columns if column not in NOT_CONTENT))
    if not len(content):
        return "0" * 32
    rows = "(select to_json(content)::varchar as r from content)"
    query = f"select sum(md5_number_lower(r))::varchar, sum(md5_number_upper(r))::varchar from {rows}"
    with database() as con:
        low, high = (int(part) % (1 << 64) for part in con.execute(query).fetchall()[0])
    return f"{high:016x}{low:016x}"


def add(first: str, second: str, sign: int = 1) -> str:
    """Digest of two disjoint tables together, or with sign -1 of what remains when `second` is taken away."""
    halves = [(int(a, 16) + sign * int(b, 16)) % (1 << 64) for a, b in ((first[:16], second[:16]), (first[16:], second[16:]))]
    return f"{halves[0]:016x}{halves[1]:016x}"
