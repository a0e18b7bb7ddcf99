"""Benchmark rows from a local directory, in each data set's own format.

`DIR/<set>_<split>.jsonl` (gsm8k_test.jsonl, arc_easy_test.jsonl), `DIR/<set>/<split>.jsonl` or `DIR/<set>.jsonl`; also .json
(a list, or a list under `data` or `examples`), .csv and .parquet, .jsonl also as .gz. Upper case, `-` and `_` do not matter. A file that names no split
is the evaluated one. Split names: test; validation, valid, val or dev; train.
"""

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.errors import MidtrainError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")
SPLITS = {"test": "test", "standard": "test", "validation": "validation", "valid": "validation", "val": "validation"}
SPLITS |= {"dev": "dev", "train": "train"}

# Rows of each of the 57 subjects, in alphabetical order, in MMLU's validation split (2009.03300).
MMLU_VALIDATION = (
    *(11, 14, 16, 11, 29, 16, 8, 11, 11, 22, 11, 11, 26, 12, 16, 41, 14, 10, 32, 22, 9, 18, 22, 21, 43, 29, 26, 17, 60),
    *(23, 22, 26, 23, 12, 13, 11, 18, 11, 11, 25, 11, 86, 38, 100, 33, 34, 35, 31, 170, 31, 69, 12, 27, 22, 11, 18, 19),
)


class Row(NamedTuple):
    """One row and where it stands."""

    file: str  # name without suffix
    number: int  # 0-based, in the file
    values: dict[str, Any]


def find(directory: Path, names: Iterable[str]) -> dict[str, list[Path]]:
    """Split → files of the sets called any of `names`; empty where there are none.

    Raises MidtrainError where the directory does not exist.
    """
    if not directory.is_dir():
        raise MidtrainError(f"{directory}: there is no such directory of benchmark rows")
    wanted = {_plain(name) for name in names}
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or not path.name.lower().endswith(SUFFIXES):
            continue
        stem = _plain(path.name.split(".")[0])
        folder = _plain(path.parent.name) if path.parent != directory else ""
        split = _split_of(stem, wanted) or (SPLITS.get(stem) if folder in wanted else None)
        if split is not None:
            found.setdefault(split, []).append(path)
    return found


def _split_of(stem: str, wanted: set[str]) -> str | None:
    if stem in wanted:
        return "test"
    name, _, last = stem.rpartition("_")
    return SPLITS.get(last) if name in wanted else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def read(paths: Iterable[Path]) -> list[Row]:
    """All rows of the files, in order. Raises MidtrainError, naming file and line, for one that cannot be read."""
    return [Row(path.name.split(".")[0], number, values) for path in paths for number, values in enumerate(_values(path))]


def _values(path: Path) -> list[dict[str, Any]]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return pl.read_parquet(path).to_dicts()
    if name.endswith(".csv"):
        return pl.read_csv(path, infer_schema=False).to_dicts()
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    if name.endswith(".json"):
        whole = _parse(content.decode(), str(path))
        rows = whole if isinstance(whole, list) else next((whole[k] for k in ("data", "examples") if k in whole), None)
        if not isinstance(rows, list):
            raise MidtrainError(f"{path}: expected a list of rows, or one under `data` or `examples`")
        return rows
    lines = content.decode().split("\n")
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise MidtrainError(f"{where}: not JSON: {error}") from None


def by_subject(rows: list[Row], subjects: Mapping[str, str]) -> dict[str, list[Row]]:
    """MMLU's rows by subject. `subjects` holds all 57; without a `subject` field the order of the split says which is which."""
    if all("subject" in row.values for row in rows):
        return {subject: [row for row in rows if row.values["subject"] == subject] for subject in subjects}
    names = sorted(subjects)
    if len(rows) == 5 * len(names):
        bounds = [5 * i for i in range(len(names) + 1)]
    elif len(rows) == sum(MMLU_VALIDATION):
        bounds = [sum(MMLU_VALIDATION[:i]) for i in range(len(names) + 1)]
    else:
        raise MidtrainError(
            f"MMLU rows without a `subject` field: {len(rows)} of them are neither the dev split (285) nor validation (1531)"
        )
    return {name: rows[start:end] for name, (start, end) in zip(names, pairwise(bounds), strict=True)}
