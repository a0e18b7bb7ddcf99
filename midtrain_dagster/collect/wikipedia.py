"""MediaWiki XML dumps: one document a page, cut from the stream and parsed one by one."""

import re
from pathlib import Path
from typing import Any

from midtrain_dagster.collect.records import Items, Record, Rejected, because, instant, language_code
from midtrain_dagster.collect.rows import lost
from midtrain_dagster.collect.streams import damaged, elements, opened, utf8

SUFFIXES = (".xml", ".bz2", ".xml.gz")  # parts of a dump are called …articles1.xml-p1p41242.bz2
MARKED = re.compile(r"<(ref|gallery|timeline|score|imagemap)\b[^>]*?(?:/>|>.*?</\1>)", re.S | re.I)
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
TABLE = re.compile(r"^[ :*]*\{\|(?:(?!^[ :*]*\{\||^\s*\|\}(?!\})).)*^\s*\|\}(?!\})", re.S | re.M)
FILES = re.compile(r"\[\[\s*:?(?:file|image|category|datei|fichier|archivo|kategorie)\s*:", re.I)
CAPTION = 20_000  # characters of a caption: bounds the search for the end of one that has none
BAR = re.compile(r"\|(?![^\[\]]*\]\])")  # between a template's values, not inside a link
BRACKETS = re.compile(r"\[\[|\]\]")
DRESSED = re.compile(r"\{\{([\w -]{1,20})\|([^{}]{0,2000})\}\}")
SHOWN = {
    "lang",
    "transl",
    "transliteration",
    "nowrap",
    "nobr",
    "nobreak",
    "small",
    "big",
    "abbr",
    "ipa",
    "smallcaps",
    "sc",
    "math",
    "mvar",
}
SHOWN |= {
    "nihongo",
    "quote",
    "blockquote",
    "em",
    "strong",
    "var",
    "code",
    "unicode",
    "script",
    "not a typo",
    "sup",
    "sub",
    "visible anchor",
}
MEASURES = {"convert", "cvt", "val", "unit"}
GAPS = (  # what a template leaves that is gone
    (re.compile(r"\((?:[ ,;:]|or|and)*\) ?"), ""),
    (re.compile(r"\( *[,;:] *"), "("),
    (re.compile(r"(?<=\S)[ \u00a0]+(?=[,;.:)](?:\s|$))"), ""),
    (re.compile(r"(?<=\S) {2,}(?=\S)"), " "),
)
FORMULA = re.compile(r"<math[^>]*>(.*?)</math>", re.S | re.I)


def read(path: Path, name: str, limit: int, namespaces: tuple[int, ...]) -> Items:
    """The pages of a dump. Redirects and pages of other namespaces are rejects with that reason."""
    try:
        with opened(path) as file:
            head = utf8(file).read(4096)
        language = language_code((re.search(rb'xml:lang="([^"]+)"', head) or [b"", b""])[1].decode("latin-1"))
        host = re.search(rb"<base>(https?://[^/<]+)", head)
        with opened(path) as file:
            number = 0
            for piece in elements(utf8(file), b"page", limit):
                number = piece.number
                location = f"{name}@{piece.offset}"
                if piece.data is None:
                    yield Rejected(location, "record too large", f"more than {limit} bytes")
                else:
                    yield _page(piece.data, location, namespaces, language, host[1].decode("latin-1") if host else None)
            yield from lost(file, name)
            if not number:
                yield Rejected(name, "no pages", "no <page> element: is this a dump with articles?")
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
    """Wikitext as text: references, tables, templates, files and categories gone, formulas as `$…$`.

    Templates that only dress their text (a language, no line break, a measure) leave it.
    """
    import mwparserfromhell

    text = MARKED.sub("", COMMENT.sub("", wikitext))  # comments first: they speak of <ref>
    text = FORMULA.sub(lambda found: f"<nowiki>${found.group(1).strip()}$</nowiki>", text)
    for _ in range(3):  # from the inside out
        text, changed = DRESSED.subn(_undressed, text)
        if not changed:
            break
    for _ in range(8):  # tables in tables, from the inside out
        text, cut = TABLE.subn("", text)
        if not cut:
            break
    code: Any = mwparserfromhell.parse(_without_files(text))
    said = code.strip_code(normalize=True, collapse=True)
    for pattern, left in GAPS:
        said = pattern.sub(left, said)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in said.split("\n"))).strip()


def _undressed(found: re.Match[str]) -> str:
    """The text that a template shows."""
    name = found.group(1).strip().lower().replace("_", " ")
    given = [part.strip() for part in BAR.split(found.group(2)) if "=" not in part.split("]]")[-1]]
    if name in MEASURES:
        return " ".join(part for part in given[:2] if part)
    return given[-1] if given and name in SHOWN else found.group()


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
