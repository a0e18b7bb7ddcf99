"""The stage: a source in, batches of documents out, and a fingerprint that says whether a source changed."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from midtrain_dagster.collect import places
from midtrain_dagster.collect.formats import paths, read
from midtrain_dagster.collect.records import Record, Rejected
from midtrain_dagster.documents import Batch, document_id, documents, rejected
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.sources import Source
from midtrain_dagster.seen import Seen
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
    kept: list[dict[str, Any]] = []
    lost: list[dict[str, str]] = []
    characters = total = 0
    with Seen() as seen:
        for item in read(source, root, workers):
            if progress is not None:
                progress.advance(1)
            row = item if isinstance(item, Rejected) else document(item, source, collected, seen)
            if isinstance(row, Rejected):
                lost.append({"source": source.name, **row._asdict()})
            else:
                kept.append(row)
                characters += len(row["text"])
                total += 1
            if characters >= BATCH_CHARACTERS or len(kept) + len(lost) >= BATCH_ROWS:
                yield Batch(documents(kept), rejected(lost))
                kept, lost, characters = [], [], 0
            if total == source.limit:
                break
    if kept or lost:
        yield Batch(documents(kept), rejected(lost))


def document(record: Record, source: Source, collected: datetime | None, seen: Seen) -> dict[str, Any] | Rejected:
    """A record as a row of documents.SCHEMA, or why it is none: empty, not Unicode, or an id that was there before."""
    if not record.text.strip():
        return Rejected(record.location, "empty text", record.locator[:300])
    try:
        record.text.encode("utf-8")
    except UnicodeEncodeError as error:
        return Rejected(record.location, "invalid Unicode", f"lone surrogate at character {error.start}")
    identifier = document_id(source.name, record.locator)
    if not seen.add(identifier):
        return Rejected(record.location, "duplicate id", _clean(record.locator)[:300])
    return {
        "id": identifier,
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
        about = path.stat()
        hashed.update(
            f"{places.relative(path, base)}\0{about.st_size}\0{about.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return hashed.hexdigest()
