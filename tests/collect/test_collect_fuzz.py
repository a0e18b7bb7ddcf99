"""Any bytes, and real files with damage anywhere: no parser crashes, and every record is a document or a reject."""

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from midtrain_dagster.collect import robots
from midtrain_dagster.collect.collect import collect
from midtrain_dagster.collect.html import Page, extract, plain_text
from midtrain_dagster.collect.network import NotFetched, Response
from midtrain_dagster.collect.responses import page
from midtrain_dagster.collect.streams import damaged, opened
from midtrain_dagster.collect.wikipedia import plain
from midtrain_dagster.project.sources import source

BOUNDED = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
STORY = "Every morning the baker burnt one loaf on purpose, so that the others should know what was possible. "
ROWS = [
    {
        "id": str(n),
        "text": f"{n} {STORY}",
        "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
    }
    for n in range(12)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = pa.Table.from_pylist(ROWS)
PAGES = "".join(
    f"<page><title>T{n}</title><ns>0</ns><id>{n}</id><revision><text>{{{{t|x}}}} [[a|b]] {STORY}</text></revision></page>"
    for n in range(6)
)
WIKI = f'<mediawiki xml:lang="en"><siteinfo><base>https://w.example/x</base></siteinfo>{PAGES}</mediawiki>'.encode()
POSTS = "".join(
    f'<row Id="{n}" PostTypeId="1" Title="Q" Body="b" />\n<row Id="{n + 50}" PostTypeId="2" ParentId="{n}" Body="a" />\n'
    for n in range(6)
).encode()


def record(number: int, kind: str = "response") -> bytes:
    html = f"<html><body><article><p>{number} {STORY * 4}</p></article></body></html>".encode()
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html
    return (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.example/{number}\r\nContent-Length: {len(http)}\r\n\r\n".encode()
        + http
        + b"\r\n\r\n"
    )


def parquet() -> bytes:
    out = io.BytesIO()
    pa.parquet.write_table(TABLE, out, row_group_size=4)
    return out.getvalue()


def arrow(make: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    out = io.BytesIO()
    with make(out, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=4)
    return out.getvalue()


def epub() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("META-INF/container.xml", '<c xmlns="u"><rootfile full-path="a.opf"/></c>')
        archive.writestr("a.opf", '<p xmlns="u"><item id="a" href="a.html"/><itemref idref="a"/></p>')
        archive.writestr("a.html", f"<p>{STORY}</p>")
    return out.getvalue()


def seven() -> bytes:
    py7zr = pytest.importorskip("py7zr")
    out = io.BytesIO()
    with py7zr.SevenZipFile(out, "w") as archive:
        archive.writestr(POSTS, "Posts.xml")
    return out.getvalue()


WARC = [record(n) for n in range(4)]
FILES: dict[tuple[str, str], Callable[[], bytes]] = {
    ("jsonl", "a.jsonl"): lambda: LINES,
    ("jsonl", "a.json"): lambda: json.dumps(ROWS).encode(),
    ("jsonl", "a.jsonl.gz"): lambda: gzip.compress(LINES[:700], mtime=0) + gzip.compress(LINES[700:], mtime=0),
    ("jsonl", "a.jsonl.zst"): lambda: zstandard.compress(LINES),
    ("jsonl", "a.jsonl.bz2"): lambda: bz2.compress(LINES),
    ("instruction", "a.jsonl"): lambda: LINES,
    ("multimodal", "a.jsonl"): lambda: LINES.replace(b'"id"', b'"image"'),
    ("parquet", "a.parquet"): parquet,
    ("arrow", "a.arrow"): lambda: arrow(pa.ipc.new_file),
    ("arrow", "b.arrow"): lambda: arrow(pa.ipc.new_stream),
    ("warc", "a.warc"): lambda: b"".join(WARC),
    ("warc", "a.warc.gz"): lambda: b"".join(gzip.compress(r, mtime=0) for r in WARC),
    ("warc", "a.warc.zst"): lambda: b"".join(map(zstandard.compress, WARC)),
    ("wet", "a.wet.gz"): lambda: b"".join(gzip.compress(record(n, "conversion"), mtime=0) for n in range(4)),
    ("wikipedia", "a.xml"): lambda: WIKI,
    ("wikipedia", "a.xml.bz2"): lambda: bz2.compress(WIKI),
    ("stackexchange", "posts.xml"): lambda: POSTS,
    ("stackexchange", "a.7z"): seven,
    ("text", "a.txt"): lambda: b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n" + STORY.encode(),
    ("epub", "a.epub"): epub,
    ("common_crawl", "a.cdxj"): lambda: b'a 1 {"url": "http://a.example/", "filename": "x", "offset": "0", "length": "9", "status": "200", "mime": "text/html"}\n' * 3,
    ("code", "a.py"): lambda: b"# coding: latin-1\nimport os\n" * 20,
    ("docstrings", "a.py"): lambda: b'def f(a, b=1):\n    """Add.\n\n    >>> f(1)\n    2\n    """\n',
}  # fmt: skip
# Where damage strikes: a place as a share of the file, what is written there, how many bytes it takes away.
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=24), st.integers(0, 40)), min_size=1, max_size=4)
PIECES = st.lists(st.sampled_from([b"<", b">", b"</", b"{{", b"}}", b"[[", b"]]", b"{|", b"|}", b"<!--", b"-->", b"<math>", b"<ref", b"/>", b"&#0;", b"\xff", b"\0", b"a ", b"\n", b"<p", b"<table>", b"<svg>", b"'''", b"=="]), max_size=60)  # fmt: skip


