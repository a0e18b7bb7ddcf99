"""Benchmark rows from a local directory, in each data set's own format.

`DIR/<set>_<split>.jsonl` (gsm8k_test.jsonl, arc_easy_test.jsonl), `DIR/<set>/<split>.jsonl` or `DIR/<set>.jsonl`, also below other directories
(`gsm8k/main/test-00000-of-00001.parquet`); also .json (a list, or a list under `data` or `examples`), .csv and .parquet, .jsonl also as .gz.
Upper case, `-` and `_` do not matter. A file that names no split is the evaluated one. Split names: test; validation, valid, val or dev; train.
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
from midtrain_dagster.files import name_of_rows

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")
SPLITS = {"test": "test", "standard": "test", "validation": "validation", "valid": "validation", "val": "validation"}
SPLITS |= {"dev": "dev", "train": "train"}

# Rows of each of the 57 subjects, in alphabetical order, in MMLU's validation split (2009.03300).
MMLU_VALIDATION = (
    *(11, 14, 16, 11, 29, 16, 8, 11, 11, 22, 11, 11, 26, 12, 16, 41, 14, 10, 32, 22, 9, 18, 22, 21, 43, 29, 26, 17, 60),
    *(23, 22, 26, 23, 12, 13, 11, 18, 11, 11, 25, 11, 86, 38, 100, 33, 34, 35, 31, 170, 31, 69, 12, 27, 22, 11, 18, 19),
)
# And in its test split.
MMLU_TEST = (
    *(100, 135, 152, 100, 265, 144, 100, 100, 100, 173, 102, 100, 235, 114, 145, 378, 126, 100, 310, 203, 100, 165, 198, 193),
    *(390, 270, 238, 151, 545, 216, 204, 237, 223, 131, 121, 108, 163, 112, 103, 234, 100, 783, 346, 895, 306, 311, 324, 282),
    *(1534, 272, 612, 110, 245, 201, 100, 166, 171),
)
MMLU_DEV = (5,) * 57


class Row(NamedTuple):
    """One row and where it stands."""

    file: str  # files.name_of_rows
    number: int  # 0-based, in the file
    values: dict[str, Any]


def find(places: Path | Iterable[Path], names: Iterable[str]) -> dict[str, list[Path]]:
    """Split → files of the sets called any of `names`, below all `places`; empty where there are none.

    A place that is a file holds the rows that are asked for, whatever it is called. Raises MidtrainError where a place does not exist.
    """
    wanted = {_plain(name) for name in names}
    found: dict[str, list[Path]] = {}
    for place in [places] if isinstance(places, Path) else places:
        if place.is_file():
            found.setdefault("test", []).append(place)
        elif not place.is_dir():
            raise MidtrainError(f"{place}: there is no such directory of benchmark rows")
        for path in sorted(place.rglob("*")):
            split = _split_of(path.relative_to(place), wanted) if path.name.lower().endswith(SUFFIXES) else None
            if split is not None and path.is_file():
                found.setdefault(split, []).append(path)
    return found


def _split_of(path: Path, wanted: set[str]) -> str | None:
    """The split that a file below a place is of, when it is of a wanted set: named by itself, or by the directories that it is in."""
    folders = [_plain(part) for part in path.parts[:-1]]
    stem = re.sub(r"_\d{5}_of_\d{5}$", "", _plain(path.name.split(".")[0]))  # shards as the hub names them
    within = f"{folders[-1]}_{stem}" if folders else stem  # bbh/boolean_expressions.json, gsm8k/test.jsonl
    for name in (stem, within):
        if name in wanted:
            return "test"
        start, _, last = name.rpartition("_")
        if start in wanted and last in SPLITS:
            return SPLITS[last]
    above = {*folders, *(f"{a}_{b}" for a, b in pairwise(folders))}  # gsm8k/main/test-00000-of-00001.parquet
    return SPLITS.get(stem) if above & wanted else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def read(paths: Iterable[Path]) -> list[Row]:
    """All rows of the files, in order. Raises MidtrainError, naming file and line, for one that cannot be read."""
    return [Row(name_of_rows(path), number, values) for path in paths for number, values in enumerate(_values(path))]


def _values(path: Path) -> list[dict[str, Any]]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return pl.read_parquet(path).to_dicts()
    if name.endswith(".csv"):
        return pl.read_csv(path, infer_schema=False).to_dicts()
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    if name.endswith(".json"):
        whole = _parse(content.decode(), str(path))
        rows = whole if isinstance(whole, list) else next((whole[k] for k in ("data", "Data", "examples") if k in whole), None)
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


def by_subject(rows: list[Row], subjects: Mapping[str, str]) -> dict[str, list[Row]] | None:
    """MMLU's rows by subject; None where they do not say which they are of. `subjects` holds all 57.

    Without a `subject` field the order of a whole split (dev, validation or test) says it.
    """
    if all("subject" in row.values for row in rows):
        return {subject: [row for row in rows if row.values["subject"] == subject] for subject in subjects}
    for counts in (MMLU_DEV, MMLU_VALIDATION, MMLU_TEST):
        if len(rows) == sum(counts):
            bounds = [sum(counts[:i]) for i in range(len(counts) + 1)]
            return {name: rows[start:end] for name, (start, end) in zip(sorted(subjects), pairwise(bounds), strict=True)}
    return None
