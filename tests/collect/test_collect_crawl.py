"""A live crawl and the Common Crawl index, against servers on the loopback interface; addresses are checked before connecting."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from midtrain_dagster.collect import crawl, robots
from midtrain_dagster.collect.collect import collect, fingerprint
from midtrain_dagster.collect.html import Page
from midtrain_dagster.collect.network import Network, NotFetched, Response, public
from midtrain_dagster.collect.records import Rejected
from midtrain_dagster.collect.warc import write_warc
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.sources import Crawl, source

STORY = "The ferryman counted his passengers twice, once on each bank, and the two numbers had never yet agreed. "
Answer = tuple[int, dict[str, str], bytes]


class Site(BaseHTTPRequestHandler):
    """Answers from the server's table of paths; ranges are served of what is there."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        status, fields, body = self.server.table.get(self.path.split("?")[0], (404, {}, b""))  # type: ignore[attr-defined]
        wanted = self.headers.get("Range")
        if wanted and status == 200:
            first, last = wanted.removeprefix("bytes=").split("-")
            status, body = 206, body[int(first) : int(last) + 1]
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            pass  # the crawler had enough

    def log_message(self, *args: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def site() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.table, server.asked = {}, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def at(site: Any, path: str = "/") -> str:
    return f"http://127.0.0.1:{site.server_port}{path}"


def page(text: str, *links: str, head: str = "") -> Answer:
    anchors = "".join(f'<p><a href="{link}">{link}</a></p>' for link in links)
    return (
        200,
        {},
        f"<html><head><title>{text}</title>{head}</head><body><article><p>{text} {STORY * 4}</p>{anchors}</article></body></html>".encode(),
    )


def settings(site: Any, **options: Any) -> Crawl:
    values = {"kind": "crawl", "name": "s", "location": at(site), "allow_private": True, "delay": 0, **options}
    found = source(values, where="test")
    assert isinstance(found, Crawl)
    return found


def crawled(site: Any, **options: Any) -> tuple[list[str], dict[str, str]]:
    """Paths of the pages, and path -> reason of what is none."""
    start = at(site, "")
    items = list(crawl.pages(settings(site, **options), Network("midtrain", allow_private=True, seconds=5)))
    kept = [item.url.removeprefix(start) for item in items if isinstance(item, Page)]
    return kept, {item.location.removeprefix(start): item.reason for item in items if isinstance(item, Rejected)}


def test_links_sitemaps_feeds_and_robots(site: Any) -> None:
    feed_link = '<link rel="alternate" type="application/rss+xml" href="/feed.xml">'
    sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><url><loc>{at(site, "/mapped")}</loc></url><url><loc>http://elsewhere.example/</loc></url></urlset>'
    index = f'<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><sitemap><loc>{at(site, "/map.xml.gz")}</loc></sitemap></sitemapindex>'
    site.table |= {
        "/robots.txt": (
            200,
            {},
            f"User-agent: *\nDisallow: /secret\nAllow: /secret/open\nSitemap: {at(site, '/index.xml')}".encode(),
        ),
        "/": page(
            "Home",
            "/a",
            "/secret/x",
            "/secret/open",
            "/picture.png",
            "http://elsewhere.example/",
            "/moved",
            "/gone",
            head=feed_link,
        ),
        "/a": page("A", "/b", "/"),
        "/b": page("B", "/c"),
        "/c": page("C"),
        "/secret/x": page("Secret"),
        "/secret/open": page("Open"),
        "/moved": (301, {"Location": "/target"}, b""),
        "/target": page("Target"),
        "/mapped": page("Mapped"),
        "/fed": page("Fed"),
        "/index.xml": (200, {"Content-Type": "application/xml"}, index.encode()),
        "/map.xml.gz": (200, {"Content-Type": "application/gzip"}, gzip.compress(sitemap.encode())),
        "/feed.xml": (200, {}, f"<rss><channel><item><link>{at(site, '/fed')}</link></item></channel></rss>".encode()),
    }
    kept, lost = crawled(site, max_depth=2)
    assert sorted(kept) == ["/", "/a", "/b", "/fed", "/mapped", "/secret/open", "/target"]
    assert lost == {"/secret/x": "robots.txt forbids", "/moved": "redirect", "/gone": "HTTP status"}
    assert "/secret/x" not in site.asked
    assert "/picture.png" not in site.asked
    assert site.asked.count("/robots.txt") == 1
    assert len(site.asked) == len(set(site.asked))


def test_pages_and_bytes_are_bounded(site: Any) -> None:
    site.table |= {f"/{n}": page(f"Page {n}", f"/{n + 1}", f"/{n + 2}") for n in range(60)}
    site.table["/"] = page("Home", "/0")
    kept, lost = crawled(site, max_pages=7, max_depth=100)
    assert (len(kept), lost) == (7, {})
    kept, lost = crawled(site, max_depth=100, max_bytes=3 * len(site.table["/1"][2]))
    assert 2 <= len(kept) <= 3
    assert set(lost.values()) <= {"record too large"}
    assert crawled(site, max_depth=0)[0] == ["/"]


def test_one_host_is_asked_no_sooner_than_it_says(site: Any) -> None:
    class Clock:
        time, slept = 0.0, list[float]()

        def monotonic(self) -> float:
            return self.time

        def sleep(self, seconds: float, /) -> None:
            self.slept.append(seconds)
            self.time += seconds

    site.table |= {
        "/robots.txt": (200, {}, b"User-agent: midtrain-dagster\nCrawl-delay: 7"),
        "/": page("Home", "/a"),
        "/a": page("A"),
    }
    clock = Clock()
    items = list(
        crawl.pages(
            settings(site, delay=2), Network("midtrain", allow_private=True), clock, lambda: datetime(2024, 1, 1, tzinfo=UTC)
        )
    )
    assert len(items) == 2
    assert clock.slept == [7, 7]


def test_robots_that_fail_forbid_all_and_none_allows_all(site: Any) -> None:
    site.table |= {"/robots.txt": (503, {}, b""), "/": page("Home")}
    assert crawled(site) == ([], {"/": "robots.txt forbids"})
    del site.table["/robots.txt"]
    assert crawled(site) == (["/"], {})


def test_bombs_slow_servers_and_redirect_loops(site: Any) -> None:
    bomb = gzip.compress(b"<html>" + b" " * (4 << 20), mtime=0)
    site.table |= {
        "/": page("Home", "/bomb", "/long", "/loop", "/cut"),
        "/bomb": (200, {"Content-Encoding": "gzip"}, bomb),
        "/long": (200, {}, b"x" * (2 << 20)),
        "/loop": (302, {"Location": "/loop?1"}, b""),
        "/cut": (200, {"Content-Length": "99999"}, b"<html>"),
    }
    kept, lost = crawled(site, max_record_bytes=1 << 20)
    assert kept == ["/"]
    assert lost["/bomb"] == lost["/long"] == "record too large"
    assert lost["/cut"] in ("truncated response", "not fetched")
    assert lost["/loop"] == "redirect"


def test_a_trickling_server_is_cut_off() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def trickle() -> None:
        connection, _ = server.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 500:
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    return
                stop.wait(0.05)

    stop = threading.Event()
    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    with pytest.raises(NotFetched):
        Network("midtrain", allow_private=True, seconds=0.4)(f"http://127.0.0.1:{server.getsockname()[1]}/", 1000)
    stop.set()
    thread.join(30)
    server.close()


def test_private_addresses_are_refused_by_name_and_after_a_redirect(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.table["/"] = page("Home")
    items = list(crawl.pages(settings(site, allow_private=False), Network("midtrain")))
    assert [item.reason for item in items if isinstance(item, Rejected)] == ["private address"]
    answers = {"inside.example": "10.0.0.7", "mixed.example": "93.184.216.34"}

    def resolved(host: str, port: int, **options: Any) -> list[Any]:
        found = [answers.get(host, host)] + (["::ffff:127.0.0.1"] if host == "mixed.example" else [])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    for url in ("http://inside.example/", "http://mixed.example/", f"http://127.0.0.1:{site.server_port}/", "http://[::1]/"):
        with pytest.raises(NotFetched, match="private address"):
            Network("midtrain")(url, 1000)
    assert site.asked == []

    def outside(url: str, limit: int, headers: Mapping[str, str] | None = None) -> Response:
        if url == "http://outside.example/":
            return Response(url, 302, {"location": at(site)}, b"")
        return (
            Response(url, 404, {}, b"")
            if url.startswith("http://outside.example")
            else Network("midtrain")(url, limit, headers)
        )

    seeded = settings(site, location="http://outside.example/", hosts=["127.0.0.1"], allow_private=False)
    reasons = [item.reason for item in crawl.pages(seeded, outside) if isinstance(item, Rejected)]
    assert reasons == ["redirect", "private address"]
    assert site.asked == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255",
     "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::7f00:1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not public(address)
    assert public("93.184.216.34")
    assert public("2606:2800:220:1:248:1893:25c8:1946")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://user:secret@a.example/", "http://a.example:99999/", "http:///x", "gopher://a"]
)
def test_addresses_that_are_not_of_the_web(url: str) -> None:
    with pytest.raises(NotFetched, match="bad address"):
        Network("midtrain")(url, 10)


def test_robots_longest_match_groups_and_wildcards() -> None:
    rules = robots.parse(
        b"User-agent: other\nDisallow: /\n\nUser-agent: midtrain\nUser-agent: third\nDisallow: /a\nAllow: /a/b\nDisallow: /*.pdf$\n"
        b"Disallow: /q?*x=\n\nUser-agent: *\nDisallow: /\n\nUser-agent: MIDTRAIN\nDisallow: /late # comment",
        "midtrain",
    )
    allowed = {
        path: rules.allow(f"http://h.example{path}")
        for path in ("/", "/a", "/a/b", "/x.pdf", "/x.pdf?1", "/q?y=1&x=2", "/late", "/%61")
    }
    assert [path for path, yes in allowed.items() if not yes] == ["/a", "/x.pdf", "/q?y=1&x=2", "/late", "/%61"]
    assert robots.parse(b"\xff\x00 garbage\nDisallow: /", "midtrain") == robots.ALL


def test_common_crawl_index_and_ranges(site: Any, tmp_path: Path) -> None:
    pages = [
        (
            f"https://docs.example/{n}",
            f"<html><body><article><p>{n} {STORY * 5}</p></article></body></html>",
            datetime(2024, 3, 1, tzinfo=UTC),
        )
        for n in range(3)
    ]
    whole, index = b"", []
    for url, html, date in pages:
        write_warc(tmp_path / "one.warc.gz", [(url, html, date)])
        member = (tmp_path / "one.warc.gz").read_bytes()
        values = {
            "url": url,
            "mime": "text/html",
            "status": "200",
            "filename": "crawl/a.warc.gz",
            "offset": str(len(whole)),
            "length": str(len(member)),
            "languages": "eng",
        }
        index.append(f"example,docs)/{url[-1]} 20240301000000 {json.dumps(values)}")
        whole += member
    (tmp_path / "one.warc.gz").unlink()
    wrong = json.loads(index[0].split(" ", 2)[2])
    outside = json.dumps({**wrong, "filename": "../../etc/passwd"})
    index += [
        "broken",
        f"a 1 {outside}",
        "b 1 " + json.dumps({**wrong, "offset": "5"}),
        "c 1 " + json.dumps({**wrong, "status": "404"}),
    ]
    (tmp_path / "a.cdxj.gz").write_bytes(gzip.compress("\n".join(index).encode()))
    site.table["/crawl/a.warc.gz"] = (200, {"Content-Type": "application/octet-stream"}, whole)
    site.table["/index"] = (
        200,
        {},
        "\n".join(line.split(" ", 2)[2] for line in index[:2])
        .replace('"languages"', '"timestamp": "2024", "languages"')
        .encode(),
    )
    common = {"kind": "common_crawl", "name": "s", "data": at(site), "allow_private": True}
    found = next(collect(source({**common, "location": "a.cdxj.gz"}, "test"), tmp_path))
    assert found.documents["url"].to_list() == [url for url, _, _ in pages]
    assert found.rejected["reason"].to_list() == ["bad index entry", "bad index entry", "broken WARC record"]
    asked = source({**common, "location": at(site, "/index"), "urls": ["docs.example/1"]}, "test")
    assert next(collect(asked, tmp_path)).documents["url"].to_list() == ["https://docs.example/1"]
    assert fingerprint(asked, tmp_path) == fingerprint(asked, tmp_path)
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc.gz").write_bytes(whole)
    local = source({**common, "location": "a.cdxj.gz", "data": ".", "urls": ["docs.example/2*"]}, "test")
    assert next(collect(local, tmp_path)).documents["url"].to_list() == ["https://docs.example/2"]


def test_a_crawl_end_to_end_and_a_bad_seed(site: Any, tmp_path: Path) -> None:
    site.table |= {"/": page("Home", "/a"), "/a": page("Second")}
    batch = next(collect(settings(site), tmp_path, datetime(2024, 5, 1, tzinfo=UTC)))
    assert batch.documents["url"].to_list() == [at(site), at(site, "/a")]
    assert "ferryman" in batch.documents["text"][1]
    with pytest.raises(MidtrainError, match="http or https"):
        list(collect(settings(site, location="ftp://a.example"), tmp_path))
