"""What arrives broken or hostile: each is a counted reject with its place, what surrounds it is kept, and memory stays flat."""

import gzip
import json
import random
import subprocess
import sys
import time
import tracemalloc
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from midtrain_dagster.collect.collect import collect
from midtrain_dagster.collect.streams import losses, opened
from midtrain_dagster.collect.warc import write_warc
from midtrain_dagster.project.sources import source

STORY = "At the signal box the night lasted as long as the timetable said it did, and not one minute more. "
DATE = datetime(2024, 5, 1, tzinfo=UTC)


def run(root: Path, kind: str, location: str, **options: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and rejects."""
    checked = source({"kind": kind, "name": "s", "location": location, **options}, where="test")
    batches = list(collect(checked, root, DATE))
    return pl.concat([b.documents for b in batches]), pl.concat([b.rejected for b in batches])


def html(number: int) -> str:
    return f"<html><body><article><p>{number}. {STORY * 4}</p></article></body></html>"


def test_a_line_of_200_megabytes_costs_no_memory_and_little_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n')
        file.truncate(200 << 20)  # a hole, read as zero bytes
        file.seek(0, 2)
        file.write(b'\n{"text": "after"}\n')
    started = time.process_time()
    tracemalloc.start()
    kept, lost = run(tmp_path, "jsonl", "a.jsonl", max_record_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept["text"].to_list() == ["before", "after"]
    assert lost.select("location", "reason").rows() == [("a.jsonl:2", "record too large")]
    assert peak < 24 << 20
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("kind", "name"), [("wikipedia", "a.xml"), ("stackexchange", "posts.xml"), ("text", "a.txt"), ("jsonl", "a.json")]
)
def test_records_larger_than_the_limit(tmp_path: Path, kind: str, name: str) -> None:
    large = "y" * 300_000
    body = {
        "a.xml": f"<mediawiki><page><title>L</title><text>{large}</text></page><page><title>S</title><ns>0</ns><revision><text>small</text></revision></page></mediawiki>",
        "posts.xml": f'<row Id="1" PostTypeId="1" Body="{large}" />\n<row Id="2" PostTypeId="1" Title="S" />\n<row Id="3" ParentId="2" PostTypeId="2" Body="small" />\n',
        "a.txt": large,
        "a.json": json.dumps([{"text": "small"}, {"text": large}]),
    }[name]
    (tmp_path / name).write_text(body)
    kept, lost = run(tmp_path, kind, name, max_record_bytes=100_000)
    assert lost["reason"].to_list() == ["record too large"]
    assert len(kept) == (0 if name == "a.txt" else 1)


def test_a_corrupt_member_in_the_middle_costs_itself(tmp_path: Path) -> None:
    members = [
        gzip.compress(
            "".join(
                json.dumps({"id": k * 100 + n, "text": f"{n} {random.Random(n).random()}"}) + "\n" for n in range(100)
            ).encode()
        )
        for k in range(5)
    ]
    data = bytearray(b"".join(members))
    broken = len(members[0]) + len(members[1]) // 2
    data[broken : broken + 8] = b"\xff" * 8
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    kept, lost = run(tmp_path, "jsonl", "a.jsonl.gz")
    own = set(kept["id"])
    whole = b"".join(members[:1] + members[2:])
    (tmp_path / "b.jsonl.gz").write_bytes(whole)
    assert set(run(tmp_path, "jsonl", "b.jsonl.gz")[0]["id"]) <= own
    assert lost.filter(pl.col("reason") == "corrupt gzip member")["location"].to_list() == [f"a.jsonl.gz@{len(members[0])}"]
    assert set(lost["reason"]) <= {"corrupt gzip member", "not JSON", "invalid UTF-8", "duplicate id"}
    cut = members[0] + members[1][: len(members[1]) // 2] + members[2]  # a download that was resumed wrongly
    (tmp_path / "c.jsonl.gz").write_bytes(cut)
    kept, lost = run(tmp_path, "jsonl", "c.jsonl.gz")
    assert len(kept) >= 200
    assert "corrupt gzip member" in set(lost["reason"])


def test_a_corrupt_member_in_a_warc(tmp_path: Path) -> None:
    members = []
    for number in range(4):
        write_warc(tmp_path / "one.warc.gz", [(f"https://a.example/{number}", html(number), DATE)])
        members.append((tmp_path / "one.warc.gz").read_bytes())
    spoiled = members[1][:60] + b"\xff" * 30 + members[1][90:]
    (tmp_path / "a.warc.gz").write_bytes(members[0] + spoiled + members[2] + members[3])
    kept, lost = run(tmp_path, "warc", "a.warc.gz")
    assert kept["url"].to_list() == [f"https://a.example/{n}" for n in (0, 2, 3)]
    assert len(lost) == 1
    assert lost["location"][0].startswith("a.warc.gz@")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_bombs_in_a_content_encoding(tmp_path: Path, encoding: str) -> None:
    plain = b"<html>" + b" " * (20 << 20)
    body = {"gzip": gzip.compress(plain), "deflate": zlib.compress(plain), "identity": plain[: 2 << 20]}[encoding]
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: %s\r\n\r\n" % encoding.encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Length: {len(http)}\r\n\r\n".encode()
    )
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(head + http + b"\r\n\r\n"))
    tracemalloc.start()
    kept, lost = run(tmp_path, "warc", "a.warc.gz", max_record_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(kept), lost["reason"].to_list()) == (0, ["record too large"])
    assert peak < 24 << 20


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_bombs_in_a_compressed_file(tmp_path: Path, suffix: str) -> None:
    bomb = b'{"text": "' + b"a" * (64 << 20) + b'"}\n{"text": "after"}\n'
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(gzip.compress(bomb, 1) if suffix == "gz" else zstandard.compress(bomb))
    del bomb
    tracemalloc.start()
    kept, lost = run(tmp_path, "jsonl", f"a.jsonl.{suffix}", max_record_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (kept["text"].to_list(), lost["reason"].to_list()) == (["after"], ["record too large"])
    assert peak < 24 << 20


def test_entity_bombs(tmp_path: Path) -> None:
    prolog = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'
    inner = "".join(
        f"<page><title>{n}</title><ns>0</ns><revision><text>{body}</text></revision></page>"
        for n, body in enumerate(("&b;", "&c;", "fine"))
    )
    (tmp_path / "a.xml").write_text(f"{prolog}<mediawiki>{inner}<page>{prolog}<title>4</title></page></mediawiki>")
    kept, lost = run(tmp_path, "wikipedia", "a.xml")
    assert kept["text"].to_list() == ["2\n\nfine"]
    assert lost["reason"].to_list() == ["invalid XML"] * 3
    (tmp_path / "posts.xml").write_text(f'{prolog}\n<posts>\n<row Id="1" PostTypeId="1" Body="&b;" />\n</posts>')
    assert run(tmp_path, "stackexchange", "posts.xml")[1]["reason"].to_list() == ["invalid XML"]


def test_invalid_utf8_duplicates_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n{"text": "\xc3\x28"}\n\n')
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.jsonl").write_bytes(b'{"id": 1, "text": "z"}')
    kept, lost = run(tmp_path, "jsonl", ".")
    assert kept["text"].to_list() == ["x"]
    assert lost.select("location", "reason").rows() == [
        ("a.jsonl:2", "duplicate id"),
        ("a.jsonl:3", "invalid UTF-8"),
        ("b.jsonl", "empty file"),
        ("c.jsonl:1", "duplicate id"),
    ]
    write_warc(tmp_path / "a.warc.gz", [("https://a.example/", html(1), DATE), ("https://a.example/", html(2), DATE)])
    assert run(tmp_path, "warc", "a.warc.gz")[1]["reason"].to_list() == ["duplicate id"]


def test_gzip_reading_gives_all_bytes_whatever_the_reads(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(300_000) + b"a" * 3_000_000
    (tmp_path / "a.gz").write_bytes(
        gzip.compress(data[:1000]) + b"\0\0\0" + gzip.compress(b"") + gzip.compress(data[1000:]) + b"\0" * 9
    )
    with opened(tmp_path / "a.gz") as file:
        parts = iter(lambda: file.read(77_777), b"")
        assert b"".join(parts) == data
        assert losses(file) == ()


MEASURE = """
import gzip, json, resource, sys
from datetime import datetime, UTC
from pathlib import Path
from midtrain_dagster.collect import collect as stage, parallel
from midtrain_dagster.collect.warc import write_warc
from midtrain_dagster.project.sources import source

root, kind = Path(sys.argv[1]), sys.argv[2]
stage.BATCH_CHARACTERS = 1 << 18
text = "A few words that say nothing at all, over and over. " * 60

def write(name, count):
    if kind == "jsonl":
        with gzip.open(root / name, "wt", compresslevel=1) as file:
            file.writelines(json.dumps({"id": n, "text": f"{n} {text}"}) + "\\n" for n in range(count))
    elif kind == "wikipedia":
        with open(root / name, "w") as file:
            file.writelines(f"<page><title>{n}</title><ns>0</ns><id>{n}</id><revision><text>{n} {text}</text></revision></page>\\n" for n in range(count))
    else:
        body = "<html><body><article>" + f"<p>{text}</p>" * 2 + "</article></body></html>"
        write_warc(root / name, ((f"https://a.example/{n}", body, datetime(2024, 1, 1, tzinfo=UTC)) for n in range(count)))

def peak(name):
    settings = source({"kind": kind, "name": "s", "location": name, **({"fast": True} if kind == "warc" else {})}, "test")
    rows = sum(len(batch.documents) for batch in stage.collect(settings, root))
    return rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

suffix, count = {"jsonl": (".jsonl.gz", 1200), "wikipedia": (".xml", 300), "warc": (".warc.gz", 100)}[kind]
write("one" + suffix, count)
write("eight" + suffix, 8 * count)
print(json.dumps([peak("one" + suffix), peak("eight" + suffix)]))
"""


@pytest.mark.parametrize("kind", ["jsonl", "wikipedia", "warc"])
def test_peak_memory_is_flat_from_one_to_eight_times_the_data(tmp_path: Path, kind: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), kind], capture_output=True, text=True, check=True, timeout=300
    )
    (rows, one), (many, eight) = json.loads(answer.stdout)
    assert many == 8 * rows
    assert eight - one < 24, f"{one:.0f} MiB for {rows} documents, {eight:.0f} MiB for {many}"
