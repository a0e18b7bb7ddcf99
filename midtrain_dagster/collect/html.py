"""The main text of an HTML page, with what it says of itself."""

from collections.abc import Mapping
from datetime import datetime
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from midtrain_dagster.collect.charsets import decode
from midtrain_dagster.collect.mathematics import write_out
from midtrain_dagster.collect.records import because, instant, language_code
from midtrain_dagster.errors import MidtrainError

BLOCKS = frozenset(
    [
        "p",
        "div",
        "section",
        "article",
        "li",
        "tr",
        "pre",
        "blockquote",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "br",
        "ul",
        "ol",
        "table",
        "dt",
        "dd",
        "hr",
        "figure",
    ]
)


class Page(NamedTuple):
    """An HTTP response as a WARC file or a crawl gives it; picklable, so that it can go to a worker process."""

    url: str
    body: bytes
    charset: str | None
    fetched: datetime | None
    location: str
    metadata: dict[str, str]


class Extracted(NamedTuple):
    """The text of a page; `problem` is the reason and detail where there is none."""

    text: str = ""
    created: datetime | None = None
    language: str | None = None
    license: str | None = None
    metadata: Mapping[str, Any] = {}
    problem: tuple[str, str] | None = None


def parsed(body: bytes, declared: str | None) -> tuple[Any, str]:
    """An lxml tree and the character set; raises ValueError whose arguments are a reason and a detail."""
    from lxml import etree, html

    try:
        text, charset = decode(body, declared or _meta_charset(body), detect=True)
    except UnicodeError as error:
        raise ValueError("invalid character set", because(error)) from None
    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, collect_ids=False, default_doctype=False)
    try:
        tree = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError, AssertionError) as error:
        raise ValueError("not HTML", because(error)) from None
    if any("Excessive depth" in entry.message for entry in parser.error_log):
        raise ValueError("HTML too deep", "elements nest more than 256 deep")
    return tree, charset


def _meta_charset(body: bytes) -> str | None:
    """The character set that the page declares in its first 4 KiB."""
    import re

    found = re.search(rb"""(?i)<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?([\w.:-]+)""", body[:4096])
    return found.group(1).decode("ascii", "replace") if found else None


def installed(extractor: Literal["trafilatura", "resiliparse"]) -> None:
    """Raise MidtrainError where an extractor that the project file names is not installed."""
    if find_spec(extractor) is None:
        extra = ".[fast-extraction]" if extractor == "resiliparse" else "."
        raise MidtrainError(f"extractor {extractor} is not installed; run `pip install '{extra}'`, or name another")


def extract(page: Page, extractor: Literal["trafilatura", "resiliparse"], fast: bool = False) -> Extracted:
    """The main text. Pages in other charsets, too deep or without text come back with their problem."""
    try:
        tree, charset = parsed(page.body, page.charset)
    except ValueError as error:
        return Extracted(problem=(error.args[0], error.args[1]))
    language = language_code(tree.get("lang"))
    formulas = write_out(tree)
    try:
        found = _resiliparse(tree) if extractor == "resiliparse" else _trafilatura(tree, page, fast)
    except Exception as error:  # an extractor's defect on one page is that page's problem
        return Extracted(problem=("extraction failed", because(error)))
    text, created, rights, metadata = found
    if not text:
        return Extracted(problem=("no main text", f"{len(page.body)} bytes of HTML"))
    metadata |= {"charset": charset} | ({"language": tree.get("lang")} if tree.get("lang") else {})
    return Extracted(text, created, language, rights, metadata | ({"formulas": formulas} if formulas else {}))


def _trafilatura(tree: Any, page: Page, fast: bool) -> tuple[str, datetime | None, str | None, dict[str, Any]]:
    from trafilatura import bare_extraction

    latest = (page.fetched or datetime(2100, 1, 1)).strftime("%Y-%m-%d")
    dates = {
        "original_date": True,
        "extensive_search": False,
        "max_date": latest,
    }  # never today's date: the same page, the same result
    found = bare_extraction(
        tree,
        url=page.url,
        fast=fast,
        with_metadata=True,
        include_comments=False,
        include_tables=True,
        date_extraction_params=dates,
    )
    if found is None or isinstance(found, dict) or not found.text:
        return "", None, None, {}
    about = {name: getattr(found, name) for name in ("title", "author", "sitename", "description", "date")}
    return found.text, instant(found.date), found.license, {name: value for name, value in about.items() if value}


def _resiliparse(tree: Any) -> tuple[str, datetime | None, str | None, dict[str, Any]]:
    from lxml import html
    from resiliparse.extract.html2text import extract_plain_text

    title = tree.findtext(".//title")
    text = extract_plain_text(html.tostring(tree, encoding="unicode"), main_content=True, alt_texts=False)
    return text, None, None, {"title": " ".join(title.split())} if title else {}


def plain_text(fragment: str) -> str:
    """All text of a small trusted-size fragment (an EPUB chapter, a post): a line a block, code as it stands, formulas kept."""
    from lxml import etree, html

    try:
        tree = html.document_fromstring(
            fragment.encode("utf-8", "replace"), parser=html.HTMLParser(encoding="utf-8", remove_comments=True)
        )
    except (etree.ParserError, ValueError):
        return ""
    write_out(tree)
    etree.strip_elements(tree, "script", "style", "head", with_tail=False)
    parts: list[str] = []
    preformatted = 0
    for event, node in etree.iterwalk(tree, events=("start", "end")):
        if not isinstance(node.tag, str):
            continue
        if node.tag in BLOCKS and (event == "start" or node.tag != "br"):
            parts.append("\n" if node.tag in ("br", "li", "tr", "dt", "dd") else "\n\n")
        preformatted += (event == "start") - (event == "end") if node.tag == "pre" else 0
        if event == "start":
            parts.append(("- " if node.tag == "li" else "") + _spaced(node.text, preformatted > 0))
        elif node is not tree:
            parts.append(_spaced(node.tail, preformatted > 0))
    lines = [line.rstrip() for line in "".join(parts).split("\n")]
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1])).strip()


def _spaced(text: str | None, preformatted: bool) -> str:
    if not text or preformatted:
        return text or ""
    return (" " if text[0].isspace() else "") + " ".join(text.split()) + (" " if text[-1].isspace() and text.strip() else "")
