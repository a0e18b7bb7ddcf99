"""What a reader yields: a record that may become a document, or why something could not."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple


class Record(NamedTuple):
    """One would-be document, as its format gives it."""

    locator: str  # stable name inside the source: URL, relative path, own id
    text: str
    location: str  # where it was read: file, and line, record or byte offset
    url: str | None = None
    license: str | None = None
    language: str | None = None
    created: datetime | None = None
    format: str | None = None  # where it differs from the source's
    metadata: Mapping[str, Any] = {}


class Rejected(NamedTuple):
    """Something that was read and is no document."""

    location: str
    reason: str  # the same words for the same cause
    detail: str = ""


Items = Iterator[Record | Rejected]


def because(error: BaseException) -> str:
    """An exception as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def instant(value: object) -> datetime | None:
    """A moment from ISO 8601, a date, a year or seconds (or milliseconds) since 1970; None for anything else."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
        if isinstance(value, str):
            text = value.strip().replace(" UTC", "+00:00")
            parsed = datetime.fromisoformat(text) if len(text) != 4 else datetime(int(text), 1, 1)
            return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def language_code(value: object) -> str | None:
    """`en-GB`, `EN`, `en_US` -> `en`; None for what is no ISO 639-1 code."""
    if not isinstance(value, str):
        return None
    code = value.strip().lower().replace("_", "-").split("-")[0]
    return code if len(code) == 2 and code.isascii() and code.isalpha() else None
