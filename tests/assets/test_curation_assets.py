"""Every source format of the survey, from its file to the selection, through the assets: counts add up, drops say why."""

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
import zstandard
from curation_project import Curated, curated

STORY = (
    "The lighthouse keeper counted the ships that passed, and of those that did not come back he kept a second list. {0} "
    "In the winter of that year the second list was longer than the first, and he began to write the names with more care. "
    "When the inspector came to see the books, he asked about list number {0}, and the keeper told him what it was for. "
    "The inspector was silent for a while. Then he asked to have the names, all of them, and to have them read out aloud. "
    "It took until the evening, and at the end the lamp had to be lit, and that was the only time it was ever lit late."
)


def story(number: int) -> str:
    return STORY.format(f"Page {number * 37}.").replace("winter", ("winter", "autumn", "spring")[number % 3])


def warc(path: Path) -> None:
    """As warcio writes it, which is not what reads it here; two pages that are too alike, one in another character set, one gone."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    math = '<math xmlns="http://www.w3.org/1998/Math/MathML"><msup><mi>x</mi><mn>2</mn></msup></math>'
    bodies = [
        ("200 OK", f"<p>{story(1)}</p><p>Where {math} is written.</p>".encode(), "text/html; charset=utf-8"),
        ("200 OK", f"<p>{story(1)}</p><p>Where {math} is written, too.</p>".encode(), "text/html"),
        (
            "200 OK",
            f"<p>Das Haus am Ufer gehörte niemandem mehr. {story(2)}</p>".encode("latin-1"),
            "text/html; charset=iso-8859-1",
        ),
        ("404 Not Found", b"<p>gone</p>", "text/html"),
        ("200 OK", b"<p></p>", "text/html"),
    ]
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, (status, body, media) in enumerate(bodies):
            page = b"<html lang=en><head><title>Lists</title></head><body><article>" + body + b"</article></body></html>"
            fields = StatusAndHeaders(status, [("Content-Type", media)], protocol="HTTP/1.1")
            url = f"https://coast.example/{number}"
            writer.write_record(writer.create_warc_record(url, "response", payload=io.BytesIO(page), http_headers=fields))


def wet(path: Path) -> None:
    body = ("Lists\n" + story(4)).encode()
    head = (
        "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://coast.example/wet\r\nWARC-Date: 2024-05-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:1>\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    path.write_bytes(gzip.compress(head.encode() + body + b"\r\n\r\n"))


def wikipedia(path: Path) -> None:
    """As export-0.11 has it: site information, an article with a template, a table, a reference and a formula, a redirect, a talk page."""
    text = f"'''Lists''' are {{{{cite|x}}}} kept.&lt;ref&gt;Source&lt;/ref&gt; {story(5)}\n{{| class=wikitable\n| a || b\n|}}\n&lt;math&gt;a^2&lt;/math&gt; ends it."
    page = "<page><title>{}</title><ns>{}</ns><id>{}</id>{}<revision><id>1</id><timestamp>2024-01-02T03:04:05Z</timestamp><text>{}</text></revision></page>"
    path.write_text(
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en"><siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>'
        + page.format("Lists", 0, 7, "", text)
        + page.format("List", 0, 8, '<redirect title="Lists"/>', "#REDIRECT [[Lists]]")
        + page.format("Talk:Lists", 1, 9, "", "Talk.")
        + "</mediawiki>"
    )


def stackexchange(path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    posts = f"""<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="1" PostTypeId="1" AcceptedAnswerId="3" CreationDate="2015-01-02T03:04:05.678" Score="9" ContentLicense="CC BY-SA 3.0" Title="Why two lists?" Body="&lt;p&gt;{story(6)}&lt;/p&gt;" Tags="&lt;lists&gt;" />
  <row Id="2" PostTypeId="2" ParentId="1" Score="12" Body="&lt;p&gt;No.&lt;/p&gt;" />
  <row Id="3" PostTypeId="2" ParentId="1" Score="3" Body="&lt;p&gt;Because {story(7)}&lt;/p&gt;" />
  <row Id="4" PostTypeId="1" Title="Unanswered" Body="&lt;p&gt;?&lt;/p&gt;" />
