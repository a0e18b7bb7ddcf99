"""Damaged tables: which assets' rows no longer are what their record says, and how they are made again.

A file that is gone, cut or changed is found by reading everything and comparing digests. The rows of that asset are then given
up, with the reason in the table's log; the next run makes them anew from what they were made from. What was collected from a
place that has since changed is collected as it is there now.
"""

from typing import NamedTuple

import polars as pl

from midtrain_dagster.documents import text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.pieces import Unreadable
from midtrain_dagster.tables import NOTHING, Record, Tables, add, digest


class Damage(NamedTuple):
    """Rows of one asset in one table that cannot be trusted."""

    table: str
    asset: str
    why: str


def damages(tables: Tables) -> list[Damage]:
    """Every asset's rows in every table, read and compared with the digest in their record, texts with their hash.

    An asset that writes several tables is damaged in all of them where it is in one: its own table alone decides whether
    there is something to do.
    """
    kept = [(name, record) for name in tables.names() for record in tables.records(name)]
    found = {(n, record.asset): why for n, record in kept if (why := wrong(tables, n, record.asset, record.digest))}
    hurt = {asset: table for table, asset in found}
    beside = {
        (name, record.asset): f"beside {hurt[record.asset]}, which is damaged"
        for name, record in kept
        if record.asset in hurt and (name, record.asset) not in found
    }
    return [Damage(table, asset, why) for (table, asset), why in sorted({**found, **beside}.items())]


def wrong(tables: Tables, name: str, asset: str, recorded: str, version: int | None = None) -> str | None:
    """What is wrong with the rows of an asset in a version of a table, of which a digest is recorded; None where nothing is.

    Read a piece at a time. A digest stands on the hash of a text, so each text is compared with its hash as well.
    """
    now, changed = NOTHING, 0
    try:
        for rows in tables.pieces(name, source_of(asset, name), version).read():
            now = add(now, digest(rows))
            if {"text", "text_hash"} <= set(rows.columns):
                changed += sum(text_hash(text) != told for text, told in rows.select("text", "text_hash").iter_rows())
    except Unreadable as error:
        return str(error)
    if now != recorded:
        return f"rows have digest {now}, recorded is {recorded}"
    return f"{changed} texts are not those that were stored" if changed else None


def give_up(tables: Tables, damage: Damage) -> None:
    """Take the damaged rows out, so that the next run of the asset makes them again."""
    last = tables.record(damage.table, damage.asset)
    if last is None:
        raise MidtrainError(f"table {damage.table} knows nothing of {damage.asset}")
    none = pl.DataFrame(schema=tables.schema(damage.table))
    record = Record(damage.asset, "", "", digest(none), 0, {}, {"given up": damage.why})
    tables.commit(damage.table, source_of(damage.asset, damage.table), none, record, replace=True, after=last)


def source_of(asset: str, table: str) -> str | None:
    """The source whose rows an asset owns in a table; None where the whole table is its own."""
    return None if asset == table else asset.rpartition("/")[2]
