"""HTTP responses, from a WARC file or from the network: their header, and their body with its encodings undone within a limit."""

import io
import zlib
from collections.abc import Mapping
from datetime import datetime

from midtrain_dagster.collect.html import Page
from midtrain_dagster.collect.records import Rejected, because

HTML_TYPES = ("text/html", "application/xhtml+xml")


def parsed(block: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields (names in lower case) and body of a response as it went over the wire; status 0 where there is none."""
    head, _, body = block.partition(b"\r\n\r\n")
    status, _, rest = head.partition(b"\r\n")
    words = status.split()
    code = int(words[1]) if len(words) > 1 and words[1].isdigit() and len(words[1]) == 3 else 0
    fields = (line.decode("latin-1").partition(":") for line in rest.split(b"\r\n"))
    return code, {name.strip().lower(): value.strip() for name, _, value in fields}, body


def page(
    url: str, status: int, fields: Mapping[str, str], body: bytes, fetched: datetime | None, location: str, limit: int
) -> Page | Rejected:
    """A successful HTML response as a page of at most `limit` bytes, or why it is none."""
    media, _, parameters = fields.get("content-type", "").partition(";")
    if not url:
        return Rejected(location, "no target address")
    if status != 200:
        return Rejected(location, "HTTP status", f"{status} {url}"[:300])
    if media.strip().lower() not in HTML_TYPES:
        return Rejected(location, "not HTML", f"{media.strip() or 'no content type'} {url}"[:300])
    try:
        plain = decoded(body, fields, limit)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        return Rejected(location, "broken content encoding", because(error))
    if len(plain) > limit:
        return Rejected(location, "record too large", f"more than {limit} bytes when decompressed")
    charset = parameters.lower().partition("charset=")[2].strip(" \"';").split(";")[0] or None
    crawled = {"crawled": fetched.strftime("%Y-%m-%dT%H:%M:%SZ")} if fetched else {}
    return Page(url, plain, charset, fetched, location, crawled)


def decoded(body: bytes, fields: Mapping[str, str], limit: int) -> bytes:
    """At most `limit` + 1 bytes of the body. Common Crawl has undone the encodings but left their names in the header.

    Raises OSError, EOFError, ValueError or zlib.error for a body that is not what its header says, or ends early.
    """
    from fastwarc.stream_io import BrotliReader, ChunkedReader

    if "chunked" in fields.get("transfer-encoding", "").lower() and _starts_with_a_chunk(body):
        body = ChunkedReader(io.BytesIO(body)).read(limit + 1)
    encoding = fields.get("content-encoding", "").lower()
    if body.startswith(b"\x1f\x8b"):
        return _inflated(body, 31, limit)
    if encoding == "deflate" and not body.lstrip().startswith(b"<"):
        return _inflated(body, 15 if body[:1] == b"\x78" else -15, limit)
    if encoding == "br" and not body.lstrip().startswith(b"<"):
        return BrotliReader(io.BytesIO(body)).read(limit + 1)
    return body


def _starts_with_a_chunk(body: bytes) -> bool:
    size = body[:64].split(b"\r\n", 1)[0].split(b";")[0].strip()
    return 0 < len(size) <= 8 and all(digit in b"0123456789abcdefABCDEF" for digit in size)


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(window)
    plain = inflater.decompress(body, limit + 1)
    if not inflater.eof and len(plain) <= limit:
        raise EOFError("the compressed body ends early")
    return plain
