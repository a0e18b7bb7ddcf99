"""MediaWiki XML dumps: one document a page, cut from the stream and parsed one by one."""

import re
from pathlib import Path
from typing import Any

from midtrain_dagster.collect.records import Items, Record, Rejected, because, instant, language_code
from midtrain_dagster.collect.rows import lost
from midtrain_dagster.collect.streams import damaged, elements, opened

SUFFIXES = (".xml", ".bz2", ".xml.gz")  # parts of a dump are called …articles1.xml-p1p41242.bz2
MARKED = re.compile(r"<(ref|gallery|timeline|score|imagemap)\b[^>]*?(?:/>|>.*?</\1>)", re.S | re.I)
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
TABLE = re.compile(r"^[ :*]*\{\|(?:(?!^[ :*]*\{\||^\s*\|\}(?!\})).)*^\s*\|\}(?!\})", re.S | re.M)
FILES = re.compile(r"\[\[\s*:?(?:file|image|category|datei|fichier|archivo|kategorie)\s*:", re.I)
CAPTION = 20_000  # characters of a caption: bounds the search for the end of one that has none
BRACKETS = re.compile(r"\[\[|\]\]")
FORMULA = re.compile(r"<math[^>]*>(.*?)</math>", re.S | re.I)


def read(path: Path, name: str, limit: int, namespaces: tuple[int, ...]) -> Items:
    """The pages of a dump. Redirects and pages of other namespaces are rejects with that reason."""
    try:
        with opened(path) as file:
            head = file.read(4096)
        language = language_code((re.search(rb'xml:lang="([^"]+)"', head) or [b"", b""])[1].decode("latin-1"))
        host = re.search(rb"<base>(https?://[^/<]+)", head)
        with opened(path) as file:
            for piece in elements(file, b"page", limit):
                location = f"{name}@{piece.offset}"
                if piece.data is None:
                    yield Rejected(location, "record too large", f"more than {limit} bytes")
                else:
                    yield _page(piece.data, location, namespaces, language, host[1].decode("latin-1") if host else None)
            yield from lost(file, name)
    except damaged() as error:
        yield Rejected(name, "truncated file", because(error))


def _page(data: bytes, location: str, namespaces: tuple[int, ...], language: str | None, host: str | None) -> Record | Rejected:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        page = fromstring(data)
    except (ParseError, DefusedXmlException, ValueError) as error:
        return Rejected(location, "invalid XML", because(error))
    title = page.findtext("title") or ""
    if page.find("redirect") is not None:
        return Rejected(location, "redirect", title[:300])
    if int(page.findtext("ns") or 0) not in namespaces:
        return Rejected(location, "other namespace", title[:300])
    try:
        text = plain(page.findtext("revision/text") or "")
    except (RecursionError, ValueError) as error:
        return Rejected(location, "unreadable wikitext", because(error))
    url = f"{host}/wiki/{title.replace(' ', '_')}" if host else None
    own = page.findtext("id") or title
    body = f"{title}\n\n{text}" if text else ""
    created = instant(page.findtext("revision/timestamp"))
    return Record(own, body, location, url=url, language=language, created=created, metadata={"title": title, "page_id": own})


def plain(wikitext: str) -> str:
    """Wikitext as text: references, tables, templates, files and categories gone, formulas as `$…$`."""
    import mwparserfromhell

    text = MARKED.sub("", COMMENT.sub("", wikitext))  # comments first: they speak of <ref>
    text = FORMULA.sub(lambda found: f"<nowiki>${found.group(1).strip()}$</nowiki>", text)
    for _ in range(8):  # tables in tables, from the inside out
        text, cut = TABLE.subn("", text)
        if not cut:
            break
    code: Any = mwparserfromhell.parse(_without_files(text))
    lines = (line.rstrip() for line in code.strip_code(normalize=True, collapse=True).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _without_files(text: str) -> str:
    """Wikitext without its images and categories, whose captions may hold further links. One that never closes ends its line."""
    parts: list[str] = []
    at = 0
    while found := FILES.search(text, at):
        parts.append(text[at : found.start()])
        depth, at = 1, found.end()
        while depth and (mark := BRACKETS.search(text, at, found.end() + CAPTION)):
            depth, at = depth + (1 if mark.group() == "[[" else -1), mark.end()
        if depth:
            line = text.find("\n", found.end())
            at = line if line >= 0 else len(text)
    return "".join(parts) + text[at:]
