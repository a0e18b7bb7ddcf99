"""Files of each format, built as their makers build them: books, tables, archives, repositories, images, WARC and WET of other tools."""

import bz2
import gzip
import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
import zstandard

from midtrain_dagster.collect.collect import collect
from midtrain_dagster.collect.columns import corpora
from midtrain_dagster.collect.repository import ordered
from midtrain_dagster.collect.warc import write_warc
from midtrain_dagster.collect.wikipedia import plain
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.kinds import implied
from midtrain_dagster.project.sources import source

STORY = "The clockmaker kept one clock that ran backwards, and on bad days he liked to sit and watch it win. "


def run(root: Path, kind: str, location: str, **options: Any) -> tuple[pl.DataFrame, dict[str, int]]:
    """Documents, and rejects by reason."""
    checked = source({"kind": kind, "name": "s", "location": location, **options}, where="test")
    batches = list(collect(checked, root, datetime(2024, 5, 1, tzinfo=UTC)))
    reasons = pl.concat([b.rejected for b in batches])["reason"].value_counts()
    return pl.concat([b.documents for b in batches]), dict(reasons.iter_rows())


def epub(path: Path, chapters: list[str], **extra: bytes) -> None:
    """An EPUB as the Open Container Format has it: the mimetype first and stored, a container, a package, chapters."""
    package = f"""<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
    <dc:title>A Tale</dc:title><dc:creator>N. N.</dc:creator><dc:language>en-GB</dc:language><dc:date>1999-02-03</dc:date></metadata>
    <manifest>{"".join(f'<item id="c{n}" href="text/chapter%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters)))}</manifest>
    <spine>{"".join(f'<itemref idref="c{n}"/>' for n in reversed(range(len(chapters))))}</spine></package>"""
    container = '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/content.opf", package)
        for number, body in enumerate(chapters):
            page = f'<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>no</title></head><body>{body}</body></html>'
            archive.writestr(f"OEBPS/text/chapter {number}.xhtml", page)
        for name, data in extra.items():
            archive.writestr(name, data)


def test_epub_in_the_order_of_its_spine(tmp_path: Path) -> None:
    epub(tmp_path / "a.epub", ["<h1>Two</h1><p>Second &amp; last.</p>", "<h1>One</h1><p>First <em>of</em> all.</p>"])
    kept, lost = run(tmp_path, "epub", ".")
    assert kept["text"].to_list() == ["One\n\nFirst of all.\n\nTwo\n\nSecond & last."]
    assert (kept["language"][0], kept["created"][0].year, lost) == ("en", 1999, {})
    assert json.loads(kept["metadata"][0])["title"] == "A Tale"


def test_epub_zip_slip_bomb_and_entity_bomb(tmp_path: Path) -> None:
    epub(tmp_path / "a-slip.epub", ["<p>x</p>"], **{"../../evil.txt": b"x"})
    epub(tmp_path / "b-bomb.epub", [" " * (3 << 20)])
    epub(tmp_path / "c-entity.epub", ["<p>x</p>"])
    billion = b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><container>&b;</container>'
    members = zipfile.ZipFile(tmp_path / "c-entity.epub")
    with zipfile.ZipFile(tmp_path / "d-entity.epub", "w") as archive:
        for name in members.namelist():
            archive.writestr(name, billion if name == "META-INF/container.xml" else members.read(name))
    (tmp_path / "c-entity.epub").unlink()
    kept, lost = run(tmp_path, "epub", ".", max_record_bytes=1 << 20)
    assert len(kept) == 0
    assert lost == {"unsafe path in archive": 1, "record too large": 1, "unreadable book": 1}
    assert sorted(p.name for p in tmp_path.parent.glob("**/evil.txt")) == []


