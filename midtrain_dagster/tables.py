"""Versioned tables of documents and attributes, kept with Delta Lake.

Every table is partitioned by `source`. A commit carries a `Record`: which asset made it, from which versions of which
tables, with which code and configuration, and a digest of the content. So the table itself says whether an asset is up to
date, and a run that was killed leaves either the old version or the new one.

Anyone can read the tables: DuckDB through `relation`, Polars through `scan`, both at a pinned version.
"""

import atexit
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import EllipsisType
from typing import Any, NamedTuple

import duckdb
import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.pieces import KEYS, Pieces, collected, said
from midtrain_dagster.store import Store

# A record is looked up in the table's log, so the log is kept for good; checkpoints keep reading it cheap.
CONFIGURATION = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
# When it was collected says nothing of what was collected, and the text is covered by its hash.
NOT_CONTENT = ("text", "collected")
NOTHING = "0" * 32  # digest of no rows
RETRIES = 20


class Record(NamedTuple):
    """How a commit came about."""

    asset: str  # key of the asset, as in `clean_documents/web`
    fingerprint: str  # of code, configuration and input digests: equal fingerprint, nothing to do
    base: str  # of code and configuration alone: equal base, only changed documents need work
    digest: str  # of the content of this asset's rows after the commit
    rows: int  # rows of this asset after the commit
    reads: dict[str, int]  # table read → its version
    about: dict[str, Any]  # counts, settings, package versions: whatever the stage wants remembered


class DataFile(NamedTuple):
    """A local Parquet file of rows of one source, without the `source` column."""

    path: Path
    rows: int


