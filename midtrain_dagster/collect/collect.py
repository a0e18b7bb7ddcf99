"""The stage: a source in, batches of documents out, and a fingerprint that says whether a source changed."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.collect import places
from midtrain_dagster.collect.columns import described
from midtrain_dagster.collect.formats import paths, read, read_parts
from midtrain_dagster.collect.records import Record, Rejected
from midtrain_dagster.documents import MEMBERS_SCHEMA, REJECTED_SCHEMA, Batch, Fate, document_id, documents
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.sources import Source
from midtrain_dagster.seen import Holders, Met, Seen
from midtrain_dagster.shards import Engine

BATCH_CHARACTERS = 32 << 20
BATCH_ROWS = 10_000


def collect(
    source: Source, root: Path, collected: datetime | None = None, progress: Progress | None = None, workers: int | Engine = 1
) -> Iterator[Batch]:
    """The documents of a source in the order they are read, a few ten megabytes at a time, with what could not become one.

    `root` is where relative locations start; `collected` goes into every document; `workers` processes extract text from
    HTML. Every record read is either a document or a reject. Raises MidtrainError for a location that does not exist.
    """
    items = (("", item) for item in read(source, root, workers))
    with Seen() as seen:

        def meet(identifier: str, part: str) -> Met:
            return Met.FIRST if seen.add(identifier) else Met.TWICE

        for batch in _batches(source, items, meet, collected, progress):
            yield Batch(batch.documents, batch.rejected.drop("part"))


def collect_parts(
    source: Source,
    named: Mapping[str, Path],
    holders: Holders,
    collected: datetime | None = None,
    progress: Progress | None = None,
    workers: int | Engine = 1,
) -> Iterator[Batch]:
    """The same of some files of a source, by name as `formats.parts` has them: with members, and rejects that name their part.

    A document that a part before it has, read now or known to `holders`, is a reject.
    """
    yield from _batches(source, read_parts(source, named, workers), holders.add, collected, progress)


def _batches(
    source: Source,
    items: Iterable[tuple[str, Record | Rejected]],
    meet: Callable[[str, str], Met],
    collected: datetime | None,
    progress: Progress | None,
) -> Iterator[Batch]:
    source = described(source)
    kept: list[dict[str, Any]] = []
    lost: list[dict[str, str]] = []
    members: list[tuple[str, str, Fate]] = []
    characters = total = 0
    for part, item in items:
        if progress is not None:
            progress.advance(1)
        row = item if isinstance(item, Rejected) else document(item, source, collected)
        if isinstance(item, Record) and not isinstance(row, Rejected):
            met = meet(row["id"], part)
            if met is not Met.TWICE:
                members.append((part, row["id"], "kept" if met is Met.FIRST else "elsewhere"))
            if met is not Met.FIRST:
                row = Rejected(item.location, "duplicate id", _clean(item.locator)[:300])
        if isinstance(row, Rejected):
            lost.append({"source": source.name, "part": part, **row._asdict()})
        else:
            kept.append(row)
            characters += len(row["text"])
            total += 1
        if characters >= BATCH_CHARACTERS or len(kept) + len(lost) >= BATCH_ROWS:
            yield _batch(kept, lost, members)
            kept, lost, members, characters = [], [], [], 0
        if total == source.limit:
            break
    if kept or lost:
        yield _batch(kept, lost, members)


def _batch(kept: list[dict[str, Any]], lost: list[dict[str, str]], members: list[tuple[str, str, Fate]]) -> Batch:
    rejects = pl.DataFrame(lost, schema={**REJECTED_SCHEMA, "part": pl.String})
    return Batch(documents(kept), rejects, pl.DataFrame(members, schema=MEMBERS_SCHEMA, orient="row"))


def document(record: Record, source: Source, collected: datetime | None) -> dict[str, Any] | Rejected:
    """A record as a row of documents.SCHEMA, or why it is none: empty, or not Unicode."""
    if not record.text.strip():
        return Rejected(record.location, "empty text", record.locator[:300])
    try:
        record.text.encode("utf-8")
    except UnicodeEncodeError as error:
        return Rejected(record.location, "invalid Unicode", f"lone surrogate at character {error.start}")
    return {
        "id": document_id(source.name, record.locator),
        "text": record.text,
        "source": source.name,
        "domain": source.domain,
        "format": record.format or source.format,
        "language": record.language or source.language,
        "url": _clean(record.url) if record.url else None,
        "license": _clean(record.license) if record.license else source.license,
        "created": record.created,
        "collected": collected,
        "metadata": _metadata({**record.metadata, "location": record.location}),
    }


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _metadata(values: Mapping[str, Any]) -> str:
    filled = {key: value for key, value in values.items() if value not in (None, "", [], {})}
    try:
        written = json.dumps(filled, ensure_ascii=False, default=str)
        written.encode("utf-8")
        return written
    except UnicodeEncodeError:
        return json.dumps(filled, ensure_ascii=True, default=str)


def fingerprint(source: Source, root: Path) -> str:
    """Hash of a source's settings and of the files behind it (path, size, time of change): equal where nothing changed.

    Raises MidtrainError for a location that does not exist.
    """
    hashed = blake2b(source.model_dump_json().encode(), digest_size=16)
    base = places.base(source.location, root)
    for path in paths(source, root):
        hashed.update(f"{places.relative(path, base)}\0{mark(path)}\n".encode())
    return hashed.hexdigest()


def mark(path: Path) -> str:
    """Size and time of change of a file: equal where it is taken to be the same as before."""
    about = path.stat()
    return f"{about.st_size}\0{about.st_mtime_ns}"
