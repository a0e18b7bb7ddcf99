"""No reply is paid for twice, and no budget is passed: the store that stands in front of every teacher.

One SQLite file in WAL mode, shared by concurrent processes and safe against kills:

    replies   key (model, messages, parameters) -> reply; written with its ledger line in one transaction
    ledger    account (generator/source) -> requests, tokens, cost so far
    claims    requests in flight and the most they can cost; a claim dies with its process
"""

import json
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.teacher import Prices
from midtrain_dagster.synthesize.teacher import Keep, Reply, Request, Teacher

WINDOW = 2048  # conversations that may be open at a time
LEASE = 3600.0  # seconds until a claim of a process that we cannot see counts as dead
POLL = 0.2  # seconds between looks at a request that another process has in flight
BYTES_PER_TOKEN = 2  # fewer than any real tokenizer's average on text, so that the estimate is an upper one

TABLES = """
create table if not exists replies (key text primary key, reply text not null);
create table if not exists ledger (
    account text primary key, requests integer not null, prompt_tokens integer not null,
    completion_tokens integer not null, cost real not null);
create table if not exists claims (key text primary key, most real not null, process integer not null, expires real not null);
"""


@dataclass
class _Book:
    """What one call of `complete` has taken and not yet answered."""

    source: Iterator[Request | None]
    asked: dict[str, Request] = field(default_factory=dict)  # key -> request, until it is answered
    waiting: dict[str, list[int]] = field(default_factory=dict)  # key -> positions that want the reply
    keys: dict[int, str] = field(default_factory=dict)  # number among all that were sent -> key, while in flight
    answered: deque[tuple[str, Reply]] = field(default_factory=deque)  # found in the store, to be handed out
    refused: deque[str] = field(default_factory=deque)  # would pass the budget now
    theirs: deque[str] = field(default_factory=deque)  # in flight in another process
    sent: int = 0
    taken: int = 0

    def next(self, model: str) -> str | None:
        """The key of the request to look at next: of those that had to wait, else a new one; None: nothing for now."""
        if self.refused:
            return self.refused.popleft()
        while (request := next(self.source, None)) is not None:
            key, position = request.key(model), self.taken
            self.taken += 1
            if key not in self.waiting:
                self.asked[key], self.waiting[key] = request, [position]
                return key
            self.waiting[key].append(position)
        return None

    def again(self) -> None:
        """Look again at what others had in flight."""
        self.refused.extend(self.theirs)
        self.theirs.clear()


