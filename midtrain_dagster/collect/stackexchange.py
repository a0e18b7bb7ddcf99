"""Stack Exchange dumps: Posts.xml, one row a line; a question with its best answers as one document."""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from midtrain_dagster.collect import archives
from midtrain_dagster.collect.html import plain_text
from midtrain_dagster.collect.records import Items, Record, Rejected, because, instant
from midtrain_dagster.collect.rows import lost
from midtrain_dagster.collect.streams import damaged, lines, opened, utf8
from midtrain_dagster.project.sources import StackExchange

SUFFIXES = ("posts.xml", "posts.xml.gz", "posts.xml.bz2", ".7z")
SITE = re.compile(r"((?:[a-z0-9-]+\.)+(?:com|net|org))(?:-Posts)?(?:\.7z)?$", re.I)
QUESTION, ANSWER = "1", "2"


def read(path: Path, name: str, source: StackExchange) -> Items:
    """The questions of a dump, or of the archive that one comes in; the archive's or directory's name tells the site."""
    found = SITE.search(path.name) or SITE.search(path.parent.name)
    site = source.site or (found[1].lower() if found else None)
    if not path.name.lower().endswith(".7z"):
        yield from posts(path, name, source, site)
        return
    try:
        with archives.member(path, "Posts.xml", source.max_archive_bytes) as file:
            yield from posts(file, f"{name}/Posts.xml", source, site)
    except archives.TooLarge as error:
        yield Rejected(name, "record too large", because(error))
    except ValueError as error:
        yield Rejected(name, "unsafe path in archive" if "unsafe path" in str(error) else "unreadable archive", because(error))


def posts(path: Path, name: str, source: StackExchange, site: str | None) -> Items:
    """The questions of a dump that have an answer worth keeping, in the order of the file.

    The file is read twice: first all answers go to a temporary database on disk, then each question finds its own there.
    """
    answers = sqlite3.connect("", isolation_level=None)
    try:
        answers.execute("create table answers (question text, id text, score integer, body text)")
        for row in _rows(path, name, source.max_record_bytes):
            if isinstance(row, Rejected):
                yield row
            elif row[1].get("PostTypeId") == ANSWER:
                values = row[1]
                entry = (values.get("ParentId"), values.get("Id"), _number(values.get("Score")), values.get("Body", ""))
                answers.execute("insert into answers values (?, ?, ?, ?)", entry)
        answers.execute("create index by_question on answers (question)")
        for row in _rows(path, name, source.max_record_bytes):
            if not isinstance(row, Rejected) and row[1].get("PostTypeId") == QUESTION:
                yield _question(row[0], row[1], answers, source, site)
    finally:
        answers.close()


def _rows(path: Path, name: str, limit: int) -> Iterator[tuple[str, Mapping[str, str]] | Rejected]:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    number = 0
    try:
        with opened(path) as file:
            rows = 0
            for number, _, data in lines(utf8(file), limit):
                location = f"{name}:{number}"
                if data is None:
                    yield Rejected(location, "record too large", f"more than {limit} bytes")
                elif data.lstrip().startswith(b"<row"):
                    rows += 1
                    try:
                        yield location, fromstring(data).attrib
                    except (ParseError, DefusedXmlException, ValueError) as error:
                        yield Rejected(location, "invalid XML", because(error))
            yield from lost(file, name)
            if not rows:
                yield Rejected(name, "no posts", "no <row> line: is this Posts.xml?")
    except damaged() as error:
        yield Rejected(f"{name}:{number + 1}", "truncated file", because(error))


def _question(
    location: str, post: Mapping[str, str], answers: sqlite3.Connection, source: StackExchange, site: str | None
) -> Record | Rejected:
    accepted = post.get("AcceptedAnswerId", "")
    best = answers.execute(
        "select id, score, body from answers where question = ? and (id = ? or score >= ?) order by id = ? desc, score desc, id limit ?",
        (post.get("Id"), accepted, source.min_score, accepted, source.max_answers),
    ).fetchall()
    if not best or not post.get("Id"):
        return Rejected(location, "no answer", post.get("Title", "")[:300])
    title = post.get("Title", "")
    parts = [
        f"Question: {title}\n\n{plain_text(post.get('Body', ''))}",
        *(f"Answer: {plain_text(body)}" for _, _, body in best),
    ]
    about: dict[str, Any] = {
        "title": title,
        "tags": re.findall(r"[^<>|]+", post.get("Tags", "")),
        "score": _number(post.get("Score")),
        "answers": [{"id": own, "score": score, "accepted": own == accepted} for own, score, _ in best],
    }
    return Record(
        post["Id"],
        "\n\n".join(parts),
        location,
        url=f"https://{site}/questions/{post['Id']}" if site else None,
        license=(post.get("ContentLicense") or "").replace("CC BY-SA ", "CC-BY-SA-") or None,
        created=instant(post.get("CreationDate")),
        metadata=about,
    )


def _number(value: str | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0
