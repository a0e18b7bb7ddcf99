"""What a crawl has still to fetch: one queue a host, each asked no sooner than its delay allows, all bounded."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from midtrain_dagster.collect.robots import Rules

Role = Literal["page", "sitemap", "feed"]


class Task(NamedTuple):
    """An address to fetch, and what for."""

    url: str
    depth: int  # links followed from a seed, sitemap or feed
    role: Role = "page"
    hops: int = 0  # redirects on the way here


@dataclass
class Host:
    """One host's queue: scheme, name and port, as robots.txt counts hosts."""

    origin: str
    waiting: deque[Task] = field(default_factory=deque)
    ready: float = 0.0  # when it may be asked next, on the crawl's clock
    rules: Rules | None = None  # robots.txt; None until it was read
    problem: tuple[str, str] | None = None  # why it cannot be asked: reason and detail


class Frontier:
    """The hosts of a crawl and the addresses it has met; never more than `known` of them."""

    def __init__(self, known: int):
        self.hosts: dict[str, Host] = {}
        self.known = known
        self._met: set[str] = set()

    def add(self, task: Task) -> bool:
        """Queue a task whose address is new; whether it was queued."""
        parts = urlsplit(task.url)
        origin = f"{parts.scheme}://{parts.netloc.lower()}"
        url = origin + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if url in self._met or len(self._met) >= self.known:
            return False
        self._met.add(url)
        self.hosts.setdefault(origin, Host(origin)).waiting.append(task._replace(url=url))
        return True

    def next(self) -> Host | None:
        """The host that may be asked first, in the order in which hosts were met; None when nothing is left."""
        waiting = [host for host in self.hosts.values() if host.waiting]
        return min(waiting, key=lambda host: host.ready) if waiting else None
