"""WARC (ISO 28500) and WET files: read as Common Crawl is, and written for small sites."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from midtrain_dagster.collect import responses
from midtrain_dagster.collect.charsets import decode
from midtrain_dagster.collect.html import Page
from midtrain_dagster.collect.records import Items, Record, Rejected, because, instant, language_code
from midtrain_dagster.collect.streams import damaged

SUFFIXES = (".warc", ".warc.gz", ".warc.zst", ".wet", ".wet.gz")
LANGUAGES = (  # ISO 639-3 and 639-1, of the languages that most of the web is in
    "eng:en deu:de fra:fr spa:es ita:it por:pt rus:ru zho:zh jpn:ja nld:nl pol:pl tur:tr kor:ko ara:ar ces:cs swe:sv vie:vi "
    "ind:id ukr:uk fas:fa ell:el hun:hu ron:ro dan:da fin:fi nor:no heb:he hin:hi tha:th bul:bg cat:ca hrv:hr srp:sr slk:sk "
    "slv:sl lit:lt lav:lv est:et msa:ms ben:bn tam:ta urd:ur kat:ka hye:hy eus:eu glg:gl sqi:sq isl:is lat:la mkd:mk"
)
TWO_LETTERS = dict(pair.split(":") for pair in LANGUAGES.split())
WINDOW = 1 << 20
PIECE = 16 << 10
LARGEST_HEADER = 1 << 20
SMALL = 512  # of Zstandard, whose ratio is not bounded
GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def pages(path: Path, name: str, limit: int) -> Iterator[Page | Rejected]:
    """The HTML pages of a file's responses, and those that could not be read. Requests and other records are no documents."""
    for found in _records(path, name, limit, "response"):
        yield found if isinstance(found, Rejected) else page(*found, limit)


def texts(path: Path, name: str, limit: int) -> Items:
    """The texts of a WET file's conversion records."""
    for found in _records(path, name, limit, "conversion"):
        if isinstance(found, Rejected):
            yield found
            continue
        headers, body, location = found
        try:
            text, _ = decode(body)
        except UnicodeError as error:
            yield Rejected(location, "invalid UTF-8", because(error))
            continue
        url = headers.get("WARC-Target-URI", "").strip("<>") or headers.get("WARC-Record-ID") or location
        language = language_code(_two_letters(headers.get("WARC-Identified-Content-Language")))
        title, _, _ = text.partition("\n")
        about = {"crawled": headers.get("WARC-Date"), "title": title.strip()[:300]}
        yield Record(url, text.strip(), location, url=url, language=language, metadata=about)


def _two_letters(languages: str | None) -> str | None:
    """Common Crawl writes ISO 639-3, the main language first (`eng,deu`)."""
    first = (languages or "").split(",")[0]
    return TWO_LETTERS.get(first, first if len(first) == 2 else None)


