"""The document: one row, one schema, one id. Everything else that is known of a document is an attribute."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import polars as pl

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,  # hash of where it came from; the same for life
    "text": pl.String,
    "text_hash": pl.String,  # which text an attribute was measured on
    "source": pl.String,  # name in the project file
    "domain": pl.String,  # web, code, math, prose, …
    "format": pl.String,  # text, qa, instruction, conversation, code, trajectory, …
    "language": pl.String,  # ISO 639-1 where known
    "url": pl.String,
    "license": pl.String,  # SPDX identifier where known
    "created": pl.Datetime("us", "UTC"),  # as the source says
    "collected": pl.Datetime("us", "UTC"),
    "parent_ids": pl.List(pl.String),  # what a synthetic document was made from; empty for a collected one
    "generator": pl.String,  # JSON: model, prompt, parameters; null for a collected one
    "metadata": pl.String,  # JSON: whatever else the source says
}
SCHEMA = pl.Schema(COLUMNS)

ABOUT = ("domain", "format", "language", "url", "license", "created")
"""What a recipe can ask of a document beside its text. Where one of these changes, the document's row does."""

REJECTED_SCHEMA = pl.Schema(
    {
        "source": pl.String,
        "location": pl.String,  # file, and line, record or byte offset in it
        "reason": pl.String,  # one word or a few, the same for the same cause, so that it can be counted
        "detail": pl.String,  # what exactly was wrong with this one
    }
)


Fate = Literal["kept", "elsewhere", "withdrawn"]  # the document; another part holds it; it was taken down
MEMBERS_SCHEMA = pl.Schema({"part": pl.String, "id": pl.String, "fate": pl.String})


class Batch(NamedTuple):
    """Some documents of a source, and what could not become one: read = documents + rejected.

    Of a source that is read in parts it also says which part has which id, once each, and `rejected` has a column `part`.
    """

    documents: pl.DataFrame  # SCHEMA
    rejected: pl.DataFrame  # REJECTED_SCHEMA
    members: pl.DataFrame | None = None  # MEMBERS_SCHEMA


def document_id(source: str, locator: str) -> str:
    """The id of the document at `locator` (a URL, a path and line, a record's own id) of a source: 32 hex digits."""
    return blake2b(f"{source}\0{locator}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def text_hash(text: str) -> str:
    """Hash of a text, 32 hex digits: equal texts, equal hashes, on every machine."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def documents(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """A frame of SCHEMA from rows that name at least `id` and `text`; the hash is computed, the rest is null.

    Raises KeyError for a row without id or text and ValueError for a column that no document has.
    """
    filled = [{**row, "text_hash": text_hash(row["text"]), "parent_ids": list(row.get("parent_ids") or [])} for row in rows]
    unknown = {name for row in filled for name in row} - set(SCHEMA)
    if unknown:
        raise ValueError(f"no such columns in a document: {', '.join(sorted(unknown))}")
    return pl.DataFrame(filled, schema=SCHEMA)


def rejected(rows: Iterable[Mapping[str, str]]) -> pl.DataFrame:
    """A frame of REJECTED_SCHEMA from rows."""
    return pl.DataFrame(list(rows), schema=REJECTED_SCHEMA)