class Changes(NamedTuple):
    """What differs between two versions of a source in a table."""

    new: Pieces  # rows that are new, or have a new text_hash or another value in a column that is followed
    gone: list[str]  # ids that are no longer there, or whose row in `new` replaces an older one
    old: Pieces  # the rows that these ids had


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
        return _files(self.open(name, version), source)

    def scan(self, name: str, source: str | None = None, version: int | None = None) -> pl.LazyFrame:
        """Rows of a version, as a lazy frame with the `source` column."""
        return self.pieces(name, source, version).lazy()

    def read(self, name: str, source: str | None = None, version: int | None = None) -> pl.DataFrame:
        """Rows of a version. Raises Unreadable where one of its files is gone or damaged."""
        return collected(name, self.scan(name, source, version))

    def pieces(self, name: str, source: str | None = None, version: int | None = None) -> Pieces:
        """Rows of a version, to be read in bounded memory."""
        table = self.open(name)
        files = _files(table if version is None else self.open(name, version), source)
        return Pieces(name, files, pl.Schema(table.schema()), self.storage_options)

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

    def changes(self, name: str, source: str, since: int | None, about: Sequence[str] = ()) -> Changes:
        """Rows of a source that are new since a version (all of them for None), and ids that went with the rows they had.

        A row is another one where its text is, or where one of the columns `about` has another value. Only files that were added or removed between the two versions are read, so the cost grows with the change.
        Raises Unreadable where one of these is gone or damaged.
        """
        now = self.pieces(name, source)
        before = [] if since is None else self.files(name, since, source)
        added, removed = sorted(set(now.files) - set(before)), sorted(set(before) - set(now.files))
        new = now._replace(files=added)
        old = new._replace(files=removed)
        if not removed:
            return Changes(new, [], old)
        keys, then, alike = new.keys(about), old.keys(about), [*KEYS, *about]
        gone = then.join(keys, on=alike, how="anti", nulls_equal=True).select(KEYS).unique()
        fresh = keys.join(then, on=alike, how="anti", nulls_equal=True).select(KEYS).unique()
        return Changes(new._replace(wanted=fresh), sorted(set(gone["id"])), old._replace(wanted=gone))

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
        return self._commit(name, record, after, lambda table: self._write(name, table, source, rows, record, replace))

    def take_over(
        self,
        name: str,
        source: str,
        files: Sequence[DataFile],
        schema: pl.Schema,
        record: Record,
        replace: bool,
        after: Record | EllipsisType | None = ...,
    ) -> int:
        """The same for rows that are in files already: they move into the table as they are. `schema`: their columns, and
        `source`."""
        actions = self._moved(name, source, files)
        return self._commit(
            name, record, after, lambda table: self._write_files(name, table, source, actions, schema, record, replace)
        )

    def _commit(
        self, name: str, record: Record, after: Record | EllipsisType | None, write: Callable[[DeltaTable | None], int]
    ) -> int:
        expected = self.record(name, record.asset) if after is ... else after
        for attempt in range(RETRIES):
            table = self.open(name) if self.exists(name) else None
            if (_newest(table, record.asset) if table else None) != expected:
                raise MidtrainError(f"{record.asset}: another run has just written it; run again")
            try:
                return write(table)
            except CommitFailedError:
                time.sleep(0.01 * attempt)
            except (DeltaError, OSError) as error:
                if table is None and self.exists(name):
                    continue  # another writer has just created it
                raise unwritten(name, self.root, error) from None
        raise MidtrainError(f"table {name}: other writers kept getting in first, {RETRIES} times; run again")

    def _write(
        self, name: str, table: DeltaTable | None, source: str | None, rows: pl.DataFrame, record: Record, replace: bool
    ) -> int:
        """One try: it fails where anyone has committed after the version that `table` is open at."""
        options: dict[str, Any] = {"mode": "overwrite" if replace else "append", "commit_properties": _properties(record)}
        if table is None:
            self._create(name, rows, options)
            return 0
        if replace and source is not None:
            options["predicate"] = f"source = '{source}'"
        options["schema_mode"] = "overwrite" if replace and source is None else "merge"
        before = table.version()
        write_deltalake(table, _whole(rows), **options)
        return int(before) + 1

    def _create(self, name: str, rows: pl.DataFrame, options: Mapping[str, Any]) -> None:
        layout: dict[str, Any] = {"mode": "error", "partition_by": ["source"], "configuration": CONFIGURATION}
        write_deltalake(self.uri(name), _whole(rows), storage_options=self.storage_options, **{**options, **layout})

    def _write_files(
        self,
        name: str,
        table: DeltaTable | None,
        source: str,
        actions: Sequence[AddAction],
        schema: pl.Schema,
        record: Record,
        replace: bool,
    ) -> int:
        """One try. A table that is not there yet is created empty first, one that lacks columns gets them: both without a
        record, so that nothing follows from them."""
        if table is None:
            self._create(name, pl.DataFrame(schema=schema), {})
            table = self.open(name)
        there = {field.name for field in table.schema().fields}
        if lacking := [field for field in _fields(schema).fields if field.name not in there]:
            table.alter.add_columns(lacking, commit_properties=CommitProperties(max_commit_retries=0))
        before = table.version()
        table.create_write_transaction(
            list(actions),
            "overwrite" if replace else "append",
            table.schema(),
            ["source"],
            partition_filters=[("source", "=", source)] if replace else None,
            commit_properties=_properties(record),
        )
        return int(before) + 1

    def _moved(self, name: str, source: str, files: Sequence[DataFile]) -> list[AddAction]:
        """The files where the table keeps its own; they belong to it once the log names them."""
        actions = []
        for file in files:
            path, size = f"source={source}/{file.path.name}", file.path.stat().st_size
            try:
                if "://" in self.root:
                    Store(self.uri(name), self.storage_options).upload(file.path, path)
                else:
                    there = Path(self.uri(name)) / path
                    there.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file.path, there)
            except OSError as error:
                raise unwritten(name, self.root, error) from None
            rows = json.dumps({"numRecords": file.rows})
            actions.append(AddAction(path, size, {"source": source}, int(time.time() * 1000), True, rows))
        return actions


def _files(table: DeltaTable, source: str | None) -> list[str]:
    return sorted(uri for uri in table.file_uris() if source is None or f"/source={source}/" in uri)


