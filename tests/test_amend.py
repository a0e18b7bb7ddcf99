"""A table of which few rows change: what is written, and that it is what writing everything would have made of it."""

from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster.amend import Amendment, amended
from midtrain_dagster.refresh import Refreshed
from midtrain_dagster.tables import Tables, digest


def frame(**values: int | None) -> pl.DataFrame:
    return pl.DataFrame({"id": list(values), "value": list(values.values()), "source": "all"}, {"id": pl.String, "value": pl.Int64, "source": pl.String})  # fmt: skip


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")


def refresh(tables: Tables, mark: str, everything: pl.DataFrame, change: Amendment | None, base: str = "1") -> Refreshed:
    return amended(
        tables,
        asset="judged",
        name="judged",
        base=base,
        inputs={"": mark},
        reads={},
        amend=lambda last: change,
        work=lambda: (everything, {"rows": len(everything)}),
    )


def check(tables: Tables, done: Refreshed, expected: pl.DataFrame) -> None:
    stored = tables.read("judged").sort("id")
    assert stored.equals(expected.sort("id"))
    assert (done.rows, done.digest) == (len(expected), digest(expected))


def test_new_rows_are_appended_and_files_that_are_there_stay(tables: Tables) -> None:
    check(tables, refresh(tables, "a", frame(x=1, y=None), None), frame(x=1, y=None))
    before = tables.files("judged")
    done = refresh(tables, "b", frame(), Amendment(frame(y=None, z=3), pl.Series([], dtype=pl.String), {"told": 1}))
    check(tables, done, frame(x=1, y=None, z=3))
    assert set(before) < set(tables.files("judged"))
    assert (done.changed, done.worked, done.about) == (True, 2, {"told": 1})


def test_rows_are_replaced_and_taken_out(tables: Tables) -> None:
    refresh(tables, "a", frame(x=1, y=2, z=3), None)
    done = refresh(tables, "b", frame(), Amendment(frame(x=5, w=6), pl.Series(["x", "y", "never there"]), {}))
    check(tables, done, frame(x=5, z=3, w=6))


def test_where_nothing_differs_the_data_version_stays(tables: Tables) -> None:
    first = refresh(tables, "a", frame(x=1, y=2), None)
    again = refresh(tables, "b", frame(), Amendment(frame(x=1), pl.Series(["x"]), {}))
    assert (again.changed, again.digest) == (False, first.digest)
    check(tables, again, frame(x=1, y=2))
    assert refresh(tables, "b", frame(), None).version == again.version  # known by now: neither is asked


def test_everything_is_made_anew_where_an_amendment_cannot_be(tables: Tables) -> None:
    refresh(tables, "a", frame(x=1), None)
    check(tables, refresh(tables, "b", frame(y=2), None), frame(y=2))
    wrong = Amendment(frame(w=0), pl.Series([], dtype=pl.String), {})
    check(tables, refresh(tables, "c", frame(z=3), wrong, base="2"), frame(z=3))
