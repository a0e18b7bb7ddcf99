"""Documents in plain files: how every stage runs without Dagster.

JSONL (plain, .gz, .zst) or Parquet with at least `id` and `text` in; Parquet out. What cannot be read is a counted, kept
reject, never a crash and never a silent loss.
"""

import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from midtrain_dagster.documents import SCHEMA, Batch, documents, rejected
from midtrain_dagster.errors import MidtrainError

BATCH_BYTES = 64 << 20
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".parquet")


def find(paths: Iterable[Path]) -> list[Path]:
    """The files that `paths` name: a file is itself, a directory all files under it that we can read, sorted.

    Raises MidtrainError for a path that does not exist and when nothing readable is found.
    """
    named = list(paths)
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(SUFFIXES))
        elif path.exists():
            found.append(path)
        else:
            raise MidtrainError(f"{path}: there is no such file or directory")
    if not found:
        raise MidtrainError(f"no readable files in {', '.join(map(str, named))}; expected one of {', '.join(SUFFIXES)}")
    return found


def read(paths: Iterable[Path], batch_bytes: int | None = None) -> Iterator[Batch]:
    """Batches of documents, about `batch_bytes` (none: BATCH_BYTES) of text each, and the lines or rows that are none.

    Columns that a document does not have go to `metadata`; `source` is the file's own column or the file's name.
    """
    for path in find(paths):
        lines = _parquet_rows(path) if path.name.endswith(".parquet") else _json_rows(path)
        yield from _batches(path, lines, batch_bytes or BATCH_BYTES)


def _batches(path: Path, rows: Iterator[tuple[str, Any]], batch_bytes: int) -> Iterator[Batch]:
    kept: list[dict[str, Any]] = []
    lost: list[dict[str, str]] = []
    size = 0
    for location, row in rows:
        problem = _problem(row)
        if problem:
            lost.append({"source": path.name, "location": location, "reason": problem[0], "detail": problem[1]})
            continue
        kept.append(_document(row, path))
        size += len(row["text"])
        if size >= batch_bytes:
            yield Batch(documents(kept), rejected(lost))
            kept, lost, size = [], [], 0
    if kept or lost:
        yield Batch(documents(kept), rejected(lost))


def _problem(row: Any) -> tuple[str, str] | None:
    if isinstance(row, ValueError | EOFError | OSError):
        return ("not JSON" if isinstance(row, ValueError) else "truncated file"), " ".join(str(row).split())[:200]
    if not isinstance(row, dict):
        return "not a record", f"a JSON {type(row).__name__}"
    for name in ("id", "text"):
        if not isinstance(row.get(name), str if name == "text" else str | int):
            return f"no {name}", f"keys: {', '.join(map(str, row))[:150]}"
    return None


def _document(row: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {k: v for k, v in row.items() if k in SCHEMA and k not in ("text_hash", "created", "collected")}
    rest = {k: v for k, v in row.items() if k not in SCHEMA}
    for name in ("url", "license", "language", "domain", "format", "generator"):
        if known.get(name) is not None and not isinstance(known[name], str):
            known[name] = json.dumps(known[name])
    if rest or isinstance(known.get("metadata"), dict):
        own = known.get("metadata")
        own = own if isinstance(own, dict) else {"metadata": own} if own else {}
        known["metadata"] = json.dumps({**own, **rest}, ensure_ascii=False, default=str)
    return {**known, "id": str(row["id"]), "source": known.get("source") or path.name}


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed as its name says (.gz, .zst)."""
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.endswith(".zst"):
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True))
    return path.open("rb")


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        with open_binary(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield f"{path}:{number}", json.loads(line)
                except ValueError as error:
                    yield f"{path}:{number}", error
    except (EOFError, OSError, _zstd_error()) as error:
        yield f"{path}:{number + 1}", EOFError(str(error))


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        yield str(path), OSError(str(error))
        return
    number = 0
    for batch in file.iter_batches(batch_size=4096):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


class ParquetSink:
    """Writes frames of one schema to one Parquet file, batch by batch; the file appears when it is complete."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows = path, 0
        self._partial = path.with_name(path.name + ".partial")
        self._writer: Any = None

    def write(self, frame: pl.DataFrame) -> None:
        import pyarrow.parquet

        table = frame.to_arrow()
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))
        self.rows += len(frame)

    def __enter__(self) -> "ParquetSink":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._writer is not None:
            self._writer.close()
            if kind is None:
                self._partial.replace(self.path)


def name_of_rows(path: Path) -> str:
    """What a file of benchmark rows is called, in evaluation as in decontamination: `gsm8k_test`, also for gsm8k/main/test.jsonl.

    The file's name before its first dot; where that names a split alone, the directory that names the set stands before it.
    """
    stem = path.name.split(".")[0]
    if not re.fullmatch(r"(test|validation|valid|val|dev|train)(-\d{5}-of-\d{5})?", stem.lower()):
        return stem
    above = path.parent
    while above.name.lower() in ("main", "default", "data", "full", "plain_text") and above.parent != above:
        above = above.parent
    return f"{above.name}_{stem}" if above.name else stem