def _whole(rows: pl.DataFrame) -> Any:
    """In one chunk: the writer deals chunks out to its threads, and their order would be chance."""
    return rows.rechunk().to_arrow()


def _properties(record: Record) -> CommitProperties:
    written = json.dumps(record._asdict(), sort_keys=True)
    return CommitProperties(custom_metadata={"midtrain": written}, max_commit_retries=0)


def stored_as(schema: pl.Schema) -> pl.Schema:
    """The types that a table keeps these columns in: Delta has no unsigned integers, for one."""
    return pl.Schema(_fields(schema))


def _fields(schema: pl.Schema) -> Schema:
    return Schema.from_arrow(pl.DataFrame(schema=schema).to_arrow().schema)


def unwritten(name: str, root: str, error: Exception) -> MidtrainError:
    """What to say where a table could not be written."""
    return MidtrainError(
        f"table {name}: could not be written in {root}, nothing of it was changed: {said(error)}; "
        "see to room and permissions there, then run again"
    )


def _newest(table: DeltaTable, asset: str) -> Record | None:
    for limit in (8, 64, None):  # each entry is a file of the log: a request each in an object store
        for entry in table.history(limit):
            if "midtrain" in entry:
                record = json.loads(entry["midtrain"])
                if record["asset"] == asset:
                    return Record(**record)
    return None


# The annotation is a string: as an object it would hold DuckDB's module beyond the interpreter's end, and a screen of "nanobind: leaked" follows.
def database(path: str = ":memory:", **config: str) -> "duckdb.DuckDBPyConnection":
    """A DuckDB connection of its own; the module's shared one refuses a second thread. Without a progress bar, which would be
    written to standard output, where programs read answers."""
    connection = duckdb.connect(path, config=dict(config))
    connection.execute("SET enable_progress_bar = false")
    return connection


_SHARED: dict[int, Any] = {}  # process → its database: a fork's is not its parent's
_OPENING = Lock()


@contextmanager
def session() -> Iterator["duckdb.DuckDBPyConnection"]:
    """A connection to the process's shared database, which saves the 30 ms of a start: what is temporary goes with it.
    What sets anything takes a `database` of its own."""
    with _OPENING:
        if os.getpid() not in _SHARED:
            _SHARED[os.getpid()] = database()
            atexit.register(_SHARED.clear)
        own = _SHARED[os.getpid()].cursor()
    with own:
        yield own


def digest(frame: pl.DataFrame) -> str:
    """Digest of a table's content, 32 hex digits: the same rows give the same digest in whatever order.

    A sum of row hashes, so the digest of a union of disjoint tables is `add` of theirs: appending costs what is appended.
    A row has only the columns in which it has something, so rows that are there keep theirs when a table gets more columns.
    Text is represented by its hash; when a document was collected does not count.
    """
    content = frame.select(sorted(column for column in frame.columns if column not in NOT_CONTENT))
    if not len(content):
        return NOTHING
    values = ", ".join(f"{_quoted(name)} || to_json({_identifier(name)})" for name in content.columns)
    rows = f"(select concat_ws(',', {values}) as r from content)"  # which leaves nulls out
    query = f"select sum(md5_number_lower(r))::varchar, sum(md5_number_upper(r))::varchar from {rows}"
    with session() as con:
        con.register("content", content.to_arrow())
        low, high = (int(part) % (1 << 64) for part in con.execute(query).fetchall()[0])
    return f"{high:016x}{low:016x}"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(name: str) -> str:
    """A column's name as SQL text of its JSON string and a colon."""
    return "'" + f"{json.dumps(name)}:".replace("'", "''") + "'"


def add(first: str, second: str, sign: int = 1) -> str:
    """Digest of two disjoint tables together, or with sign -1 of what remains when `second` is taken away."""
    halves = [(int(a, 16) + sign * int(b, 16)) % (1 << 64) for a, b in ((first[:16], second[:16]), (first[16:], second[16:]))]
    return f"{halves[0]:016x}{halves[1]:016x}"
