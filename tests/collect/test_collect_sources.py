"""Collectors over real files: documents and reasons, and read = kept + rejected."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midtrain_dagster.collect.collect import collect, fingerprint
from midtrain_dagster.collect.mathematics import write_out
from midtrain_dagster.collect.warc import write_warc
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.sources import source

STORY = "The lighthouse keeper wrote down the weather every morning, and nobody ever asked him what he had seen at night. "
DATE = datetime(2024, 5, 1, tzinfo=UTC)


def run(tmp_path: Path, kind: str, location: str, workers: int = 1, **options: object) -> tuple[pl.DataFrame, dict[str, int]]:
    settings = source({"kind": kind, "name": "s", "location": location, **options}, where="test")
    batches = list(collect(settings, tmp_path, DATE, workers=workers))
    if not batches:
        return pl.DataFrame({"text": []}), {}
    reasons = pl.concat([b.rejected for b in batches])["reason"].value_counts()
    return pl.concat([b.documents for b in batches]), dict(reasons.iter_rows())


def page(number: int) -> tuple[str, str, datetime]:
    body = f"<p>{number}. {STORY * 4}</p><p>Then $x^{number}$. {STORY * 3}</p>"
    html = f"<html lang=en><head><title>Page {number}</title></head><body><nav>Home About</nav><article>{body}</article></body></html>"
    return f"https://a.example/{number}", html, DATE


def test_warc_round_trip_in_one_process_and_two(tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", map(page, range(5)))
    first = (tmp_path / "a.warc.gz").read_bytes()
    write_warc(tmp_path / "a.warc.gz", map(page, range(5)))
    assert (tmp_path / "a.warc.gz").read_bytes() == first
    kept, lost = run(tmp_path, "warc", "a.warc.gz")
    assert kept["url"].to_list() == [f"https://a.example/{n}" for n in range(5)]
    assert not lost
    assert "Home About" not in kept["text"][0]
    assert kept["language"].unique().to_list() == ["en"]
    assert run(tmp_path, "warc", "a.warc.gz", workers=2)[0].equals(kept)


def test_an_extractor_that_is_not_installed_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midtrain_dagster.collect import html

    (tmp_path / "pages.warc").write_bytes(b"")
    given = source({"kind": "warc", "name": "web", "location": "pages.warc", "extractor": "resiliparse"}, "test")
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    with pytest.raises(MidtrainError, match=r"resiliparse is not installed; run `pip install '\.\[fast-extraction\]'`"):
        list(collect(given, tmp_path))


def test_broken_warcs_lose_one_record(tmp_path: Path) -> None:
    members = []
    for number in range(3):
        write_warc(tmp_path / "one.warc.gz", [page(number)])
        members.append((tmp_path / "one.warc.gz").read_bytes())
    (tmp_path / "cut.warc.gz").write_bytes(b"".join(members)[:-200])
    kept, lost = run(tmp_path, "warc", "cut.warc.gz")
    assert (len(kept), lost) == (2, {"truncated record": 1})
    plain = gzip.decompress(members[1])
    length = plain.split(b"Content-Length: ")[1].split(b"\r\n")[0]
    wrong = plain.replace(b"Content-Length: " + length, b"Content-Length: 500", 1)
    (tmp_path / "wrong.warc").write_bytes(gzip.decompress(members[0]) + wrong + gzip.decompress(members[2]))
    kept, lost = run(tmp_path, "warc", "wrong.warc")
    assert kept["url"].to_list() == ["https://a.example/0", "https://a.example/2"]
    assert lost == {"wrong record length": 1}


def test_html_ten_thousand_levels_deep(tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", [("https://a.example/", "<html><body>" + "<div>" * 10_000 + STORY, DATE)])
    assert run(tmp_path, "warc", "a.warc.gz")[1] == {"HTML too deep": 1}


def test_jsonl_rejects(tmp_path: Path) -> None:
    good = json.dumps({"id": 1, "text": STORY, "url": "https://a.example", "extra": 3})
    lines = [
        good.encode(),
        b"no json",
        b'{"id": 2}',
        good.encode(),
        b"\xff\xfe",
        b'{"text": "' + b"x" * 5000 + b'"}',
        b'{"text": "\\ud800"}',
        b"[1]",
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    kept, lost = run(tmp_path, "jsonl", "a.jsonl", max_record_bytes=4096)
    assert len(kept) == 1
    assert json.loads(kept["metadata"][0])["extra"] == 3
    reasons = {"not JSON", "no text", "duplicate id", "invalid UTF-8", "record too large", "invalid Unicode", "not a record"}
    assert lost == dict.fromkeys(reasons, 1)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(("\n".join([good] * 3000)).encode())[:-20])
    assert "truncated file" in run(tmp_path, "jsonl", "cut.jsonl.gz")[1]


def test_json_array_parquet_and_preset(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"id": str(n), "text": STORY * 50} for n in range(400)]))
    assert len(run(tmp_path, "jsonl", "a.json")[0]) == 400
    pl.DataFrame({"text": [STORY], "url": ["https://a.example"], "timestamp": ["2019-04-25T12:57:54Z"]}).write_parquet(
        tmp_path / "a.parquet"
    )
    kept, _ = run(tmp_path, "parquet", "a.parquet", preset="c4")
    assert kept["created"][0] == datetime(2019, 4, 25, 12, 57, 54, tzinfo=UTC)


def test_gutenberg_headers_are_cut(tmp_path: Path) -> None:
    book = f"Title: A Tale\nLanguage: English\n\n*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***\n{STORY}\n*** END OF THE PROJECT GUTENBERG EBOOK ***\nlicence"
    (tmp_path / "a.txt").write_text(book)
    (tmp_path / "empty.txt").write_text("")
    kept, lost = run(tmp_path, "text", ".")
    assert kept["text"].to_list() == [STORY.strip()]
    assert (kept["language"][0], lost) == ("en", {"empty file": 1})


def test_code_licence_generated_and_vendored(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "x.py").write_text("x = 1")
    (tmp_path / "LICENSE").write_text("MIT License\nPermission is hereby granted, free of charge, to any person")
    (tmp_path / "a.py").write_text("def one():\n    return 1\n")
    (tmp_path / "b.py").write_text("# Generated by protoc. DO NOT EDIT\nx = 1\n")
    kept, lost = run(tmp_path, "code", ".")
    assert (kept["license"].to_list(), lost) == (["MIT"], {"vendored": 1, "generated": 1})


def test_wikipedia_page_redirect_and_entity_bomb(tmp_path: Path) -> None:
    text = (
        "'''Bold''' [[link|words]]{{template|x}}&lt;ref&gt;gone&lt;/ref&gt; &lt;math&gt;x^2&lt;/math&gt; [[File:a.png|thumb]]"
    )
    pages = f"<page><title>A</title><ns>0</ns><id>7</id><revision><text>{text}</text></revision></page>"
    pages += '<page><title>B</title><ns>0</ns><id>8</id><redirect title="A"/></page><page><title>C</title><id>9</id><x>&bomb;</x></page>'
    (tmp_path / "d.xml").write_text(f'<!DOCTYPE m [<!ENTITY bomb "ha">]><mediawiki xml:lang="en">{pages}</mediawiki>')
    kept, lost = run(tmp_path, "wikipedia", "d.xml")
    assert kept["text"].to_list() == ["A\n\nBold words $x^2$"]
    assert lost == {"redirect": 1, "invalid XML": 1}


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"instruction": "Q", "input": "", "output": "A"},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        {"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "A"}]},
        {"prompt": "Q", "chosen": [{"role": "assistant", "content": "A"}], "rejected": []},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, {"role": "Assistant", "content": "A"}]},
        {"inputs": "Q", "targets": "A"},
    ],
)
def test_instruction_layouts_are_one_form(tmp_path: Path, record: dict[str, object]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    assert run(tmp_path, "instruction", "a.jsonl")[0]["text"].to_list() == ["User: Q\n\nAssistant: A"]


def test_an_empty_answer_is_told_from_an_unknown_layout(tmp_path: Path) -> None:
    rows = [{"instruction": "Q", "output": ""}, {"title": "Q", "text": ""}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(tmp_path, "instruction", "a.jsonl")[1] == {"empty answer": 1, "unknown layout": 1}


def test_a_system_prompt_and_a_context_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"system_prompt": "S", "question": "Q", "context": "C", "response": "A"}))
    assert run(tmp_path, "instruction", "a.jsonl")[0]["text"].to_list() == ["System: S\n\nUser: Q\n\nC\n\nAssistant: A"]


def test_stackexchange_question_with_its_accepted_answer(tmp_path: Path) -> None:
    rows = [
        '<row Id="1" PostTypeId="1" AcceptedAnswerId="3" Title="Why?" Body="&lt;p&gt;Ask&lt;/p&gt;" Tags="|a|b|" Score="2" />',
        '<row Id="2" PostTypeId="2" ParentId="1" Body="&lt;p&gt;Popular&lt;/p&gt;" Score="9" />',
        '<row Id="3" PostTypeId="2" ParentId="1" Body="&lt;p&gt;Accepted&lt;/p&gt;" Score="1" ContentLicense="CC BY-SA 3.0" />',
        '<row Id="4" PostTypeId="1" Title="Alone?" Body="x" />',
        "<row Id= broken />",
    ]
    (tmp_path / "Posts.xml").write_text("<posts>\n" + "\n".join(rows) + "\n</posts>")
    kept, lost = run(tmp_path, "stackexchange", "Posts.xml", site="x.example")
    assert kept["text"].to_list() == ["Question: Why?\n\nAsk\n\nAnswer: Accepted"]
    assert lost == {"no answer": 1, "invalid XML": 1}
    assert json.loads(kept["metadata"][0])["tags"] == ["a", "b"]
    assert kept["url"].to_list() == ["https://x.example/questions/1"]


def test_mathml_and_mathjax_become_latex() -> None:
    from lxml import html

    tree = html.document_fromstring(
        "<p>a <math><msup><mi>x</mi><mn>2</mn></msup></math> b <script type='math/tex'>y_1</script> c</p>"
    )
    assert write_out(tree) == 2
    assert " ".join(tree.text_content().split()) == "a ${x}^{2}$ b $y_1$ c"


def test_fingerprint_and_missing_location(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    settings = source({"kind": "jsonl", "name": "s", "location": "a.jsonl"}, where="test")
    before = fingerprint(settings, tmp_path)
    assert fingerprint(settings, tmp_path) == before
    (tmp_path / "a.jsonl").write_text("{ }")
    assert fingerprint(settings, tmp_path) != before
    with pytest.raises(MidtrainError, match="no such file"):
        run(tmp_path, "jsonl", "gone.jsonl")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("jsonl", "a.jsonl"), ("warc", "a.warc.gz"), ("wikipedia", "a.xml"), ("epub", "a.epub"), ("pdf", "a.pdf")],
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_are_met(tmp_path: Path, kind: str, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    kept, lost = run(tmp_path, kind, name)
    assert not len(kept)
    assert lost or data