def pdf(*pages: str) -> bytes:
    """A PDF with a text layer, one line a page."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents {5 + 2 * number} 0 R>>"
        )
        objects.append(f"<</Length {len(stream)}>>stream\n{stream}\nendstream")
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, 2)
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(out.tell())
        out.write(f"{number} 0 obj{body}endobj\n".encode())
    start = out.tell()
    out.write(
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
        + b"".join(b"%010d 00000 n \n" % place for place in places)
    )
    out.write(f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF".encode())
    return out.getvalue()


def test_pdf_with_and_without_a_text_layer(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("Hello, reader.", "A second page."))
    (tmp_path / "b.pdf").write_bytes(pdf(""))
    (tmp_path / "c.pdf").write_bytes(pdf("One", "Two", "Three"))
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.4\nnothing more")
    kept, lost = run(tmp_path, "pdf", ".", max_pages=2)
    assert kept["text"].to_list() == ["Hello, reader.\n\nA second page."]
    assert lost == {"no text layer": 1, "too many pages": 1, "unreadable file": 1}


def test_arrow_file_and_stream_zstandard_and_bzip2(tmp_path: Path) -> None:
    table = pa.table({"id": [f"r{n}" for n in range(600)], "text": [f"{n} {STORY}" for n in range(600)]})
    with pyarrow.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=250)
    with pyarrow.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=250)
    table_lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    (tmp_path / "lines.jsonl.zst").write_bytes(zstandard.compress(table_lines[:900]) + zstandard.compress(table_lines[900:]))
    (tmp_path / "lines.jsonl.bz2").write_bytes(bz2.compress(table_lines[:900]) + bz2.compress(table_lines[900:]))
    for kind, name in (
        ("arrow", "file.arrow"),
        ("arrow", "stream.arrow"),
        ("jsonl", "lines.jsonl.zst"),
        ("jsonl", "lines.jsonl.bz2"),
    ):
        kept, lost = run(tmp_path, kind, name)
        assert (kept["text"].to_list(), lost) == (table["text"].to_pylist(), {}), name
    cut = (tmp_path / "stream.arrow").read_bytes()[:-3000]
    (tmp_path / "stream.arrow").write_bytes(cut)
    kept, lost = run(tmp_path, "arrow", "stream.arrow")
    assert (len(kept), lost) == (500, {"unreadable file": 1})


def record(kind: str, url: str, body: bytes, media: str = "application/http; msgtype=response", **fields: str) -> bytes:
    """A record as wget and Common Crawl write it: angle brackets about addresses, digests, no order of fields to rely on."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return (
        (
            f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{abs(hash(url)):032x}>\r\nWARC-Target-URI: <{url}>\r\n"
            f"WARC-Date: 2024-05-01T10:20:30Z\r\nWARC-IP-Address: 127.0.0.1\r\n{more}Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        + b"\r\n\r\n"
    )


def html(text: str, charset: str = "utf-8") -> bytes:
    return f"<html><head><meta charset={charset}><title>T</title></head><body><article><p>{text} {STORY * 4}</p></article></body></html>".encode(
        charset
    )


def chunked(body: bytes) -> bytes:
    return (
        b"".join(b"%x\r\n%s\r\n" % (len(body[n : n + 100]), body[n : n + 100]) for n in range(0, len(body), 100)) + b"0\r\n\r\n"
    )


