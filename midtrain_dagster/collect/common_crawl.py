"""The index of Common Crawl: which records of a crawl to fetch, and fetching them by range.

An index is a CDXJ file (`com,example)/ 20240301120000 {"url": …, "filename": …, "offset": …, "length": …}`, plain or
.gz), or the index server, asked with an address pattern; the server answers in lines of JSON alone.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from midtrain_dagster.collect import places, warc
from midtrain_dagster.collect.html import Page
from midtrain_dagster.collect.network import Fetch, NotFetched, followed
from midtrain_dagster.collect.records import Rejected, because
from midtrain_dagster.collect.streams import damaged, lines, losses, opened
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.sources import CommonCrawl

SUFFIXES = (".cdxj", ".cdxj.gz", ".cdx", ".cdx.gz", ".gz", ".jsonl", ".json")
ANSWER = 256 << 20  # bytes of one answer of the index server
LINE = 64 << 10


class Entry(NamedTuple):
    """Where one capture of a page is."""

    url: str
    filename: str  # of the WARC file, relative to the data's address
    offset: int
    length: int
    timestamp: str
    status: str
    mime: str
    languages: str


def entries(source: CommonCrawl, root: Path, fetch: Fetch) -> Iterator[Entry | Rejected]:
    """The captures that the source wants: its patterns, HTTP status, media types and languages. Others are passed over."""
    for location, line in _lines(source, root, fetch):
        if isinstance(line, Rejected):
            yield line
            continue
        found = entry(line, location)
        if isinstance(found, Rejected) or _wanted(found, source):
            yield found


def _lines(source: CommonCrawl, root: Path, fetch: Fetch) -> Iterator[tuple[str, bytes | Rejected]]:
    if source.location.startswith(("http://", "https://")):
        if not source.urls:
            raise MidtrainError(f"{source.name}: say which addresses to ask the index for: urls: ['example.org/*']")
        for pattern in source.urls:
            yield from _asked(source.location, pattern, fetch)
        return
    for path in places.files(source.location, root, SUFFIXES):
        number = 0
        try:
            with opened(path) as file:
                for number, _, data in lines(file, LINE):
                    where = f"{path.name}:{number}"
                    yield where, Rejected(where, "record too large", f"more than {LINE} bytes") if data is None else data
                for loss in losses(file):
                    yield path.name, Rejected(f"{path.name}@{loss.offset}", "corrupt gzip member", loss.detail)
        except damaged() as error:
            yield path.name, Rejected(f"{path.name}:{number + 1}", "truncated file", because(error))


def _asked(server: str, pattern: str, fetch: Fetch) -> Iterator[tuple[str, bytes | Rejected]]:
    query = f"{server}{'&' if '?' in server else '?'}{urlencode({'url': pattern, 'output': 'json'})}"
    try:
        response = followed(fetch, query, ANSWER)
    except NotFetched as error:
        yield query, Rejected(query[:300], *error.args)
        return
    if response.status != 200:  # 404: no captures
        yield query, Rejected(query[:300], "HTTP status", str(response.status))
        return
    body = (
        gzip.decompress(response.body)
        if response.body.startswith(b"\x1f\x8b") and len(response.body) < ANSWER // 16
        else response.body
    )
    for number, line in enumerate(body.splitlines(), start=1):
        yield f"{query}:{number}", line


def entry(line: bytes, location: str) -> Entry | Rejected:
    """One line of an index; the line's key and moment come before its JSON in a file, and not at all from the server."""
    head, brace, rest = line.partition(b"{")
    try:
        values: dict[str, Any] = json.loads((brace + rest).decode("utf-8"))
        moment = str(values.get("timestamp") or head.split()[1].decode("ascii"))
        numbers = int(values["offset"]), int(values["length"])
        if (
            min(numbers) < 0
            or numbers[1] == 0
            or ".." in str(values["filename"]).split("/")
            or "://" in str(values["filename"])
        ):
            return Rejected(location, "bad index entry", line[:300].decode("utf-8", "replace"))
        texts = (str(values.get(key) or "") for key in ("status", "mime-detected", "languages"))
        status, mime, languages = texts
        return Entry(
            str(values["url"]),
            str(values["filename"]),
            *numbers,
            moment,
            status,
            mime or str(values.get("mime") or ""),
            languages,
        )
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, AttributeError) as error:
        return Rejected(location, "bad index entry", because(error))


def _wanted(found: Entry, source: CommonCrawl) -> bool:
    """Whether an entry is one of those asked for. A pattern ends in `*`, or is the address itself; scheme and `www.` do not count."""
    address = _bare(found.url)
    patterns = [_bare(pattern) for pattern in source.urls]
    matches = any(address.startswith(p[:-1]) if p.endswith("*") else address.rstrip("/") == p.rstrip("/") for p in patterns)
    return (
        (matches or not patterns)
        and (not source.statuses or found.status in source.statuses)
        and (not source.media_types or found.mime in source.media_types)
        and (not source.languages or any(code in source.languages for code in found.languages.split(",")))
    )


def _bare(url: str) -> str:
    return url.partition("://")[2].removeprefix("www.") if "://" in url else url.removeprefix("www.")


def pages(source: CommonCrawl, root: Path, fetch: Fetch) -> Iterator[Page | Rejected]:
    """The pages behind the entries, each fetched by its range of its WARC file, or read from a local copy."""
    for found in entries(source, root, fetch):
        if isinstance(found, Rejected):
            yield found
            continue
        location = f"{found.filename}@{found.offset}"
        if found.length > source.max_record_bytes:
            yield Rejected(location, "record too large", f"{found.length} bytes, at most {source.max_record_bytes}")
            continue
        try:
            data = _range(found, source, root, fetch)
        except NotFetched as error:
            yield Rejected(location, *error.args)
            continue
        yield warc.page_of(data, location, source.max_record_bytes)


def _range(found: Entry, source: CommonCrawl, root: Path, fetch: Fetch) -> bytes:
    """The bytes of one record; raises NotFetched where they cannot be had exactly."""
    if not source.data.startswith(("http://", "https://")):
        path = Path(places.expand(source.data, root)) / found.filename
        try:
            with path.open("rb") as file:
                file.seek(found.offset)
                data = file.read(found.length)
        except OSError as error:
            raise NotFetched("not fetched", because(error)) from None
    else:
        last = found.offset + found.length - 1
        answer = followed(
            fetch,
            source.data.rstrip("/") + "/" + found.filename,
            found.length,
            {"Range": f"bytes={found.offset}-{last}", "Accept-Encoding": "identity"},
        )
        if answer.status != 206:
            raise NotFetched("HTTP status", f"{answer.status} {answer.url}, a range was asked for"[:300])
        data = answer.body
    if len(data) != found.length:
        raise NotFetched("truncated record", f"{len(data)} of {found.length} bytes")
    return data
