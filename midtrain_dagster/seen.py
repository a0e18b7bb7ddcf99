"""Ids met so far, on disk beyond a few megabytes: memory does not grow with how many there are."""

import sqlite3
from collections.abc import Iterable


class Seen:
    """A set of ids in a temporary database that nobody else sees. Use as a context."""

    def __enter__(self) -> "Seen":
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute("pragma journal_mode = off")
        self._connection.execute("create table ids (id blob primary key) without rowid")
        self._connection.execute("begin")
        return self

    def __exit__(self, *reason: object) -> None:
        self._connection.close()

    def add(self, identifier: str) -> bool:
        """Whether the id is new."""
        key = identifier.encode("utf-8", "surrogatepass")
        return self._connection.execute("insert or ignore into ids values (?)", (key,)).rowcount == 1

    def update(self, identifiers: Iterable[str]) -> int:
        """Add many; returns how many were new."""
        return sum(self.add(identifier) for identifier in identifiers)
