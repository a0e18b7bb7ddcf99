"""A source's documents from what is outside the lake: files, dated snapshots, a crawl, a teacher.

Only parts of it that are new or have changed are read, and what comes of it is what reading everything would give, rejects and
counts included. `source_parts` has a row for each part with its mark, and one for each id in it that says what became of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.documents import ABOUT, MEMBERS_SCHEMA, Batch, documents
from midtrain_dagster.parts import ELSEWHERE, KEPT, Outside, Reading, Stored
from midtrain_dagster.pieces import KEYS, Pieces, Unreadable, collected
from midtrain_dagster.refresh import Refreshed, fingerprint, keep, unchanged
from midtrain_dagster.staging import Staged
from midtrain_dagster.tables import Record, Tables, add

PARTS, REJECTS = "source_parts", "rejected_records"
# `mark`: fingerprint of what is outside, of code and settings; in the row of a part itself, where the others are null.
PARTS_SCHEMA = pl.Schema({"part": pl.String, "mark": pl.String, "id": pl.String, "fate": pl.String})


class Beside(NamedTuple):
    """Rows of a source in a table beside its documents, as the last finished run left them."""

    rows: Pieces
    newest: bool  # no run that was killed has written there since


class Known(NamedTuple):
    """What the last finished run found."""

    marks: Mapping[str, str]  # part → mark
    members: pl.DataFrame  # MEMBERS_SCHEMA
    reasons: pl.DataFrame  # part, reason, len: of rejects
    tables: Mapping[str, Beside]  # PARTS, and REJECTS where there are any; where it cannot be said any more, none


REASONS = pl.Schema({"part": pl.String, "reason": pl.String, "len": pl.UInt32})
NOTHING = Known({}, pl.DataFrame(schema=MEMBERS_SCHEMA), pl.DataFrame(schema=REASONS), {})


def from_outside(
    tables: Tables, *, asset: str, name: str, source: str, base: str, outside: str, batches: Callable[[], Iterable[Batch]]
) -> Refreshed:
    """Refresh a source that can only be read as a whole, where `outside`, the fingerprint of what is there, has changed."""
    whole = Outside("whole", {source: outside}, lambda parts, holders: batches())
    return refresh(tables, asset=asset, name=name, source=source, base=base, outside=whole)


def refresh(tables: Tables, *, asset: str, name: str, source: str, base: str, outside: Outside) -> Refreshed:
    """Bring a source up to date. `base` is the fingerprint of code and settings; where it is new, all that is there is read.

    Documents that are there already, with that text and with what a recipe can ask of them, keep their row and the time they
    were collected; new ones are added, vanished ones withdrawn. Parts and rejects are committed first, the documents, whose
    record says what is done, last: a run killed in between is simply done again.
    """
    last = tables.record(name, asset)
    marks = {part: fingerprint(base, mark) for part, mark in outside.marks.items()}
    if last and last.fingerprint == fingerprint(base, marks):
        return unchanged(tables, name, last)
    as_before = last is not None and outside.kind in last.about
    known = _known(tables, asset, source, last) if last and as_before else NOTHING
    order = outside.order(known.marks)
    todo = [part for part in order if part in marks and known.marks.get(part) != marks[part]]
    vanished = sorted(set(known.marks) - set(order))
    if last and known.tables and not todo and not vanished:
        return unchanged(tables, name, last)
    stored = Stored(tables.pieces(name, source).keys(ABOUT) if last else documents([]).select(*KEYS, *ABOUT))
    with ExitStack() as stack:
        new, lost, parts = (stack.enter_context(Staged(tables, table, source)) for table in (name, REJECTS, PARTS))
        reading = Reading(outside, order, known.members, stored, (new, lost, parts))
        reading.run(todo, vanished)
        now = {part: marks.get(part) or known.marks[part] for part in order}
        record = Record(asset, fingerprint(base, now), base, "", 0, {}, {})
        about = _counts(reading, known, outside, len(order))
        if outside.kind != "whole":
            parts.add(_rows({part: marks[part] for part in reading.read}))
            parts.add(reading.superseded.with_columns(fate=pl.lit("elsewhere")))
            replaces = reading.changes(known.marks) or len(reading.superseded) > 0
            _commit(parts, record, known.tables.get(PARTS), reading, replaces)
        if lost.rows or tables.record(REJECTS, asset):
            _commit(lost, record, known.tables.get(REJECTS), reading, reading.changes(known.reasons["part"]))
        # Of snapshots that were deleted outside, the lake has the only copy: it is kept even where nothing is known of it any more.
        gone, added = reading.gone(known_alone=as_before and outside.kind == "snapshots"), new.rows
        if last and gone:
            keep(new, tables.pieces(name, source), gone)
        found, count = new.digest(), new.rows
        if last and not gone:
            found, count = add(last.digest, found), last.rows + count
        record = record._replace(digest=found, rows=count, about=about)
        version = new.commit(record, replace=not last or bool(gone), after=last)
    return Refreshed(last is None or found != last.digest, added, len(gone), count, found, version, about)


def _commit(staged: Staged, record: Record, before: Beside | None, reading: Reading, replaces: bool) -> None:
    """Write what was staged beside the documents: in the place of what was known of the parts that were read, or behind it."""
    last = staged.tables.record(staged.name, record.asset)
    replace = before is None or not before.newest or replaces
    if before and replace:
        for piece in before.rows.read():
            staged.add(reading.without(piece))
    content, rows = staged.digest(), staged.rows
    if last and not replace:
        content, rows = add(last.digest, content), last.rows + rows
    staged.commit(record._replace(digest=content, rows=rows), replace, after=last)


def _rows(marks: Mapping[str, str]) -> pl.DataFrame:
    """The rows of parts themselves."""
    return pl.DataFrame({"part": list(marks), "mark": list(marks.values()), "id": None, "fate": None}, PARTS_SCHEMA)


def _known(tables: Tables, asset: str, source: str, last: Record) -> Known:
    """What the last finished run found; NOTHING where its rows are not all to be had any more."""
    found = {name: left for name in (PARTS, REJECTS) if (left := _beside(tables, name, asset, source, last))}
    if PARTS not in found or (REJECTS not in found and tables.record(REJECTS, asset)):
        return NOTHING
    try:
        rows = collected(PARTS, found[PARTS].rows.lazy().select(list(PARTS_SCHEMA)))
        lost = found[REJECTS].rows.lazy().group_by("part", "reason").len() if REJECTS in found else NOTHING.reasons.lazy()
        reasons = collected(REJECTS, lost)
    except Unreadable:
        return NOTHING
    marks = dict(rows.filter(pl.col("mark").is_not_null()).select("part", "mark").iter_rows())
    return Known(marks, rows.filter(pl.col("id").is_not_null()).select(list(MEMBERS_SCHEMA)), reasons, found)


def _beside(tables: Tables, name: str, asset: str, source: str, last: Record) -> Beside | None:
    """A run that was killed may have left this table ahead of the documents."""
    before = tables.record(name, asset)
    newest = before is not None and before.fingerprint == last.fingerprint
    version = tables.version_of(name, asset, last.fingerprint) if before and not newest else None
    return Beside(tables.pieces(name, source, version), newest) if newest or version is not None else None


def _counts(reading: Reading, known: Known, outside: Outside, parts: int) -> dict[str, Any]:
    """What was read and what became of it, over all parts."""
    staying = reading.staying()
    kept = reading.kept + len(staying.filter(KEPT))
    still = known.reasons.join(reading.left, on="part", how="anti").group_by("reason").agg(pl.col("len").sum())
    reasons = reading.reasons + Counter(dict(still.iter_rows()))
    lack = reasons.total()
    told: dict[str, Any] = {"kept": kept, "rejected": lack, "rejected because": dict(sorted(reasons.items()))}
    if outside.kind == "snapshots":
        told["superseded"] = reading.passed + len(staying.filter(ELSEWHERE))
    told["read"] = kept + lack + told.get("superseded", 0)
    return told if outside.kind == "whole" else {**told, outside.kind: parts}
