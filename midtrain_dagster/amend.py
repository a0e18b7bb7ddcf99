"""Refreshing a table with one row a document over all of them: only the rows that a refresh changes are written."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.refresh import Refreshed, fingerprint, unchanged, whole
from midtrain_dagster.tables import Record, Tables, add, digest


class Amendment(NamedTuple):
    """What becomes of a table; every row of which it does not speak stays."""

    rows: pl.DataFrame  # of documents whose row is new or may differ, one each
    gone: pl.Series  # ids of rows that may stand in the table and do not stay; those of `rows` among them or not
    about: dict[str, Any]


def amended(
    tables: Tables,
    *,
    asset: str,
    name: str,
    base: str,
    inputs: Mapping[str, str],
    reads: Mapping[str, int],
    amend: Callable[[Record], Amendment | None],
    work: Callable[[], tuple[pl.DataFrame, dict[str, Any]]],
) -> Refreshed:
    """As `refresh.whole`, where `amend` can say what differs from the version of a record.

    Everything is written anew with what `work` returns the first time, where code or configuration (`base`) are new, and where
    `amend` cannot say (None). Otherwise rows are appended, or the table is written again where one of its rows has to go.
    """
    last = tables.record(name, asset)
    mark = fingerprint(base, dict(inputs))
    if last and last.fingerprint == mark:
        return unchanged(tables, name, last)
    change = amend(last) if last and last.base == base else None
    if last is None or change is None:
        return whole(tables, asset=asset, name=name, base=base, inputs=inputs, reads=reads, source=None, work=work)
    stored = tables.read(name)
    given = change.rows.select(stored.columns)
    rows = given.join(stored, on=stored.columns, how="anti", nulls_equal=True, maintain_order="left")
    vanished = change.gone.to_frame("id").join(given, on="id", how="anti")
    leaving = pl.concat([rows.select("id"), vanished.cast({"id": pl.String})]).unique()
    replaced = stored.join(leaving, on="id", how="semi")
    found = add(add(last.digest, digest(replaced), -1), digest(rows))
    record = Record(asset, mark, base, found, last.rows - len(replaced) + len(rows), dict(reads), change.about)
    if len(replaced):
        rows = pl.concat([stored.join(leaving, on="id", how="anti", maintain_order="left"), rows])
    version = tables.commit(name, None, rows, record, replace=bool(len(replaced)), after=last)
    return Refreshed(found != last.digest, len(given), 0, record.rows, found, version, change.about)