class CachedTeacher:
    """A teacher with a memory, accounts and a budget. Errors are not remembered: the next run asks again."""

    def __init__(self, inner: Teacher, path: Path, prices: Prices | None = None, budget: float | None = None):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.inner, self.path, self.model = inner, path, inner.model
        self.prices, self.budget = prices or Prices(), budget
        self.window = int(getattr(inner, "window", WINDOW))
        self._database: sqlite3.Connection | None = None
        try:
            self._connect()
        except sqlite3.OperationalError as error:
            raise MidtrainError(f"teacher cache {path}: {error}; see to room and permissions there, then run again") from None

    def _connect(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self._database.execute("pragma journal_mode=wal")
            self._database.execute("pragma synchronous=normal")
            self._database.execute(
                "pragma wal_autocheckpoint=16384"
            )  # pages; each checkpoint waits for the disk, and all wait for it
            self._database.executescript(TABLES)
        return self._database

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_database": None}

    def complete(
        self, requests: Iterable[Request | None], progress: Progress | None = None, keep: Keep | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Replies from the store at once, the others as they arrive; error `budget` for what may no longer be bought.

        Raises MidtrainError where the store cannot be written: nothing may be bought that is not remembered.
        """
        try:
            yield from self._complete(requests, progress, keep)
        except sqlite3.OperationalError as error:
            raise MidtrainError(
                f"teacher cache {self.path}: {error}; see to room and permissions there, then run again"
            ) from None

    def _complete(
        self, requests: Iterable[Request | None], progress: Progress | None, keep: Keep | None
    ) -> Iterator[tuple[int, Reply]]:
        book = _Book(iter(requests))

        def store(place: int, reply: Reply) -> None:
            key = book.keys.pop(before + place)
            book.answered.append((key, self._store(key, book.asked[key], reply)))

        try:
            while True:
                before = book.sent
                for _ in self.inner.complete(self._claimed(book), keep=store):
                    yield from self._answered(book, progress, keep)
                idle = book.sent == before and not book.answered
                yield from self._answered(book, progress, keep)
                if not book.waiting:
                    return
                if idle:
                    time.sleep(POLL)
                    book.again()
        finally:
            self._release(list(book.keys.values()))

    def _claimed(self, book: _Book) -> Iterator[Request | None]:
        """The requests that may be sent now, each claimed at the moment that the teacher takes it."""
        while True:
            key = book.next(self.model)
            if key is None:
                yield None
                continue
            if (stored := self._stored(key)) is not None:
                book.answered.append((key, stored))
                continue
            verdict = self._claim(key, self.most(book.asked[key]))
            if verdict == "ours":
                book.keys[book.sent] = key
                book.sent += 1
                yield book.asked[key]
            elif verdict == "theirs":
                book.theirs.append(key)
            elif book.keys or self._others_in_flight():
                book.refused.append(key)
                yield None  # what is in flight may turn out cheaper than it could have been
            else:
                detail = f"the budget of {self.budget} does not cover another request"
                book.answered.append((key, Reply(error="budget", detail=detail)))

    def _answered(self, book: _Book, progress: Progress | None, keep: Keep | None) -> Iterator[tuple[int, Reply]]:
        """The replies that are there, at every position that asked this very thing; the first paid for all."""
        while book.answered:
            key, reply = book.answered.popleft()
            del book.asked[key]
            for number, position in enumerate(book.waiting.pop(key)):
                told = reply if number == 0 or reply.error else replace(reply, cached=True, cost=0.0)
                if keep:
                    keep(position, told)
                if progress:
                    progress.advance(1)
                yield position, told

    def most(self, request: Request) -> float:
        """The most that a request can cost: all its attempts that may be charged, at full length."""
        prompt = sum(len(str(message["content"]).encode("utf-8", "replace")) for message in request.messages) / BYTES_PER_TOKEN
        once = self._price(int(prompt) + 16 * len(request.messages), request.parameters.max_tokens)
        return once * getattr(self.inner, "paid_attempts", 1)

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prices.prompt + completion_tokens * self.prices.completion) / 1e6

    def _claim(self, key: str, most: float) -> str:
        """`ours`, `theirs` (another process asks this very request), or `budget` (it could pass the budget)."""
        database = self._connect()
        database.execute("begin immediate")
        try:
            row = database.execute("select process, expires from claims where key = ?", (key,)).fetchone()
            if row and row[0] != os.getpid() and row[1] > time.time() and _alive(row[0]):
                return "theirs"
            if self._stored(key) is not None:
                return "theirs"  # answered since we looked; the next round reads it
            if self.budget is not None and most > 0 and self._committed(key) + most > self.budget:
                return "budget"
            claim = (key, most, os.getpid(), time.time() + LEASE)
            database.execute("insert or replace into claims values (?, ?, ?, ?)", claim)
            return "ours"
        finally:
            database.execute("commit")

    def _committed(self, key: str) -> float:
        """What is spent, and what the requests in flight may still cost."""
        database = self._connect()
        flying = database.execute("select most, process, expires from claims where key != ?", (key,)).fetchall()
        pending = sum(most for most, process, expires in flying if expires > time.time() and _alive(process))
        return self.spent() + pending

    def _others_in_flight(self) -> bool:
        rows = self._connect().execute("select process, expires from claims").fetchall()
        return any(process != os.getpid() and expires > time.time() and _alive(process) for process, expires in rows)

    def _stored(self, key: str) -> Reply | None:
        row = self._connect().execute("select reply from replies where key = ?", (key,)).fetchone()
        return Reply(**{**json.loads(row[0]), "cached": True}) if row else None

    def _store(self, key: str, request: Request, reply: Reply) -> Reply:
        """Write the reply, its ledger line and the end of its claim together, or not at all."""
        reply = replace(reply, cost=self._price(reply.prompt_tokens, reply.completion_tokens))
        database = self._connect()
        database.execute("begin immediate")
        if not reply.error:
            database.execute("insert or ignore into replies values (?, ?)", (key, json.dumps(vars(reply))))
        database.execute(
            "insert into ledger values (?, 1, ?, ?, ?) on conflict (account) do update set requests = requests + 1,"
            " prompt_tokens = prompt_tokens + excluded.prompt_tokens, cost = cost + excluded.cost,"
            " completion_tokens = completion_tokens + excluded.completion_tokens",
            (request.account, reply.prompt_tokens, reply.completion_tokens, reply.cost),
        )
        database.execute("delete from claims where key = ?", (key,))
        database.execute("commit")
        return reply

    def _release(self, keys: list[str]) -> None:
        """Give up claims on requests whose replies nobody waits for any more."""
        self._connect().executemany("delete from claims where key = ? and process = ?", [(key, os.getpid()) for key in keys])

    def spent(self) -> float:
        """All that this store has ever cost."""
        return float(self._connect().execute("select coalesce(sum(cost), 0) from ledger").fetchone()[0])

    def left(self) -> float | None:
        """What the budget still allows; None without one."""
        return None if self.budget is None else max(0.0, self.budget - self.spent())

    def accounts(self) -> pl.DataFrame:
        """account, requests, prompt_tokens, completion_tokens, cost: one row a generator and source, sorted."""
        rows = self._connect().execute("select * from ledger order by account").fetchall()
        names = {"account": pl.String, "requests": pl.Int64, "prompt_tokens": pl.Int64, "completion_tokens": pl.Int64}
        return pl.DataFrame(rows, schema={**names, "cost": pl.Float64}, orient="row")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
