"""Refreshing a table: do nothing where nothing changed, work on changed documents alone, everything only where the code,
the configuration or what the work depends on is new."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.pieces import KEYS, Pieces, Unreadable
from midtrain_dagster.staging import Staged
from midtrain_dagster.tables import Record, Tables, add, digest

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
    seen_by: str | None = None,
    besides: Mapping[str, int] | None = None,
    follows: Sequence[str] = (),
    again: bool = False,
) -> Refreshed:
    """Refresh what is computed document by document from a source of table `reads`.

    `base` is the fingerprint of code and configuration. `work` takes a bounded piece of the documents and returns a frame for
    each table in `writes`, keyed by `id`, and what to remember, which is added up over the pieces. The first of `writes` is the asset's own table: its commit comes last
    and carries the record, so a run killed in between is simply done again. `passing` (ids) is the gate: only these
    documents are worked on. `seen_by` is the one of `writes` that has a row for every document worked on, where the first has not:
    with a gate it tells what is done. `besides` are versions of other tables to remember. `follows` are columns
    whose change makes a document another one, as its text does. `again`: work on everything.
    """
    own = writes[0]
    found = {name: tables.record(name, asset) for name in writes}
    last = found[own]
    seen = {reads: tables.version(reads), **(besides or {})}
    mark = fingerprint(
        base, seen, digest(passing.select("id")) if passing is not None else "", last.fingerprint if last else ""
    )
    if last and last.base == base and last.reads == seen and passing is None and not again:
        return unchanged(tables, own, last)
    afresh = again or last is None or last.base != base or None in found.values()
    if passing is None:
        new, gone, afresh = _changed(tables, source, reads, None if afresh or last is None else last.reads[reads], follows)
    else:
        new, gone = _gated(tables, seen_by or own, source, reads, afresh, passing)
    count = new.total()
    if last and not afresh and not count and not gone:
        return unchanged(tables, own, last) if last.reads == seen else _remember(tables, own, source, last, seen)
    standing = {} if afresh or last is None else {n: _standing(tables, n, asset, source, last, found[n], gone) for n in writes}
    with ExitStack() as stack:
        staged = {name: stack.enter_context(Staged(tables, name, source)) for name in writes}
        for name, kept in standing.items():
            keep(staged[name], kept, gone)
        about = _work(new, work, staged)
        for name in reversed(writes):
            before = found[name]
            if before is not None and before.fingerprint == mark:
                continue  # by a run that was killed before it came to the end
            replace = afresh or before is None or standing[name] is not None
            content, rows = staged[name].digest(), staged[name].rows
            if before is not None and not replace:
                content, rows = add(before.digest, content), before.rows + rows
            record = Record(asset, mark, base, content, rows, seen, about if name == own else {})
            staged[name].commit(record, replace, after=before)
    final = tables.record(own, asset)
    assert final is not None
    return Refreshed(True, count, len(gone), final.rows, final.digest, tables.version(own), about)


def _work(
    new: Pieces, work: Callable[[pl.DataFrame], tuple[Frames, dict[str, Any]]], staged: Mapping[str, Staged]
) -> dict[str, Any]:
    """Work on one piece after another; once on no documents where there are none, for the columns."""
    pieces = new.read()
    about: dict[str, Any] = {}
    for piece in chain([next(pieces, new.none())], pieces):
        frames, told = work(piece)
        for name, rows in staged.items():
            rows.add(frames[name])
        about = _sum(about, told)
    return about


def _sum(first: Any, second: Any) -> Any:
    """Counts of two pieces together."""
    if isinstance(first, dict) and isinstance(second, dict):
        both = {**first, **second}
        return {key: _sum(first[key], second[key]) if key in first and key in second else both[key] for key in both}
    return first + second if isinstance(first, int | float) else second


def keep(staged: Staged, kept: Pieces | None, gone: Sequence[str]) -> None:
    """Take over the rows of a version, without those of some documents."""
    out = pl.DataFrame({"id": gone}, {"id": pl.String})
    for piece in kept.read() if kept is not None else ():
        staged.add(piece.join(out, on="id", how="anti", maintain_order="left"))


def _changed(
    tables: Tables, source: str, reads: str, since: int | None, follows: Sequence[str]
) -> tuple[Pieces, list[str], bool]:
    """What is new and what went since a version, and whether everything is to be done again: for None, or where a file of
    that version is no longer to be read (vacuumed away, or damaged and repaired since)."""
    if since is not None:
        try:
            new, gone, _ = tables.changes(reads, source, since, follows)
            return new, gone, False
        except Unreadable:
            pass
    return tables.changes(reads, source, None).new, [], True


def _standing(
    tables: Tables, name: str, asset: str, source: str, last: Record, before: Record | None, gone: list[str]
) -> Pieces | None:
    """The version whose rows stay, where a table has to be replaced; None where it is enough to append.

    A killed run may have left a table ahead of the asset's own, and what it worked on may have changed again since. Such a
    table goes on from its version that belongs to the last finished run.
    """
    assert before is not None
    version = None if before.fingerprint == last.fingerprint else tables.version_of(name, asset, last.fingerprint)
    if not gone and version is None:
        return None
    return tables.pieces(name, source, version)


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
        return unchanged(tables, name, last)
    rows, about = work()
    found = digest(rows)
    record = Record(asset, mark, base, found, len(rows), dict(reads), about)
    version = tables.commit(name, source, rows, record, replace=True, after=last)
    return Refreshed(last is None or last.digest != found, len(rows), 0, len(rows), found, version, about)


def _gated(tables: Tables, own: str, source: str, reads: str, afresh: bool, passing: pl.DataFrame) -> tuple[Pieces, list[str]]:
    """With a gate, what is to do follows from who passes it now, not from what changed in the table."""
    every = tables.pieces(reads, source)
    documents = every.keys().join(passing.select("id"), on="id", how="semi")
    if afresh:
        return every._replace(wanted=documents), []
    done = tables.pieces(own, source).keys().unique()
    gone = done.join(documents, on=KEYS, how="anti")["id"]
    return every._replace(wanted=documents.join(done, on=KEYS, how="anti")), sorted(set(gone))


def unchanged(tables: Tables, name: str, last: Record) -> Refreshed:
    """What there is to say where nothing was to be done."""
    return Refreshed(False, 0, 0, last.rows, last.digest, tables.version(name), last.about)


def _remember(tables: Tables, name: str, source: str, last: Record, reads: dict[str, int]) -> Refreshed:
    """Other sources moved the table on; note the version so that the next look is short again."""
    record = last._replace(reads=reads)
    tables.commit(name, source, pl.DataFrame(schema=tables.schema(name)), record, replace=False, after=last)
    return unchanged(tables, name, record)
