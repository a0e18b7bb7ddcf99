"""Records of any table as documents, through a mapping of their columns."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from midtrain_dagster.collect.records import Items, Record, Rejected, instant, language_code
from midtrain_dagster.collect.rows import Row
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.sources import Arrow, Columns, Jsonl, Parquet


@cache
def corpora() -> dict[str, Any]:
    """The corpora whose columns are known: name -> entry of corpora.yaml."""
    known: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("corpora.yaml").read_text(encoding="utf-8"))
    return known


def mapping(source: Jsonl | Parquet | Arrow) -> Columns:
    """The source's columns: its own, or those of its preset with its own on top."""
    if source.preset is None:
        return source.columns
    entry = corpora().get(source.preset)
    if entry is None:
        raise MidtrainError(f"{source.name}: no preset {source.preset}; there are {', '.join(sorted(corpora()))}")
    own = {name: getattr(source.columns, name) for name in source.columns.model_fields_set}
    return Columns.check({**entry["columns"], **own}, where=f"{source.name}: preset {source.preset}")


def rights(source: Jsonl | Parquet | Arrow) -> str | None:
    """The licence of records that name none: the source's own, or its preset's."""
    return source.license or (corpora().get(source.preset, {}).get("license") if source.preset else None)


COMMON: dict[str, tuple[str, ...]] = {  # what data sets call these columns, the usual name first
    "text": ("text", "content", "raw_content", "markdown", "body", "article", "document", "passage", "code"),
    "id": ("id", "doc_id", "document_id", "uuid", "_id"),
    "url": ("url", "source_url", "link", "meta.url", "metadata.url"),
    "license": ("license", "licence", "meta.license", "metadata.license"),
    "language": ("language", "lang", "meta.language", "metadata.language"),
    "created": ("created", "timestamp", "date", "created_at", "published", "publish_date"),
}


def names(columns: Columns) -> dict[str, tuple[str, ...]]:
    """The keys to look for, field by field: the one that was set, else the common ones."""
    chosen = {field: getattr(columns, field) for field in columns.model_fields_set}
    return {field: ((chosen[field],) if chosen[field] else ()) if field in chosen else keys for field, keys in COMMON.items()}


def documents(rows: Iterator[Row | Rejected], columns: Columns, license: str | None = None) -> Items:
    """Each row as a record. Its name inside the source is its own id, else its file and line. `license`: where it names none."""
    keys = names(columns)
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        used, text = _first(row.values, keys["text"], str)
        if text is None:
            said = f"no string at {' or '.join(keys['text'])}; keys: {', '.join(map(str, row.values))}"
            yield Rejected(row.location, "no text", said[:300])
            continue
        found = {field: _first(row.values, keys[field], object) for field in keys if field != "text"}
        own, named = found["id"][1], found["license"][1]
        if isinstance(named, list):  # the Stack names all licences found in a repository
            named = " AND ".join(sorted({name for name in named if isinstance(name, str)}))
        url = found["url"][1]
        spent = {used, *(key for key, _ in found.values())}
        yield Record(
            str(own) if isinstance(own, str | int) and own != "" else row.location,
            text,
            row.location,
            url=url if isinstance(url, str) else None,
            license=named if isinstance(named, str) and named else license,
            language=language_code(found["language"][1]),
            created=instant(found["created"][1]),
            metadata={key: value for key, value in row.values.items() if key not in spent},
        )


def _first(values: Mapping[str, Any], keys: tuple[str, ...], kind: type) -> tuple[str | None, Any]:
    """The first of the keys with a value of that kind, and the value; (None, None) where there is none."""
    for key in keys:
        value = value_at(values, key)
        if value is not None and isinstance(value, kind):
            return key, value
    return None, None


def value_at(values: Mapping[str, Any], key: str | None) -> Any:
    """The value at a dotted key, or None. A key that stands as it is comes first."""
    if key is None:
        return None
    if key in values:
        return values[key]
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