def damage(data: bytes, wounds: list[tuple[float, bytes, int]]) -> bytes:
    for share, written, taken in wounds:
        at = int(share * len(data))
        data = data[:at] + written + data[at + taken :]
    return data


def counts(root: Path, kind: str, name: str) -> tuple[int, int]:
    """Documents and rejects; every row has a reason and a location."""
    options: dict[str, object] = {"max_record_bytes": 1 << 16}
    if kind == "common_crawl":
        options["data"] = "."
    if kind == "docstrings":
        options["packages"] = [name.removesuffix(".py")]
    location = "." if kind in ("code", "docstrings") else name
    batches = list(
        collect(
            source({"kind": kind, "name": "s", "location": location, **options}, "test"), root, datetime(2024, 1, 1, tzinfo=UTC)
        )
    )
    for batch in batches:
        assert all(batch.rejected["reason"].str.len_chars() > 0)
        assert all(batch.rejected["location"].str.len_chars() > 0)
        assert batch.documents["id"].is_unique().all()
    return sum(len(batch.documents) for batch in batches), sum(len(batch.rejected) for batch in batches)


@pytest.mark.parametrize(("kind", "name"), FILES)
@BOUNDED
@given(wounds=DAMAGE)
@example(wounds=[(1.0, b"", 0)])
@example(wounds=[(0.5, b"", 1 << 20)])
def test_damage_anywhere_is_counted(tmp_path: Path, kind: str, name: str, wounds: list[tuple[float, bytes, int]]) -> None:
    data = damage(FILES[kind, name](), wounds)
    (tmp_path / name).write_bytes(data)
    kept, lost = counts(tmp_path, kind, name)
    if name == "a.jsonl":
        assert kept + lost == sum(bool(line.strip()) for line in data.split(b"\n")) or not data
    elif kind not in ("stackexchange", "wikipedia", "common_crawl", "docstrings", "warc", "wet", "jsonl"):
        assert kept + lost >= 1


def test_undamaged_files_are_read_whole(tmp_path: Path) -> None:
    expected = {
        "jsonl": 12,
        "instruction": 12,
        "multimodal": 12,
        "parquet": 12,
        "arrow": 12,
        "warc": 4,
        "wet": 4,
        "wikipedia": 6,
        "stackexchange": 6,
    }
    for (kind, name), make in FILES.items():
        root = tmp_path / f"{kind}-{name}"
        root.mkdir()
        (root / name).write_bytes(make())
        kept, lost = counts(root, kind, name)
        assert (kept, lost) == ((0, 3) if kind == "common_crawl" else (expected.get(kind, 1), 0)), (kind, name)


@BOUNDED
@given(pieces=PIECES)
def test_markup_of_any_shape(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    assert isinstance(plain(text.decode("utf-8", "replace")), str)
    assert isinstance(plain_text(text.decode("utf-8", "replace")), str)
    for fast in (True, False):
        found = extract(Page("http://a.example/", text, None, None, "here", {}), "trafilatura", fast)
        assert (found.problem is None) == bool(found.text)


@BOUNDED
@given(body=st.binary(max_size=200), encoding=st.sampled_from(["gzip", "deflate", "br", "x"]), transfer=st.sampled_from(["chunked", ""]), magic=st.sampled_from([b"", b"\x1f\x8b\x08", b"a\r\n", b"ffffffff\r\n"]))  # fmt: skip
def test_bodies_in_any_encoding(body: bytes, encoding: str, transfer: str, magic: bytes) -> None:
    fields = {"content-type": "text/html; charset=\xff", "content-encoding": encoding, "transfer-encoding": transfer}
    found = page("http://a.example/", 200, fields, magic + body, None, "here", 100)
    assert found.location == "here"


@BOUNDED
@given(data=st.binary(max_size=300), path=st.text(max_size=40))
def test_robots_of_any_bytes(data: bytes, path: str) -> None:
    rules = robots.parse(b"User-agent: *\nDisallow: /" + data, "midtrain")
    assert rules.allow("http://a.example/" + path) in (True, False)


@BOUNDED
@given(members=st.lists(st.binary(max_size=400), min_size=1, max_size=4), wounds=DAMAGE)
def test_gunzip_ends_with_all_bytes_or_says_so(
    tmp_path: Path, members: list[bytes], wounds: list[tuple[float, bytes, int]]
) -> None:
    whole = b"".join(gzip.compress(member, mtime=0) for member in members)
    path = tmp_path / "a.gz"
    path.write_bytes(whole)
    with opened(path) as file:
        assert file.read() == b"".join(members)
    path.write_bytes(damage(whole, wounds))
    try:
        with opened(path) as file:
            file.read()
    except damaged():
        pass


@BOUNDED
@given(data=st.binary(max_size=300), url=st.text(max_size=30))
def test_a_crawl_of_any_answers(data: bytes, url: str) -> None:
    from midtrain_dagster.collect.crawl import pages
    from midtrain_dagster.project.sources import Crawl

    def fetch(address: str, limit: int, headers: object = None) -> Response:
        if "gone" in address:
            raise NotFetched("not fetched", address)
        fields = {"content-type": "text/html", "location": url}
        body = (
            b"<html><a href='"
            + url.encode("utf-8", "replace")
            + b"'>x</a><link rel=alternate type='text/xml' href=/feed>"
            + data
        )
        return Response(address, 302 if address.endswith("x") else 200, fields, body)

    class Clock:
        def monotonic(self) -> float:
            return 0.0

        def sleep(self, seconds: float, /) -> None:
            raise AssertionError("a crawl without delays waits for nothing")

    found = list(pages(Crawl(name="s", location="http://a.example/", max_pages=6, delay=0, sitemaps=False), fetch, Clock()))
    assert 1 <= len(found) <= 10
