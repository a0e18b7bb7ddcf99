"""Records of any table as documents, through a mapping of their columns."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from midtrain_dagster.collect.records import Items, Record, Rejected, instant, language_code
from midtrain_dagster.collect.rows import Row
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.sources import Arrow, Columns, Jsonl, Parquet, Source


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


def described(source: Source) -> Source:
    """The source with what its preset says of the corpus, domain, format and licence, where it says nothing itself."""
    entry = corpora().get(getattr(source, "preset", None) or "", {})
    said = {name: entry[name] for name in ("domain", "format", "license") if name in entry}
    return source.model_copy(update={name: value for name, value in said.items() if name not in source.model_fields_set})


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


Keys = tuple[tuple[str, tuple[str, ...]], ...]  # each as it is, and what is between its dots, if it has any


def documents(rows: Iterator[Row | Rejected], columns: Columns) -> Items:
    """Each row as a record. Its name inside the source is its own id, else its file and line."""
    keys = {field: tuple((key, _dotted(key)) for key in each) for field, each in names(columns).items()}
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        used, text = _first(row.values, keys["text"], str)
        if text is None:
            said = f"no string at {' or '.join(key for key, _ in keys['text'])}; keys: {', '.join(map(str, row.values))}"
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
            license=named if isinstance(named, str) and named else None,
            language=language_code(found["language"][1]),
            created=instant(found["created"][1]),
            metadata={key: value for key, value in row.values.items() if key not in spent},
        )


def _first(values: Mapping[str, Any], keys: Keys, kind: type) -> tuple[str | None, Any]:
    """The first of the keys with a value of that kind, and the value; (None, None) where there is none."""
    for key, dotted in keys:
        if key in values:
            value = values[key]
        elif dotted:
            value = _below(values, dotted)
        else:
            continue
        if value is not None and isinstance(value, kind):
            return key, value
    return None, None


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, or None. A key that stands as it is comes first."""
    return values[key] if key in values else _below(values, _dotted(key))


def _dotted(key: str) -> tuple[str, ...]:
    return tuple(key.split(".")) if "." in key else ()


def _below(values: Mapping[str, Any], dotted: tuple[str, ...]) -> Any:
    found = values.get(dotted[0]) if dotted else None
    for part in dotted[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found