</posts>
"""
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writestr(posts, "Posts.xml")


def epub(path: Path) -> None:
    container = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>'
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Lists</dc:title>'
        '</metadata><manifest><item id="a" href="a.xhtml"/></manifest><spine><itemref idref="a"/></spine></package>'
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("b.opf", package)
        archive.writestr("a.xhtml", f"<html><body><h1>One</h1><p>{story(8)}</p></body></html>")


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_sources(root: Path) -> list[dict[str, Any]]:
    """A file of each format below `root`; the sources that read them."""
    root.mkdir()
    warc(root / "pages.warc.gz")
    wet(root / "pages.wet.gz")
    wikipedia(root / "wiki.xml")
    stackexchange(root / "lists.stackexchange.com.7z")
    (root / "books").mkdir()
    epub(root / "books" / "lists.epub")
    gutenberg = "Title: Lists\n\n*** START OF THE PROJECT GUTENBERG EBOOK LISTS ***\n{}\n*** END OF THE PROJECT GUTENBERG EBOOK LISTS ***\nLicence"
    (root / "books" / "lists.txt").write_text(gutenberg.format(story(9)))
    timestamp = {"timestamp": "2019-04-25T12:57:54Z"}
    (root / "c4.json.gz").write_bytes(gzip.compress(lines({"text": story(10), "url": "https://coast.example/c4", **timestamp})))
    pile = lines({"text": story(11), "meta": {"pile_set_name": "Books3"}}, {"text": ""})
    (root / "pile.jsonl.zst").write_bytes(zstandard.compress(pile))
    (root / "redstone.jsonl").write_bytes(lines({"id": "r1", "text": story(12), "url": "https://coast.example/red"}))
    pl.DataFrame({"id": ["m1"], "text": [story(13)], "url": ["https://coast.example/mega"]}).write_parquet(
        root / "mega.parquet"
    )
    (root / "saved").mkdir()
    table = pa.table({"content": [story(14)], "lang": ["en"]})
    with pyarrow.ipc.new_stream(str(root / "saved" / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table)
    (root / "saved" / "dataset_info.json").write_text("{}")
    (root / "code").mkdir()
    (root / "code" / "LICENSE").write_text("Permission is hereby granted, free of charge, to any person obtaining a copy")
    (root / "code" / "keeper.py").write_text(
        "def names(ships):\n    return [ship.name for ship in ships if not ship.back]\n" * 9
    )
    (root / "code" / "made.py").write_text("# @generated by a program\nx = 1\n")
    chat = [{"from": "human", "value": "What is the second list for?"}, {"from": "gpt", "value": story(15)}]
    alpaca = {"instruction": "Continue the story.", "input": story(16), "output": story(17)}
    (root / "chat.jsonl").write_bytes(lines({"conversations": chat}, alpaca))
    (root / "images.jsonl").write_bytes(
        lines({"url": "https://coast.example/lamp.jpg", "caption": "The lamp, lit late " + story(18)})
    )
    question = {
        "question": "How many tulips does a gardener keep who plants 12 rows of 7 and gives 9 away?",
        "answer": "#### 75",
    }
    (root / "tulips_test.jsonl").write_bytes(lines(question))
    return [
        {"name": "pages", "kind": "warc", "location": "in/pages.warc.gz"},
        {"name": "wet", "kind": "wet", "location": "in/pages.wet.gz"},
        {"name": "wiki", "kind": "wikipedia", "location": "in/wiki.xml"},
        {"name": "forum", "kind": "stackexchange", "location": "in/lists.stackexchange.com.7z"},
        {"name": "books", "kind": "books", "location": "in/books"},
        {"name": "c4", "kind": "jsonl", "preset": "c4", "location": "in/c4.json.gz"},
        {"name": "pile", "kind": "jsonl", "preset": "pile", "location": "in/pile.jsonl.zst"},
        {"name": "redstone", "kind": "jsonl", "preset": "redstone", "location": "in/redstone.jsonl"},
        {"name": "megamath", "kind": "parquet", "preset": "megamath", "location": "in/mega.parquet"},
        {"name": "saved", "kind": "huggingface", "location": "in/saved"},
        {"name": "code", "kind": "code", "location": "in/code"},
        {"name": "repositories", "kind": "code", "location": "in/code", "repository": True},
        {"name": "chat", "kind": "instruction", "location": "in/chat.jsonl"},
        {"name": "images", "kind": "multimodal", "location": "in/images.jsonl"},
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    """All sources, as the assets made them."""
    root = tmp_path_factory.mktemp("curation")
    return curated(root, write_sources(root / "in"), benchmarks=[{"name": "tulips", "path": "in/tulips_test.jsonl"}])


def test_every_format_gives_its_documents_and_its_counts_add_up(made: Curated) -> None:
    lake, said = made
    counts = {key.split("/")[1]: value for key, value in said.items() if key.startswith("raw_documents/")}
    rejects = lake.tables.read("rejected_records")
    for source, about in counts.items():
        assert about["read"] == about["kept"] + about["rejected"], source
        assert about["kept"] == len(lake.tables.read("raw_documents", source)), source
        assert about["rejected"] == len(rejects.filter(pl.col("source") == source)), source
    expected = {"pages": 3, "books": 2, "chat": 2}
    assert {source: about["kept"] for source, about in counts.items()} == dict.fromkeys(counts, 1) | expected
    reasons = dict(rejects.group_by("source").agg(pl.col("reason").sort()).iter_rows())
    assert reasons == {
        "pages": ["HTTP status", "no main text"],
        "wiki": ["other namespace", "redirect"],
        "forum": ["no answer"],
        "pile": ["empty text"],
        "code": ["generated"],
        "repositories": ["generated"],
    }


def test_what_the_formats_carry_is_filled_in(made: Curated) -> None:
    rows = {row["source"]: row for row in made[0].tables.read("clean_documents").sort("url").iter_rows(named=True)}
    assert rows["wiki"]["url"] == "https://en.wikipedia.org/wiki/Lists"
    assert "{{" not in rows["wiki"]["text"]
    assert "wikitable" not in rows["wiki"]["text"]
    assert "$a^2$ ends it." in rows["wiki"]["text"]
    assert (rows["wiki"]["license"], rows["wiki"]["created"].year) == ("CC-BY-SA-4.0", 2024)
    assert (rows["forum"]["license"], rows["forum"]["format"]) == ("CC-BY-SA-3.0", "qa")
    assert rows["forum"]["url"] == "https://lists.stackexchange.com/questions/1"
    assert "Answer: Because" in rows["forum"]["text"]
    assert (rows["c4"]["license"], rows["c4"]["created"].year) == ("ODC-By-1.0", 2019)
    assert "GUTENBERG" not in "".join(made[0].tables.read("clean_documents", "books")["text"])
    pages = made[0].tables.read("clean_documents", "pages").sort("url")
    assert "${x}^{2}$" in pages["text"][0].replace(" ", "")
    assert "gehörte" in pages["text"][2]
    assert json.loads(pages["metadata"][0])["title"] == "Lists"
    assert json.loads(rows["code"]["metadata"])["programming_language"] == "Python"
    assert rows["code"]["license"] == "MIT"
    assert rows["repositories"]["text"].startswith("# File: keeper.py")
    assert rows["images"]["url"] == "https://coast.example/lamp.jpg"
    assert all(row["collected"] is not None for row in rows.values())


def test_the_funnel_adds_up_and_shows_examples_of_each_rule(made: Curated) -> None:
    lake, said = made
    chosen = lake.tables.read("selected_documents/chosen")
    assert sorted(chosen["id"]) == sorted(lake.tables.read("clean_documents")["id"])
    assert chosen.filter("kept")["reason"].is_null().all()
    left = chosen.filter(~pl.col("kept"))
    assert "duplicate: near" in set(left["reason"])
    metadata = said["selected_documents/chosen"]
    assert "\u2588" in metadata["kept and left out"]
    shown = metadata["examples of dropped documents"]
    for source, rule in left.select("source", "reason").unique().iter_rows():
        assert f"| {source} | {rule} |" in shown
        assert f"| {source} | {rule} |" in metadata["kept and left out"]
    assert "| generated | code | made.py |" in said["raw_documents/code"]["rejected records"]
