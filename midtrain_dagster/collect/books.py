"""EPUB and PDF books, one document a file. Nothing of an archive is written to disk."""

import io
import posixpath
import zipfile
from pathlib import Path
from urllib.parse import unquote

from midtrain_dagster.collect.html import plain_text
from midtrain_dagster.collect.records import Items, Record, Rejected, because, instant, language_code
from midtrain_dagster.collect.streams import read_whole

DC = "{http://purl.org/dc/elements/1.1/}"


def epub(path: Path, name: str, limit: int) -> Items:
    """An EPUB's chapters in the order of its spine."""
    try:
        with zipfile.ZipFile(path) as archive:
            unsafe = [inside for inside in archive.namelist() if inside.startswith("/") or ".." in inside.split("/")]
            if unsafe:
                yield Rejected(name, "unsafe path in archive", unsafe[0][:300])
            elif (
                sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(("html", "htm", "opf", "xml")))
                > limit
            ):
                yield Rejected(name, "record too large", f"more than {limit} bytes when decompressed")
            else:
                yield _book(archive, name, limit)
    except Exception as error:  # zip, XML and character errors of one book
        yield Rejected(name, "unreadable book", because(error))


def _book(archive: zipfile.ZipFile, name: str, limit: int) -> Record:
    from defusedxml.ElementTree import fromstring

    def inside(member: str) -> bytes:
        with archive.open(member) as file:
            return file.read(limit)

    package = next(
        e.attrib["full-path"] for e in fromstring(inside("META-INF/container.xml")).iter() if e.tag.endswith("}rootfile")
    )
    book = fromstring(inside(package))
    items = {e.attrib["id"]: e.attrib["href"] for e in book.iter() if e.tag.endswith("}item")}
    order = [items[e.attrib["idref"]] for e in book.iter() if e.tag.endswith("}itemref") if e.attrib.get("idref") in items]
    chapters = (inside(posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(href)))) for href in order)
    text = "\n\n".join(filter(None, (plain_text(chapter.decode("utf-8")) for chapter in chapters)))
    about = {field: book.findtext(f".//{DC}{field}") for field in ("title", "creator", "publisher", "identifier")}
    language, date = book.findtext(f".//{DC}language"), book.findtext(f".//{DC}date")
    return Record(name, text, name, language=language_code(language), created=instant(date), metadata=about)


def pdf(path: Path, name: str, limit: int, max_pages: int) -> Items:
    """The text layer of a PDF, page by page."""
    import pypdf

    try:
        data = read_whole(path, limit)
        if data is None:
            yield Rejected(name, "record too large", f"more than {limit} bytes")
            return
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted or len(reader.pages) > max_pages:
            yield Rejected(name, "encrypted" if reader.is_encrypted else "too many pages", name)
            return
        text = "\n\n".join(filter(None, ((page.extract_text() or "").strip() for page in reader.pages)))
        if not text:
            yield Rejected(name, "no text layer", f"{len(reader.pages)} pages")
            return
        title = reader.metadata.title if reader.metadata else None
        yield Record(name, text, name, metadata={"title": title, "pages": len(reader.pages)})
    except Exception as error:  # pypdf raises many kinds for damaged files; each is this file's problem
        yield Rejected(name, "unreadable file", because(error))
