"""Dated snapshots of one source (a crawl a month): each is collected on its own, and the newest text of a page counts.

A source has snapshots where its location names `{snapshot}`: `/data/crawl/{snapshot}/*.warc.gz`. Their names sort by age, as
dates do. `snapshot_members` says which snapshot holds which text of which document; a document is the row of the newest snapshot
that holds it. A snapshot whose files are gone stays: crawls are deleted to save room.
"""

import glob
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.documents import Batch, documents, rejected
from midtrain_dagster.refresh import Refreshed, fingerprint
from midtrain_dagster.tables import Record, Tables, add, digest

MARK = "{snapshot}"
MEMBERS = "snapshot_members"
EMPTY = pl.DataFrame(schema={"id": pl.String, "text_hash": pl.String, "snapshot": pl.String})


def has_snapshots(location: str) -> bool:
    """Whether a source's location names snapshots."""
    return MARK in location


def at(location: str, name: str) -> str:
    """The location of one snapshot."""
    return location.replace(MARK, name)


def names(location: str, root: Path) -> list[str]:
    """The snapshots that are there now, oldest first."""
    full = location if Path(location).expanduser().is_absolute() else f"{glob.escape(str(root.resolve()))}/{location}"
    before, after = str(Path(full).expanduser()).split(MARK, 1)
    rest = after.split("/", 1)[0]
    shape = re.compile(re.escape(Path(before).name if not before.endswith("/") else "") + r"([^/]+)" + _pattern(rest))
    found = {Path(path).name for path in glob.glob(f"{before}*{rest}")}
    return sorted(match.group(1) for name in found if (match := shape.fullmatch(name)))


def _pattern(rest: str) -> str:
    """What follows the name in the same part of a path, wildcards and all."""
    return "".join(".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", rest))


def refresh(
    tables: Tables,
    *,
    source: str,
    base: str,
    outside: Mapping[str, str],
    batches: Callable[[str], Iterable[Batch]],
) -> Refreshed:
    """Bring a source up to date with some of its snapshots: name → fingerprint of what is outside.

    Only snapshots that are new or have changed are read. New code or settings (`base`) read all that are named again.
    """
    asset = f"raw_documents/{source}"
    last = tables.record("raw_documents", asset)
    done: dict[str, str] = dict(last.about.get("snapshots", {})) if last else {}
    marks = {name: fingerprint(base, now) for name, now in outside.items()}
    todo = [name for name in sorted(marks) if done.get(name) != marks[name]]
    if last and not todo:
        return Refreshed(False, 0, 0, last.rows, last.digest, tables.version("raw_documents"), last.about)
    stored = tables.read("raw_documents", source).select("id", "text_hash") if last else EMPTY.select("id", "text_hash")
    known = tables.read(MEMBERS, source).drop("source") if tables.exists(MEMBERS) else EMPTY
    members, read, lost = known.filter(~pl.col("snapshot").is_in(todo)), documents([]), rejected([])
    while todo:
        for name in todo:
            for batch in batches(name):
                members = pl.concat([members, batch.documents.select("id", "text_hash", snapshot=pl.lit(name))])
                read, lost = pl.concat([read, batch.documents]), pl.concat([lost, batch.rejected])
        read = read.unique(["id", "text_hash"], keep="first", maintain_order=True)
        members = members.unique(maintain_order=True)
        wanted = members.sort("snapshot", "id").unique("id", keep="last", maintain_order=True)
        there = pl.concat([stored, read.select("id", "text_hash")])
        # A text that a newer one had replaced is wanted again: its snapshot is read once more.
        missing = wanted.join(there, on=["id", "text_hash"], how="anti")
        todo = sorted(set(missing["snapshot"]) & set(outside))
    return _commit(tables, source, last, stored, wanted, members, read, lost, {**done, **marks}, base)


def _commit(
    tables: Tables,
    source: str,
    last: Record | None,
    stored: pl.DataFrame,
    wanted: pl.DataFrame,
    members: pl.DataFrame,
    read: pl.DataFrame,
    lost: pl.DataFrame,
    done: dict[str, str],
    base: str,
) -> Refreshed:
    """Members and rejects first; the documents, whose record says what is done, last."""
    asset, mark = f"raw_documents/{source}", fingerprint(base, done)
    kinds = {"source": pl.lit(source)}
    for name, frame in ((MEMBERS, members), ("rejected_records", lost)):
        rows = frame.with_columns(**kinds)
        if len(rows) or tables.record(name, asset):
            tables.commit(name, source, rows, Record(asset, mark, base, digest(rows), len(rows), {}, {}), replace=True)
    new = read.join(wanted, on=["id", "text_hash"], how="semi").join(stored, on=["id", "text_hash"], how="anti")
    gone = stored.join(wanted, on=["id", "text_hash"], how="anti")["id"]
    rows, found, count = new, digest(new), len(new)
    if last and len(gone):
        kept = tables.read("raw_documents", source).filter(~pl.col("id").is_in(gone.implode()))
        rows = pl.concat([kept, new], how="diagonal_relaxed")
        found, count = digest(rows), len(rows)
    elif last:
        found, count = add(last.digest, found), last.rows + count
    counts: dict[str, Any] = {"kept": count, "rejected": len(lost), "snapshots": done}
    record = Record(asset, mark, base, found, count, {}, counts)
    version = tables.commit("raw_documents", source, rows, record, replace=not last or bool(len(gone)))
    return Refreshed(last is None or last.digest != found, len(new), len(gone), count, found, version, counts)
