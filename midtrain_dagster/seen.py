"""Ids met so far, on disk beyond a few megabytes: memory does not grow with how many there are."""

import sqlite3
from collections.abc import Iterable
from enum import Enum, auto
from typing import Self


class _Ids:
    """A table of ids in a temporary database that nobody else sees. Use as a context."""

    COLUMNS = ""  # beside the id

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute("pragma journal_mode = off")
        self._connection.execute(f"create table ids (id blob primary key{self.COLUMNS}) without rowid")
        self._connection.execute("begin")
        return self

    def __exit__(self, *reason: object) -> None:
        self._connection.close()


class Seen(_Ids):
    """A set of ids."""

    def add(self, identifier: str) -> bool:
        """Whether the id is new."""
        return self._connection.execute("insert or ignore into ids values (?)", (_key(identifier),)).rowcount == 1

    def update(self, identifiers: Iterable[str]) -> int:
        """Add many; returns how many were new."""
        return sum(self.add(identifier) for identifier in identifiers)


class Met(Enum):
    """How a part of a source meets an id."""

    FIRST = auto()  # no part before this one has it
    ELSEWHERE = auto()  # a part before this one has it
    TWICE = auto()  # this part has it more than once


class Holders(_Ids):
    """Which part of a source holds each id: the first that has it, in a given order of the parts."""

    COLUMNS = ", holder integer, taken integer, met integer"  # taken: by a part that has been read; met: the last that met it

    def __init__(self, order: Iterable[str]):
        self._rank = {part: rank for rank, part in enumerate(order)}

    def know(self, members: Iterable[tuple[str, str]]) -> None:
        """Parts and ids of an earlier reading."""
        self._connection.executemany(
            "insert into ids values (?, ?, 0, null) on conflict (id) do update set holder = min(holder, excluded.holder)",
            ((_key(identifier), self._rank[part]) for part, identifier in members),
        )

    def add(self, identifier: str, part: str) -> Met:
        """A part that is being read has an id. No two parts are told that they have it first, whatever has changed meanwhile."""
        key, rank = _key(identifier), self._rank[part]
        if self._connection.execute("insert or ignore into ids values (?, ?, 1, ?)", (key, rank, rank)).rowcount == 1:
            return Met.FIRST
        holder, taken, met = self._connection.execute("select holder, taken, met from ids where id = ?", (key,)).fetchone()
        if met == rank:
            return Met.TWICE
        first = not taken and rank <= holder
        found = (rank, 1, rank, key) if first else (holder, taken, rank, key)
        self._connection.execute("update ids set holder = ?, taken = ?, met = ? where id = ?", found)
        return Met.FIRST if first else Met.ELSEWHERE


def _key(identifier: str) -> bytes:
    return identifier.encode("utf-8", "surrogatepass")