def test_warc_as_wget_writes_it(tmp_path: Path) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    records = [
        record("warcinfo", "http://a.example/info", b"software: Wget\r\n", "application/warc-fields"),
        record("request", "http://a.example/1", b"GET /1 HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
        record("response", "http://a.example/1", ok + b"\r\n" + html("plain")),
        record("response", "http://a.example/2", ok + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(html("zipped"))),
        record("response", "http://a.example/3", ok + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(html("chunked"))),
        record("response", "http://a.example/4", ok + b"\r\n" + html("caf\xe9", "iso-8859-1")),
        record("response", "http://a.example/5", b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n" + html("gone")),
        record("response", "http://a.example/6", b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG"),
        record("resource", "metadata://a.example/log", b"log", "text/plain"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    (tmp_path / "a.warc.zst").write_bytes(b"".join(map(zstandard.compress, records)))
    for name in ("a.warc", "a.warc.gz", "a.warc.zst"):
        kept, lost = run(tmp_path, "warc", name)
        assert [text.split()[0] for text in kept["text"]] == ["plain", "zipped", "chunked", "café"], name
        assert lost == {"HTTP status": 1, "not HTML": 1}
        assert kept["url"][0] == "http://a.example/1"
        assert json.loads(kept["metadata"][0])["title"] == "T"


def test_wet(tmp_path: Path) -> None:
    body = f"A title\n{STORY}\nMüller\n".encode()
    records = [
        record("warcinfo", "x:y", b"a: b\r\n", "application/warc-fields"),
        record("conversion", "http://a.example/1", body, "text/plain", WARC_Identified_Content_Language="deu,eng"),
        record("conversion", "http://a.example/2", b"\xff\xfe\xfd", "text/plain"),
    ]
    (tmp_path / "a.warc.wet.gz").write_bytes(b"".join(map(gzip.compress, records)))
    kept, lost = run(tmp_path, "wet", ".")
    assert (kept["url"].to_list(), kept["language"][0], len(lost)) == (["http://a.example/1"], "de", 1)
    assert kept["text"][0].endswith("Müller")


POSTS = f"""<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="1" PostTypeId="1" AcceptedAnswerId="2" Title="Why backwards?" Body="&lt;p&gt;{STORY}&lt;/p&gt;" CreationDate="2015-01-02T03:04:05.678" />
  <row Id="2" PostTypeId="2" ParentId="1" Body="&lt;p&gt;Because $x$.&lt;/p&gt;" Score="3" />
</posts>
"""


def test_stackexchange_in_7z_with_a_zip_slip_a_bomb_and_a_cut_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    py7zr = pytest.importorskip("py7zr")
    monkeypatch.setattr("py7zr.py7zr.check_archive_path", lambda name: True)  # py7zr writes no unsafe path
    (tmp_path / "Posts.xml").write_text(POSTS)
    for name, inside in (("clocks.stackexchange.com.7z", "Posts.xml"), ("slip.7z", "../Posts.xml"), ("none.7z", "Users.xml")):
        with py7zr.SevenZipFile(tmp_path / name, "w") as archive:
            archive.writestr(POSTS, inside)
    with py7zr.SevenZipFile(tmp_path / "bomb.7z", "w") as archive:
        archive.writestr(b"\n" * (8 << 20), "Posts.xml")
    cut = (tmp_path / "clocks.stackexchange.com.7z").read_bytes()
    (tmp_path / "cut.7z").write_bytes(cut[:-40])
    (tmp_path / "Posts.xml").unlink()
    monkeypatch.undo()
    kept, lost = run(tmp_path, "stackexchange", ".", max_archive_bytes=1 << 20)
    assert kept["url"].to_list() == ["https://clocks.stackexchange.com/questions/1"]
    assert kept["text"][0].endswith("Answer: Because $x$.")
    assert lost == {"unsafe path in archive": 1, "unreadable archive": 2, "record too large": 1}
    assert not list(tmp_path.parent.glob("Posts.xml"))


def test_7z_without_py7zr_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "py7zr", None)
    (tmp_path / "a.7z").write_bytes(b"7z")
    with pytest.raises(MidtrainError, match=r"archives\]"):
        run(tmp_path, "stackexchange", "a.7z")


def test_presets_bring_licence_domain_and_format_and_the_stack_names_several_licences(tmp_path: Path) -> None:
    stack = [
        {"content": "x = 1", "hexsha": "a1", "max_stars_repo_licenses": ["MIT", "Apache-2.0"]},
        {"content": "y = 2", "hexsha": "a2"},
    ]
    pl.DataFrame(
        stack, schema={"content": pl.String, "hexsha": pl.String, "max_stars_repo_licenses": pl.List(pl.String)}
    ).write_parquet(tmp_path / "s.parquet")
    found = run(tmp_path, "parquet", "s.parquet", preset="the_stack")[0]
    assert found["license"].to_list() == ["Apache-2.0 AND MIT", None]
    assert found.select("domain", "format").row(0) == ("code", "code")
    assert run(tmp_path, "parquet", "s.parquet", preset="the_stack", domain="x")[0]["domain"].to_list() == ["x", "x"]
    (tmp_path / "c.jsonl").write_text(
        json.dumps({"text": STORY, "url": "https://a.example/", "timestamp": "2019-04-25T12:57:54Z"})
    )
    assert run(tmp_path, "jsonl", "c.jsonl", preset="c4")[0]["license"].to_list() == ["ODC-By-1.0"]
    assert run(tmp_path, "jsonl", "c.jsonl", preset="c4", license="CC0-1.0")[0]["license"].to_list() == ["CC0-1.0"]
    with pytest.raises(MidtrainError, match="no preset"):
        run(tmp_path, "jsonl", "c.jsonl", preset="c5")


def test_wikitext_comments_tables_and_nested_captions() -> None:
    text = "<!-- cite with <ref> --> '''A''' is.<ref name=x/> [[File:a.png|thumb|of [[b]] and [[c|d]]]] End.\n{| class=x\n| {{t|}} || 1\n{|\n| in\n|}\n|}\nLast<ref>\ngone</ref>."
    assert plain(text) == "A is. End.\n\nLast."
    assert plain("[[File:open|thumb text\nnext line") == "next line"
    dressed = "It ({{IPAc-en|x}}) is {{convert|12|km|mi|abbr=on}} long {{lang|de|lang}}, {{nowrap|so {{lang|fr|loin}}}} {{citation|y}}."
    assert plain(dressed) == "It is 12 km long lang, so loin."
    assert (
        plain("They read {{lang|fr|de [[Commune de Paris|la Commune]]}} and {{nowrap|[[a|b]]}}.")
        == "They read de la Commune and b."
    )


def test_dumps_in_utf_16_are_read_and_files_without_records_are_rejects(tmp_path: Path) -> None:
    dump = '<mediawiki xml:lang="bg"><page><title>Календар</title><ns>0</ns><id>1</id><revision><text>Календарът е.</text></revision></page></mediawiki>'
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(dump.encode("utf-16")))
    (tmp_path / "b.xml").write_text("<mediawiki></mediawiki>")
    kept, lost = run(tmp_path, "wikipedia", ".")
    assert (kept["text"].to_list(), kept["language"].to_list()) == (["Календар\n\nКалендарът е."], ["bg"])
    assert lost == {"no pages": 1}
    (tmp_path / "a.jsonl").write_bytes(
        "\n".join(json.dumps({"text": text}) for text in ("one", "two")).encode("utf-16-le", "strict")
    )
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe" + (tmp_path / "a.jsonl").read_bytes())
    assert run(tmp_path, "jsonl", "a.jsonl")[0]["text"].to_list() == ["one", "two"]
    (tmp_path / "Posts.xml").write_text("<posts/>")
    assert run(tmp_path, "stackexchange", "Posts.xml")[1] == {"no posts": 1}


def test_a_saved_data_set_and_a_shelf_of_books(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    pl.DataFrame({"content": [STORY], "lang": ["en"], "date": ["2024-01-02"], "n": [1]}).write_parquet(
        tmp_path / "saved" / "a.parquet"
    )
    kept, lost = run(tmp_path, "huggingface", "saved")
    assert (kept["text"][0], kept["language"][0], kept["created"][0].year, lost) == (STORY, "en", 2024, {})
    assert json.loads(kept["metadata"][0]) == {"n": 1, "location": "a.parquet:1"}
    assert run(tmp_path, "huggingface", "saved", columns={"text": "text"})[1] == {"no text": 1}
    (tmp_path / "shelf").mkdir()
    epub(tmp_path / "shelf" / "a.epub", ["<p>Of paper.</p>"])
    (tmp_path / "shelf" / "b.pdf").write_bytes(pdf("Of pages."))
    (tmp_path / "shelf" / "c.txt").write_text("Of lines.")
    assert run(tmp_path, "books", "shelf")[0]["text"].to_list() == ["Of paper.", "Of pages.", "Of lines."]


@pytest.mark.parametrize(
    ("word", "location", "expected"),
    [
        ("WARC", "a.warc.gz", {"kind": "warc"}),
        ("common-crawl", "a.warc.gz", {"kind": "warc"}),
        ("common-crawl", "a.wet.gz", {"kind": "wet"}),
        ("Common Crawl", "a.cdxj", {"kind": "common_crawl"}),
        ("stack-exchange", "Posts.xml", {"kind": "stackexchange"}),
        ("wiki", "a.xml.bz2", {"kind": "wikipedia"}),
        (".jsonl.gz", "a.jsonl.gz", {"kind": "jsonl"}),
        ("web", "https://a.example/", {"kind": "crawl"}),
        ("ShareGPT", "a.jsonl", {"kind": "instruction"}),
        ("books", "a.epub", {"kind": "epub"}),
        ("gutenberg", "a.txt", {"kind": "text"}),
        ("repository", ".", {"kind": "code", "repository": True}),
        ("MegaMath", "a.parquet", {"kind": "huggingface", "preset": "megamath"}),
        ("the-pile", "a.jsonl.zst", {"kind": "huggingface", "preset": "pile"}),
        ("parchment", "a", None),
        ("pile", "a.jsonl.zst", {"kind": "huggingface", "preset": "pile"}),
    ],
)
def test_formats_go_by_the_words_people_use(word: str, location: str, expected: dict[str, Any] | None) -> None:
    if expected is None:
        with pytest.raises(MidtrainError, match="no format"):
            implied(word, location, frozenset(corpora()))
    else:
        assert implied(word, location, frozenset(corpora())) == expected


def test_a_repository_is_one_document_in_the_order_of_its_imports(tmp_path: Path) -> None:
    files = {
        "app.py": "from core import models\nimport tools.text as t\n",
        "core/__init__.py": "",
        "core/models.py": "from .base import Base\n",
        "core/base.py": "class Base: ...\n",
        "tools/text.py": "import os\n",
        "web/main.ts": "import {x} from './util'\n",
        "web/util.ts": "export const x = 1\n",
        "src/a.c": '#include "a.h"\n',
        "include/a.h": "int a(void);\n",
        "loop/a.py": "import loop.b\n",
        "loop/b.py": "import loop.a\n",
    }
    order = ordered(files)
    assert sorted(order) == sorted(files)
    for first, then in (
        ("core/base.py", "core/models.py"),
        ("core/models.py", "app.py"),
        ("tools/text.py", "app.py"),
        ("web/util.ts", "web/main.ts"),
        ("include/a.h", "src/a.c"),
    ):
        assert order.index(first) < order.index(then), (first, then)
    for name, text in files.items():
        path = tmp_path / "one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or "# package\n")
    (tmp_path / "one" / ".git").mkdir()
    (tmp_path / "two" / ".git").mkdir(parents=True)
    (tmp_path / "two" / "a.py").write_text("x = 1\n" * 400)
    (tmp_path / "two" / "b.py").write_text("y = 2\n" * 400)
    kept, lost = run(tmp_path, "code", ".", repository=True, max_repository_bytes=3000)
    assert not lost
    assert [json.loads(m)["repository"] for m in kept["metadata"]] == ["one", "two", "two"]
    assert sorted(json.loads(kept["metadata"][0])["files"]) == sorted(files)
    assert "# File: core/base.py\nclass Base" in kept["text"][0]
    assert kept["id"].n_unique() == 3


def test_images_with_captions_from_tables_and_pages(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"URL": "https://i.example/1.jpg", "TEXT": "A clock that runs backwards", "WIDTH": 640},
        {"image": {"path": "images/2.png", "bytes": None}, "caption": "A clockmaker at rest"},
        {"URL": "https://i.example/3.jpg", "TEXT": ""},
        {"TEXT": "No image here at all"},
        {"URL": "data:image/png;base64,xx", "TEXT": "An inline image of a clock"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kept, lost = run(tmp_path, "multimodal", "a.jsonl")
    assert kept["url"].to_list() == ["https://i.example/1.jpg", None]
    assert json.loads(kept["metadata"][1])["image"] == "images/2.png"
    assert lost == {"no caption": 1, "no image reference": 2}
    assert kept["format"].unique().to_list() == ["image_caption"]
    body = '<figure><img src="/a.png" alt="x"><figcaption>The shop in <b>winter</b></figcaption></figure><img src="b.png" alt="A pendulum, at rest"><img src="c.png">'
    write_warc(
        tmp_path / "a.warc.gz",
        [
            ("https://a.example/d/", body, datetime(2024, 1, 1, tzinfo=UTC)),
            ("https://a.example/e", "<p>none</p>", datetime(2024, 1, 1, tzinfo=UTC)),
        ],
    )
    kept, lost = run(tmp_path, "multimodal", "a.warc.gz")
    assert kept.select("text", "url").rows() == [
        ("The shop in winter", "https://a.example/a.png"),
        ("A pendulum, at rest", "https://a.example/d/b.png"),
    ]
    assert lost == {"no captioned image": 1}
