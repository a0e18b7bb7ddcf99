"""Dated snapshots of one source (a crawl a month): each is a part of it, and the newest text of a page counts.

A source has snapshots where its location names `{snapshot}`: `/data/crawl/{snapshot}/*.warc.gz`. Their names sort by age, as
dates do. A snapshot whose files are gone stays: crawls are deleted to save room.
"""

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from midtrain_dagster.documents import MEMBERS_SCHEMA, Batch
from midtrain_dagster.seen import Holders, Met

MARK = "{snapshot}"


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


def read(names: Sequence[str], holders: Holders, collected: Callable[[str], Iterable[Batch]]) -> Iterator[Batch]:
    """Some snapshots as parts of their source; `collected` is one of them. Texts that a newer one has are left out."""
    for name in names:
        for batch in collected(name):
            met = [holders.add(identifier, name) for identifier in batch.documents["id"]]
            first = pl.Series([one is Met.FIRST for one in met], dtype=pl.Boolean)
            fates = ["kept" if one else "elsewhere" for one in first]
            members = pl.DataFrame({"part": name, "id": batch.documents["id"], "fate": fates}, MEMBERS_SCHEMA)
            yield Batch(batch.documents.filter(first), batch.rejected.with_columns(part=pl.lit(name)), members)
