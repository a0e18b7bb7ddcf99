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
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.progress import Progress
from midtrain_dagster.project.teacher import Prices
from midtrain_dagster.synthesize.teacher import Reply, Request, Teacher

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


class CachedTeacher:
    """A teacher with a memory, accounts and a budget. Errors are not remembered: the next run asks again."""

    def __init__(self, inner: Teacher, path: Path, prices: Prices | None = None, budget: float | None = None):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.inner, self.path, self.model = inner, path, inner.model
        self.prices, self.budget = prices or Prices(), budget
        self._database: sqlite3.Connection | None = None
        self._connect()

    def _connect(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self._database.execute("pragma journal_mode=wal")
            self._database.execute("pragma synchronous=normal")
            self._database.executescript(TABLES)
        return self._database

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_database": None}

    def complete(self, requests: Iterable[Request], progress: Progress | None = None) -> Iterator[tuple[int, Reply]]:
        """Replies from the store at once, the others as they arrive; error `budget` for what may no longer be bought."""
        positions: dict[str, list[int]] = {}
        asked: dict[str, Request] = {}
        for position, request in enumerate(requests):
            key = request.key(self.model)
            positions.setdefault(key, []).append(position)
            asked.setdefault(key, request)
        for key, reply in self._answers(asked):
            for number, position in enumerate(positions[key]):
                yield position, reply if number == 0 or reply.error else replace(reply, cached=True, cost=0.0)
            if progress:
                progress.advance(len(positions[key]))

    def _answers(self, asked: dict[str, Request]) -> Iterator[tuple[str, Reply]]:
        """(key, reply) for every key once. Rounds, because claims of others and of our own replies free up with time."""
        waiting = dict(asked)
        while waiting:
            for key in [key for key in waiting if (reply := self._stored(key)) is not None]:
                reply = self._stored(key)
                if reply is not None:
                    del waiting[key]
                    yield key, reply
            sent: list[str] = []
            refused: set[str] = set()
            for position, reply in self.inner.complete(self._claimed(waiting, sent, refused)):
                key = sent[position]
                stored = self._store(key, waiting.pop(key), reply)
                yield key, stored
            if sent or not waiting:
                continue
            if refused and not self._others_in_flight():
                for key in refused:
                    del waiting[key]
                    yield key, Reply(error="budget", detail=f"the budget of {self.budget} does not cover another request")
            else:
                time.sleep(POLL)

    def _claimed(self, waiting: dict[str, Request], sent: list[str], refused: set[str]) -> Iterator[Request]:
        """The requests that we may send now, each claimed at the moment that the teacher takes it."""
        for key, request in list(waiting.items()):
            verdict = self._claim(key, self.most(request))
            if verdict == "ours":
                sent.append(key)
                yield request
            elif verdict == "budget":
                refused.add(key)

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
        return replace(Reply(**json.loads(row[0])), cached=True, cost=0.0) if row else None

    def _store(self, key: str, request: Request, reply: Reply) -> Reply:
        """Write the reply, its ledger line and the end of its claim together, or not at all."""
        reply = replace(reply, cost=self._price(reply.prompt_tokens, reply.completion_tokens))
        database = self._connect()
        database.execute("begin immediate")
        if not reply.error:
            database.execute("insert or ignore into replies values (?, ?)", (key, json.dumps(asdict(reply))))
        database.execute(
            "insert into ledger values (?, 1, ?, ?, ?) on conflict (account) do update set requests = requests + 1,"
            " prompt_tokens = prompt_tokens + excluded.prompt_tokens, cost = cost + excluded.cost,"
            " completion_tokens = completion_tokens + excluded.completion_tokens",
            (request.account, reply.prompt_tokens, reply.completion_tokens, reply.cost),
        )
        database.execute("delete from claims where key = ?", (key,))
        database.execute("commit")
        return reply

    def spent(self) -> float:
        """All that this store has ever cost."""
        return float(self._connect().execute("select coalesce(sum(cost), 0) from ledger").fetchone()[0])

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
