"""Refreshing a table: do nothing where nothing changed, work on changed documents alone, everything only where the code,
the configuration or what the work depends on is new."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.documents import Batch, documents, rejected
from midtrain_dagster.tables import Record, Tables, Unreadable, add, digest

NONE = pl.DataFrame(schema={"id": pl.String, "text_hash": pl.String})
Frames = Mapping[str, pl.DataFrame]


class Refreshed(NamedTuple):
    """What a refresh did."""

    changed: bool  # whether anything was written
    worked: int  # documents that the stage worked on
    gone: int  # documents that were withdrawn from the output
    rows: int  # rows of this asset now
    digest: str  # of those rows: the data version
    version: int  # of the table
    about: dict[str, Any]


def fingerprint(*parts: Any) -> str:
    """Hash of anything that JSON can say, 16 hex digits."""
    said = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return blake2b(said.encode(), digest_size=8).hexdigest()


def by_document(
    tables: Tables,
    *,
    asset: str,
    reads: str,
    writes: Sequence[str],
    source: str,
    base: str,
    work: Callable[[pl.DataFrame], tuple[Frames, dict[str, Any]]],
    passing: pl.DataFrame | None = None,
) -> Refreshed:
    """Refresh what is computed document by document from a source of table `reads`.

    `base` is the fingerprint of code and configuration. `work` takes documents and returns a frame for each table in
    `writes`, keyed by `id`, and what to remember. The first of `writes` is the asset's own table: its commit comes last
    and carries the record, so a run killed in between is simply done again. `passing` (ids) is the gate: only these
    documents are worked on.
    """
    own = writes[0]
    found = {name: tables.record(name, asset) for name in writes}
    last = found[own]
    seen = {reads: tables.version(reads)}
    mark = fingerprint(
        base, seen, digest(passing.select("id")) if passing is not None else "", last.fingerprint if last else ""
    )
    if last and last.base == base and last.reads == seen and passing is None:
        return _unchanged(tables, own, last)
    afresh = last is None or last.base != base or None in found.values()
    if passing is None:
        new, gone, afresh = _changed(tables, source, reads, None if afresh or last is None else last.reads[reads])
    else:
        new, gone = _gated(tables, own, source, reads, afresh, passing)
    if last and not afresh and not len(new) and not gone:
        return _unchanged(tables, own, last) if last.reads == seen else _remember(tables, own, source, last, seen)
    standing = {} if afresh or last is None else {n: _standing(tables, n, asset, source, last, found[n], gone) for n in writes}
    frames, about = work(new)
    for name in reversed(writes):
        before = found[name]
        if before is not None and before.fingerprint == mark:
            continue  # by a run that was killed before it came to the end
        rows = frames[name].with_columns(source=pl.lit(source))
        kept = standing.get(name)
        if kept is not None:
            rows = pl.concat([kept, rows], how="diagonal_relaxed")
        if afresh or kept is not None or before is None:
            content, count = digest(rows), len(rows)
        else:
            content, count = add(before.digest, digest(rows)), before.rows + len(rows)
        record = Record(asset, mark, base, content, count, seen, about if name == own else {})
        tables.commit(name, source, rows, record, replace=afresh or kept is not None, after=before)
    final = tables.record(own, asset)
    assert final is not None
    return Refreshed(True, len(new), len(gone), final.rows, final.digest, tables.version(own), about)


def _changed(tables: Tables, source: str, reads: str, since: int | None) -> tuple[pl.DataFrame, list[str], bool]:
    """What is new and what went since a version, and whether everything is to be done again: for None, or where a file of
    that version is no longer to be read (vacuumed away, or damaged and repaired since)."""
    if since is not None:
        try:
            return (*tables.changes(reads, source, since), False)
        except Unreadable:
            pass
    return (*tables.changes(reads, source, None), True)


def _standing(
    tables: Tables, name: str, asset: str, source: str, last: Record, before: Record | None, gone: list[str]
) -> pl.DataFrame | None:
    """The rows that stay, where a table has to be replaced; None where it is enough to append.

    A killed run may have left a table ahead of the asset's own, and what it worked on may have changed again since. Such a
    table goes on from its version that belongs to the last finished run.
    """
    assert before is not None
    version = None if before.fingerprint == last.fingerprint else tables.version_of(name, asset, last.fingerprint)
    if not gone and version is None:
        return None
    return tables.read(name, source, version).join(pl.DataFrame({"id": gone}, {"id": pl.String}), on="id", how="anti")


def whole(
    tables: Tables,
    *,
    asset: str,
    name: str,
    base: str,
    inputs: Mapping[str, str],
    reads: Mapping[str, int],
    source: str | None,
    work: Callable[[], tuple[pl.DataFrame, dict[str, Any]]],
) -> Refreshed:
    """Refresh a table (or one source of it) that is computed as a whole: a query, a clustering.

    `inputs` are digests of what it is computed from, `reads` the table versions to remember.
    """
    last = tables.record(name, asset)
    mark = fingerprint(base, dict(inputs))
    if last and last.fingerprint == mark:
        return _unchanged(tables, name, last)
    rows, about = work()
    found = digest(rows)
    record = Record(asset, mark, base, found, len(rows), dict(reads), about)
    version = tables.commit(name, source, rows, record, replace=True, after=last)
    return Refreshed(last is None or last.digest != found, len(rows), 0, len(rows), found, version, about)


def _gated(
    tables: Tables, own: str, source: str, reads: str, afresh: bool, passing: pl.DataFrame
) -> tuple[pl.DataFrame, list[str]]:
    """With a gate, what is to do follows from who passes it now, not from what changed in the table."""
    documents = tables.read(reads, source).join(passing.select("id"), on="id", how="semi")
    if afresh:
        return documents, []
    done = tables.scan(own, source).select("id", "text_hash").unique().collect()
    new = documents.join(done, on=["id", "text_hash"], how="anti")
    gone = done.join(documents.select("id", "text_hash"), on=["id", "text_hash"], how="anti")["id"]
    return new, sorted(set(gone))


def _unchanged(tables: Tables, name: str, last: Record) -> Refreshed:
    return Refreshed(False, 0, 0, last.rows, last.digest, tables.version(name), last.about)


def _remember(tables: Tables, name: str, source: str, last: Record, reads: dict[str, int]) -> Refreshed:
    """Other sources moved the table on; note the version so that the next look is short again."""
    record = last._replace(reads=reads)
    tables.commit(name, source, tables.read(name, source).clear(), record, replace=False, after=last)
    return _unchanged(tables, name, record)


def from_outside(
    tables: Tables,
    *,
    asset: str,
    name: str,
    source: str,
    base: str,
    outside: str,
    batches: Callable[[], Iterable[Batch]],
) -> Refreshed:
    """Refresh a source's documents from what is outside the lake: files, a crawl, a teacher.

    `outside` is the fingerprint of what is there; where it is unchanged nothing is read. Otherwise everything is read and
    compared: documents that are there already keep their row and the time they were collected, new ones are added,
    vanished ones withdrawn. Rejects go to `rejected_records`.
    """
    last = tables.record(name, asset)
    mark = fingerprint(base, outside)
    if last and last.fingerprint == mark:
        return _unchanged(tables, name, last)
    stored = tables.read(name, source).select("id", "text_hash") if last else NONE
    new, seen, lost = _compare(batches(), stored)
    gone = stored.join(seen, on=["id", "text_hash"], how="anti")["id"].unique().sort()
    reasons = dict(lost.group_by("reason").len().sort("reason").iter_rows())
    about: dict[str, Any] = {
        "read": len(seen) + len(lost),
        "kept": len(seen),
        "rejected": len(lost),
        "rejected because": reasons,
    }
    marked = Record(asset, mark, base, digest(lost), len(lost), {}, {})
    if len(lost) or tables.record("rejected_records", asset):
        tables.commit("rejected_records", source, lost.with_columns(source=pl.lit(source)), marked, replace=True)
    rows, found, count = new, digest(new), len(new)
    if last and len(gone):
        kept = tables.read(name, source).filter(~pl.col("id").is_in(gone.implode()))
        rows = pl.concat([kept, new], how="diagonal_relaxed")
        found, count = digest(rows), len(rows)
    elif last:
        found, count = add(last.digest, found), last.rows + count
    record = Record(asset, mark, base, found, count, {}, about)
    version = tables.commit(name, source, rows, record, replace=not last or bool(len(gone)), after=last)
    return Refreshed(last is None or found != last.digest, len(new), len(gone), count, found, version, about)


def _compare(batches: Iterable[Batch], stored: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """New documents; (id, text_hash) of all that were read; rejects."""
    new, seen, lost = [documents([])], [stored.clear()], [rejected([])]
    for batch in batches:
        new.append(batch.documents.join(stored, on=["id", "text_hash"], how="anti"))
        seen.append(batch.documents.select("id", "text_hash"))
        lost.append(batch.rejected)
    return pl.concat(new), pl.concat(seen), pl.concat(lost)
