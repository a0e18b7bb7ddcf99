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


def documents(rows: Iterator[Row | Rejected], columns: Columns, license: str | None = None) -> Items:
    """Each row as a record. Its name inside the source is its own id, else its file and line. `license`: where it names none."""
    used = {value for value in columns.model_dump().values() if value}
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        text = value_at(row.values, columns.text)
        if not isinstance(text, str):
            yield Rejected(
                row.location, "no text", f"no string at {columns.text}; keys: {', '.join(map(str, row.values))}"[:300]
            )
            continue
        own = value_at(row.values, columns.id)
        url, named = value_at(row.values, columns.url), value_at(row.values, columns.license)
        if isinstance(named, list):  # the Stack names all licences found in a repository
            named = " AND ".join(sorted({name for name in named if isinstance(name, str)}))
        yield Record(
            str(own) if isinstance(own, str | int) and own != "" else row.location,
            text,
            row.location,
            url=url if isinstance(url, str) else None,
            license=named if isinstance(named, str) and named else license,
            language=language_code(value_at(row.values, columns.language)),
            created=instant(value_at(row.values, columns.created)),
            metadata={key: value for key, value in row.values.items() if key not in used},
        )


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
