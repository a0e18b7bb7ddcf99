"""Plain text, one document a file: books, with Project Gutenberg's headers and footers cut."""

import re
from collections.abc import Iterable
from pathlib import Path

from midtrain_dagster.collect.charsets import decode
from midtrain_dagster.collect.records import Items, Record, Rejected, because, instant, language_code
from midtrain_dagster.collect.streams import damaged, read_whole

SUFFIXES = (".txt", ".text", ".md", ".rst", ".txt.gz", ".text.gz", ".txt.zst", ".txt.bz2")
START = re.compile(r"^\s*\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*\*\*[ \t]*$", re.M | re.S | re.I)
END = re.compile(r"^\s*(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg's)", re.M | re.I)
FIELD = re.compile(r"^(Title|Author|Language|Release Date|Character set encoding):[ \t]*(.+?)[ \t]*$", re.M | re.I)
LANGUAGES = {
    "english": "en",
    "german": "de",
    "french": "fr",
    "spanish": "es",
    "italian": "it",
    "portuguese": "pt",
    "dutch": "nl",
}
HEAD = 20_000  # a Gutenberg header ends within these


def read(paths: Iterable[tuple[Path, str]], limit: int, encoding: str | None) -> Items:
    """Each file as a document."""
    for path, name in paths:
        try:
            data = read_whole(path, limit)
        except damaged() as error:
            yield Rejected(name, "truncated file", because(error))
            continue
        if data is None:
            yield Rejected(name, "record too large", f"more than {limit} bytes")
            continue
        try:
            text, _ = decode(data, _declared(data) or encoding)
        except UnicodeError as error:
            yield Rejected(name, "invalid UTF-8", because(error))
            continue
        yield _book(text.replace("\r\n", "\n"), name)


def _declared(data: bytes) -> str | None:
    """The character set that a Gutenberg header names."""
    found = re.search(rb"(?im)^Character set encoding:[ \t]*([\w-]+)", data[:HEAD])
    return found.group(1).decode("ascii") if found else None


def _book(text: str, name: str) -> Record:
    start = START.search(text, 0, HEAD)
    if start is None:
        return Record(name, text.strip(), name)
    end = END.search(text, start.end())
    about = {field.lower(): value for field, value in FIELD.findall(text[: start.start()])}
    released = re.search(r"(\w+ \d{1,2}, \d{4})", about.get("release date", ""))
    return Record(
        name,
        text[start.end() : end.start() if end else len(text)].strip(),
        name,
        language=LANGUAGES.get(about.get("language", "").lower()) or language_code(about.get("language")),
        created=instant(_iso(released.group(1))) if released else None,
        metadata={key: about[key] for key in ("title", "author") if key in about} | {"publisher": "Project Gutenberg"},
    )


def _iso(date: str) -> str | None:
    """`June 17, 2008` -> `2008-06-17`."""
    from datetime import datetime

    try:
        return datetime.strptime(date, "%B %d, %Y").strftime("%Y-%m-%d")
    except ValueError:
        return None