def _records(path: Path, name: str, limit: int, kind: str) -> Iterator[tuple[Any, bytes, str] | Rejected]:
    """Headers, body and location of the records of one type. After a broken record, reading goes on at the next one found.

    One record is held back until the next one's header has been read: only then is its length known to be right.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    offset: int | None = 0
    while offset is not None:
        held: tuple[Any, bytes, str] | Rejected | None = None
        last = offset
        try:
            with path.open("rb") as file:
                file.seek(offset)
                for record in ArchiveIterator(file, record_types=WarcRecordType.any_type, parse_http=False):
                    if held is not None:
                        yield held
                    last = record.stream_pos if record.stream_pos >= offset else offset + record.stream_pos
                    held = _read(record, f"{name}@{last}", limit, kind)
            if held is not None:
                yield held
            return
        except (OSError, ValueError, zlib.error) as error:
            offset = _next_record(path, last + 1)
            yield from _broken(path, name, last, held, offset, error)


def _read(record: Any, location: str, limit: int, kind: str) -> tuple[Any, bytes, str] | Rejected | None:
    declared = record.content_length
    wanted = (record.headers.get("WARC-Type") or "").lower() == kind
    if not wanted and declared <= limit:
        return None
    body = record.reader.read(min(limit, declared) + 1) if wanted else b""
    if declared > limit and len(body) > limit:
        return Rejected(location, "record too large", f"{declared} bytes, at most {limit}")
    if wanted and len(body) < declared:
        return Rejected(location, "truncated record", f"{len(body)} of {declared} bytes")
    return (dict(record.headers.items()), body, location) if wanted else None


def _broken(
    path: Path, name: str, last: int, held: Any, following: int | None, error: Exception
) -> Iterator[tuple[Any, bytes, str] | Rejected]:
    """What the record before the break and the break itself become. `following`: where reading goes on."""
    if held is None or isinstance(held, Rejected):
        yield held or Rejected(f"{name}@{last}", "broken WARC record", because(error))
        return
    end = _end(path, last, len(held[1]))
    if end is None:
        yield Rejected(held[2], "wrong record length", f"Content-Length {len(held[1])} does not end where the record does")
        return
    yield held
    if end != following:  # else the break is in a record that will be met again, and counted then
        yield Rejected(f"{name}@{last}+", "broken WARC record", because(error))


def _end(path: Path, offset: int, length: int) -> int | None:
    """Where the record at `offset` ends in the file; None where the two line ends that close it are not where they should be."""
    data, start, end = b"", 3, -1
    try:
        for piece, at in _member(path, offset):
            data, end = data + piece, at
            start = data.find(b"\r\n\r\n") + 4
            if len(data) > (start + length + 4 if start > 3 else LARGEST_HEADER):
                break
    except damaged():
        pass  # what came before the damage tells
    if start == 3 or data[start + length : start + length + 4] != b"\r\n\r\n":
        return None
    return end if end >= 0 else offset + start + length + 4


def _member(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """The bytes from `offset` on, decompressed, of one gzip member or Zstandard frame or of the rest of a plain file.

    With each piece goes where in the file it ends, -1 for a plain file.
    """
    with path.open("rb") as file:
        file.seek(offset)
        magic = file.read(4)
        file.seek(offset)
        if magic == ZSTANDARD:
            import zstandard

            frame = zstandard.ZstdDecompressor().decompressobj()
            while not frame.eof and (held := file.read(SMALL)):
                yield frame.decompress(held), file.tell() - len(frame.unused_data)
        elif magic.startswith(GZIP):
            inflater = zlib.decompressobj(31)
            while not inflater.eof and (held := inflater.unconsumed_tail or file.read(PIECE)):
                yield inflater.decompress(held, WINDOW), file.tell() - len(inflater.unused_data)
        else:
            yield from ((piece, -1) for piece in iter(lambda: file.read(PIECE), b""))


def _next_record(path: Path, offset: int) -> int | None:
    """Where the next record starts from `offset` on: a gzip member, a Zstandard frame or a version line; None at the end."""
    with path.open("rb") as file:
        start = file.read(4)
        mark = start[:3] if start.startswith(GZIP) else start if start == ZSTANDARD else b"WARC/1."
        file.seek(offset)
        window = b""
        while chunk := file.read(WINDOW):
            window += chunk
            at = window.find(mark)
            if at >= 0:
                return offset + at
            keep = min(len(window), len(mark) - 1)
            offset, window = offset + len(window) - keep, window[len(window) - keep :]
    return None


def page(headers: Mapping[str, str], block: bytes, location: str, limit: int) -> Page | Rejected:
    """A response record as a page."""
    status, fields, body = responses.parsed(block)
    url = headers.get("WARC-Target-URI", "").strip("<>")
    return responses.page(url, status, fields, body, instant(headers.get("WARC-Date")), location, limit)


def page_of(data: bytes, location: str, limit: int) -> Page | Rejected:
    """The page in the bytes of one record, as a range of a WARC file holds it."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    try:
        for record in ArchiveIterator(io.BytesIO(data), record_types=WarcRecordType.response, parse_http=False):
            found = _read(record, location, limit, "response")
            if found is not None:
                return found if isinstance(found, Rejected) else page(*found, limit)
    except (OSError, ValueError, zlib.error) as error:
        return Rejected(location, "broken WARC record", because(error))
    return Rejected(location, "no response record")


def write_warc(path: Path, pages: Iterable[tuple[str, str, datetime]]) -> int:
    """Write (url, html, date) as a WARC 1.1 file, one gzip member a record; equal pages give equal bytes. Returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("wb") as file:
        for url, html, date in pages:
            file.write(gzip.compress(_response(url, html.encode("utf-8"), date), compresslevel=6, mtime=0))
            count += 1
    partial.replace(path)
    return count


def _response(url: str, body: bytes, date: datetime) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    name = blake2b(url.encode() + b"\0" + body, digest_size=16).hexdigest()
    identifier = "-".join((name[:8], name[8:12], name[12:16], name[16:20], name[20:]))
    head = (
        "WARC/1.1\r\nWARC-Type: response\r\n"
        f"WARC-Record-ID: <urn:uuid:{identifier}>\r\n"
        f"WARC-Date: {date.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}\r\n"
        f"WARC-Target-URI: {url}\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"
