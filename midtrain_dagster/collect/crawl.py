"""A live crawl: seeds, sitemaps and feeds; robots.txt obeyed; one polite queue a host; bounded in depth, pages and bytes."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from midtrain_dagster.collect import responses, robots
from midtrain_dagster.collect.frontier import Frontier, Host, Task
from midtrain_dagster.collect.html import Page
from midtrain_dagster.collect.network import Fetch, NotFetched, Response, followed, redirection
from midtrain_dagster.collect.records import Rejected
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.sources import Crawl

HOPS = 5  # redirects in a row
LONGEST = 2000  # characters of an address
LONGEST_DELAY = 60.0  # seconds; a host that asks for more is left alone
LINKS = 10_000  # taken from one page, sitemap or feed
FEED_TYPES = ("rss", "atom", "feed")


class Clock(Protocol):
    """Time as a crawl needs it."""

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...


class Limits:
    """What a crawl has used of what it may."""

    def __init__(self, pages: int, size: int):
        self.pages, self.size = pages, size

    def left(self) -> bool:
        return self.pages > 0 and self.size > 0


def pages(
    source: Crawl, fetch: Fetch, clock: Clock = time, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[Page | Rejected]:
    """Every address that was asked for: a page, or why it is none. Sitemaps and feeds count only where they fail.

    Raises MidtrainError for a seed that is no http or https address.
    """
    seeds = [source.location, *source.seeds]
    hosts = {_host(seed) for seed in seeds} | {host.lower() for host in source.hosts}
    if None in hosts:
        raise MidtrainError(f"{source.name}: {', '.join(seeds)}: a crawl starts at http or https addresses")
    frontier = Frontier(known=max(10_000, 20 * source.max_pages))
    for seed in seeds:
        frontier.add(Task(seed, 0))
    limits = Limits(source.max_pages, source.max_bytes)
    while limits.left() and (host := frontier.next()) is not None:
        if host.rules is None:
            _wait(host, clock)
            host.rules = _robots(host, source, fetch)
            _rest(host, source, clock)
            if source.sitemaps:
                _add(frontier, [Task(url, 0, "sitemap") for url in host.rules.sitemaps], hosts)
            continue
        yield from _step(host, frontier, hosts, source, fetch, clock, now, limits)


def _step(
    host: Host,
    frontier: Frontier,
    hosts: set[Any],
    source: Crawl,
    fetch: Fetch,
    clock: Clock,
    now: Callable[[], datetime],
    limits: Limits,
) -> Iterator[Page | Rejected]:
    """Ask a host for the next address of its queue."""
    task = host.waiting.popleft()
    if host.problem is not None:
        yield Rejected(task.url[:LONGEST], *host.problem)
        return
    if host.rules is None or not host.rules.allow(task.url):
        yield Rejected(task.url[:LONGEST], "robots.txt forbids")
        return
    if (host.rules.delay or 0) > LONGEST_DELAY:
        yield Rejected(task.url[:LONGEST], "crawl delay too long", f"{host.rules.delay} s")
        return
    _wait(host, clock)
    limits.pages -= 1
    try:
        response = fetch(task.url, min(source.max_record_bytes, limits.size))
    except NotFetched as error:
        _rest(host, source, clock)
        yield Rejected(task.url[:LONGEST], *error.args)
        return
    _rest(host, source, clock)
    limits.size -= len(response.body)
    target = redirection(response)
    if target is not None:
        yield from _redirected(task, target, frontier, hosts)
    elif task.role == "page":
        found = responses.page(
            task.url, response.status, response.fields, response.body, now(), task.url, source.max_record_bytes
        )
        if isinstance(found, Page):
            _add(frontier, _linked(found, task, source), hosts)
        yield found
    else:
        yield from _listed(task, response, frontier, hosts, source)


def _redirected(task: Task, target: str, frontier: Frontier, hosts: set[Any]) -> Iterator[Rejected]:
    """A redirect is a new address, so that its host's robots.txt, delay and IP address are looked at as any other's."""
    if task.hops >= HOPS:
        yield Rejected(task.url, "too many redirects", target[:300])
    elif _host(target) not in hosts:
        yield Rejected(task.url, "redirect to another host", target[:300])
    else:
        frontier.add(task._replace(url=target, hops=task.hops + 1))
        if task.role == "page":
            yield Rejected(task.url, "redirect", target[:300])


def _listed(task: Task, response: Response, frontier: Frontier, hosts: set[Any], source: Crawl) -> Iterator[Rejected]:
    """Queue what a sitemap or feed names."""
    try:
        if response.status != 200:
            raise ValueError(f"HTTP status {response.status}")
        body = responses.decoded(response.body, response.fields, source.max_record_bytes)
        if len(body) > source.max_record_bytes:
            raise ValueError(f"more than {source.max_record_bytes} bytes when decompressed")
        named = _sitemap(body) if task.role == "sitemap" else [Task(url, 0) for url in _feed(body)]
    except Exception as error:  # one list's damage: compression, characters, XML
        yield Rejected(task.url, f"unreadable {task.role}", f"{type(error).__name__}: {error}"[:300])
        return
    _add(frontier, named, hosts)


def _sitemap(body: bytes) -> list[Task]:
    """The addresses in a sitemap (pages) or sitemap index (sitemaps), XML or one a line. Entities are not expanded."""
    from lxml import etree

    if b"<" not in body[:256]:
        return [Task(line.strip(), 0) for line in body.decode("utf-8").splitlines()[:LINKS] if line.strip()]
    tree = etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False))
    index = etree.QName(tree).localname == "sitemapindex"
    places = [(node.text or "").strip() for node in tree.iter("{*}loc")][:LINKS]
    return [Task(place, 0, "sitemap" if index else "page") for place in places]


def _feed(body: bytes) -> list[str]:
    from trafilatura.feeds import FeedParameters, find_links

    return find_links(body.decode("utf-8", "replace").strip(), FeedParameters("", "", ""))[:LINKS]


def _linked(page: Page, task: Task, source: Crawl) -> list[Task]:
    """The pages that a page links to and the feeds that it names, in a fixed order."""
    from courlan import clean_url, extract_links, is_not_crawlable
    from courlan.filters import extension_filter
    from trafilatura.feeds import FeedParameters, determine_feed

    html = page.body.decode(page.charset if page.charset and _known(page.charset) else "utf-8", "replace")
    found: list[Task] = []
    if task.depth < source.max_depth:
        try:
            links = extract_links(html, url=page.url, no_filter=True)
        except ValueError:
            links = set()
        for link in sorted(links)[:LINKS]:
            cleaned = clean_url(link)
            if cleaned and not is_not_crawlable(cleaned) and extension_filter(urlsplit(cleaned).path):
                found.append(Task(cleaned, task.depth + 1))
    if source.feeds and task.depth == 0:
        found += [
            Task(url, 0, "feed") for url in determine_feed(html, FeedParameters(page.url, _host(page.url) or "", page.url))[:20]
        ]
    return found


def _known(charset: str) -> bool:
    import codecs

    try:
        return bool(codecs.lookup(charset)._is_text_encoding)
    except (LookupError, ValueError):
        return False


def _add(frontier: Frontier, tasks: list[Task], hosts: set[Any]) -> None:
    for task in tasks:
        if len(task.url) <= LONGEST and _host(task.url) in hosts:
            frontier.add(task)


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        return None


def _robots(host: Host, source: Crawl, fetch: Fetch) -> robots.Rules:
    """The host's rules. No such file allows all; a host that does not answer, or answers with an error, forbids all (RFC 9309, 2.3.1)."""
    try:
        response = followed(fetch, f"{host.origin}/robots.txt", robots.LARGEST)
        if 400 <= response.status < 500:
            return robots.ALL
        if response.status != 200:
            return robots.NONE
        body = responses.decoded(response.body, response.fields, robots.LARGEST)
    except NotFetched as error:
        private = error.args[0] == "private address"
        host.problem = (error.args[0] if private else "robots.txt not fetched", error.args[1])
        return robots.NONE
    except (OSError, EOFError, ValueError):
        return robots.NONE
    return robots.parse(body, re.split(r"[/ ]", source.agent)[0])


def _wait(host: Host, clock: Clock) -> None:
    left = host.ready - clock.monotonic()
    if left > 0:
        clock.sleep(left)


def _rest(host: Host, source: Crawl, clock: Clock) -> None:
    asked = host.rules.delay if host.rules and host.rules.delay else 0.0
    host.ready = clock.monotonic() + max(source.delay, min(asked, LONGEST_DELAY))
