"""Prose that every Python installation carries: long descriptions and licence texts of its distributions."""

import re
from pathlib import Path

from midtrain_dagster.collect.charsets import decode
from midtrain_dagster.collect.licenses import FILES, metadata, of_metadata, of_text
from midtrain_dagster.collect.records import Items, Record, Rejected, because
from midtrain_dagster.project.sources import PackageMetadata


def read(site: Path, source: PackageMetadata) -> Items:
    """The distributions in order of name: first the description of each, then its licence files."""
    left_out = {_normal(name) for name in source.exclude}
    for directory in sorted(site.glob("*.dist-info")):
        name = _normal(directory.name.removesuffix(".dist-info").rpartition("-")[0])
        if name not in left_out:
            yield from _description(directory, name, source.max_record_bytes)
            if source.licences:
                yield from _licences(directory, name, source.max_record_bytes)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _description(directory: Path, name: str, limit: int) -> Items:
    location = f"{directory.name}/METADATA"
    try:
        about = metadata(directory)
        payload = about.get_payload(decode=True) or b""
        text, _ = decode(payload if isinstance(payload, bytes) else b"")
    except (OSError, UnicodeError, ValueError) as error:
        yield Rejected(location, "unreadable file", because(error))
        return
    text = text or str(about.get("Description") or "")
    if len(text) > limit:
        yield Rejected(location, "record too large", f"{len(text)} characters, at most {limit}")
    elif text.strip() and text.strip() != "UNKNOWN":
        more = {"distribution": name, "version": str(about.get("Version")), "summary": str(about.get("Summary") or "")}
        more["content_type"] = str(about.get("Description-Content-Type") or "text/plain").split(";")[0]
        yield Record(f"{name}/description", text.strip(), location, license=of_metadata(about), metadata=more)
    else:
        yield Rejected(location, "empty text", "no long description")


def _licences(directory: Path, name: str, limit: int) -> Items:
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and FILES.match(p.name)):
        inside = path.relative_to(directory).as_posix()
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
            text, _ = decode(data, "latin-1")
        except (OSError, UnicodeError) as error:
            yield Rejected(f"{directory.name}/{inside}", "unreadable file", because(error))
            continue
        if len(data) > limit:
            yield Rejected(f"{directory.name}/{inside}", "record too large", f"more than {limit} bytes")
            continue
        about = {"distribution": name, "licence_file": inside}
        yield Record(f"{name}/{inside}", text.strip(), f"{directory.name}/{inside}", license=of_text(text), metadata=about)
