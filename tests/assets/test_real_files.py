"""Files that others wrote, through the assets: the standard library, Debian's documentation, a Wikipedia dump."""

import importlib.util
import io
import os
import sysconfig
from itertools import islice
from pathlib import Path

import polars as pl
import pytest
from curation_project import Curated, curated

DOCUMENTATION = Path("/usr/share/doc")
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
PAGES = 25


def wikipedia() -> Path | None:
    """A dump of real pages: the one that MIDTRAIN_WIKIPEDIA names, or that comes with gensim."""
    if named := os.environ.get("MIDTRAIN_WIKIPEDIA"):
        return Path(named)
    spec = importlib.util.find_spec("gensim")
    found = Path(spec.origin).parent / "test" / "test_data" / DUMP if spec and spec.origin else None
    return found if found and found.exists() else None


def crawled(pages: list[Path], path: Path) -> None:
    """Pages of documentation as a crawl, written by warcio."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for page in pages:
            fields = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
            body = io.BytesIO(page.read_bytes())
            writer.write_record(writer.create_warc_record(f"https://doc.example{page}", "response", body, http_headers=fields))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    root = tmp_path_factory.mktemp("real")
    library = {
        "name": "library",
        "kind": "code",
        "location": sysconfig.get_paths()["stdlib"],
        "include": ["json/**", "email/**"],
    }
    sources = [{**library, "license": "PSF-2.0"}]
    if texts := list(islice((p for p in sorted(DOCUMENTATION.glob("*/*.txt")) if p.is_file()), PAGES)):
        (root / "texts").mkdir()
        for number, text in enumerate(texts):
            (root / "texts" / f"{number:03}-{text.name}").symlink_to(text)
        sources.append({"name": "texts", "kind": "text", "location": "texts/*.txt"})
    if pages := list(islice((p for p in sorted(DOCUMENTATION.rglob("*.html")) if p.is_file()), PAGES)):
        crawled(pages, root / "pages.warc.gz")
        sources.append({"name": "pages", "kind": "warc", "location": "pages.warc.gz"})
    if dump := wikipedia():
        sources.append({"name": "wiki", "kind": "wikipedia", "location": str(dump)})
    return curated(root, sources)


@pytest.mark.parametrize("source", ["library", "texts", "pages", "wiki"])
def test_nothing_is_lost_between_the_file_and_the_selection(made: Curated, source: str) -> None:
    about = made.said.get(f"raw_documents/{source}")
    if about is None:
        pytest.skip(f"this machine has no files for {source}")
    assert about["read"] == about["kept"] + about["rejected"]
    assert about["kept"] > 0
    raw, clean = (made.lake.tables.read(table, source) for table in ("raw_documents", "clean_documents"))
    chosen = made.lake.tables.read("selected_documents/chosen").filter(pl.col("source") == source)
    assert sorted(raw["id"]) == sorted(clean["id"]) == sorted(chosen["id"])
    assert chosen.filter(~pl.col("kept"))["reason"].is_not_null().all()
    assert chosen["kept"].any()


def test_a_dump_of_real_pages_becomes_prose(made: Curated) -> None:
    if "raw_documents/wiki" not in made.said:
        pytest.skip("no dump: install gensim, or name one in MIDTRAIN_WIKIPEDIA")
    pages = made.lake.tables.read("clean_documents", "wiki")
    assert pages["url"].str.starts_with("https://en.wikipedia.org/wiki/").all()
    assert pages["license"].str.starts_with("CC-BY-SA").all()
    prose = pages["text"].str.replace_all(r"\$[^$]*\$", "")  # formulas have braces of their own
    assert not prose.str.contains(r"\{\{|\}\}|\[\[|\]\]|<ref").any()
    assert float(pages["text"].str.len_chars().median() or 0) > 1000  # type: ignore[arg-type]
