"""Documents in plain files: how every stage runs without Dagster.

JSONL (plain, .gz, .zst) or Parquet with at least `id` and `text` in; Parquet out. What cannot be read is a counted, kept
reject, never a crash and never a silent loss.
"""

import bz2
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import polars as pl

from midtrain_dagster.documents import SCHEMA, Batch, documents, rejected
from midtrain_dagster.errors import MidtrainError

BATCH_BYTES = 64 << 20
BATCH_ROWS = 10_000
LONGEST = 64 << 20  # bytes of a line, decompressed
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".ndjson", ".parquet")


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
        yield from rest(path, 0, batch_bytes or BATCH_BYTES)


def rest(path: Path, after: int, batch_bytes: int) -> Iterator[Batch]:
    """As `read`, of one file from behind its first `after` lines or rows on."""
    rows = _parquet_rows(path, after) if path.name.endswith(".parquet") else _json_rows(path, after)
    yield from _batches(path, rows, batch_bytes)


def of_lines(path: Path, file: BinaryIO, after: int, batch_bytes: int) -> Iterator[Batch]:
    """As `read`, of lines of JSON that stand in `path` behind its first `after` lines."""
    yield from _batches(path, _json_lines(path, file, after), batch_bytes)


def _batches(path: Path, rows: Iterator[tuple[str, Any]], batch_bytes: int) -> Iterator[Batch]:
    kept: list[dict[str, Any]] = []
    lost: list[dict[str, str]] = []
    size = 0
    for location, row in rows:
        problem = _problem(row)
        if problem:
            lost.append({"source": path.name, "location": location, "reason": problem[0], "detail": problem[1]})
        else:
            kept.append(_document(row, path))
            size += len(row["text"])
        if size >= batch_bytes or len(kept) + len(lost) >= BATCH_ROWS:
            yield Batch(documents(kept), rejected(lost))
            kept, lost, size = [], [], 0
    if kept or lost:
        yield Batch(documents(kept), rejected(lost))


class _Broken(NamedTuple):
    """What stands in the place of a record that could not be read."""

    reason: str
    detail: str


def _broken(reason: str, error: BaseException | str) -> _Broken:
    return _Broken(reason, " ".join(str(error).split())[:200])


def _problem(row: Any) -> tuple[str, str] | None:
    if isinstance(row, _Broken):
        return row
    if not isinstance(row, dict):
        return "not a record", f"a JSON {type(row).__name__}"
    for name in ("id", "text"):
        if not isinstance(row.get(name), str if name == "text" else str | int):
            return f"no {name}", _utf8(f"keys: {', '.join(map(str, row))[:150]}")
    try:
        f"{row['id']}{row['text']}".encode()
    except UnicodeEncodeError as error:
        return "invalid Unicode", f"lone surrogate at character {error.start}"
    return None


def _utf8(text: str) -> str:
    """The text, with what is no Unicode replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _document(row: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {k: v for k, v in row.items() if k in SCHEMA and k not in ("text_hash", "created", "collected")}
    rest = {k: v for k, v in row.items() if k not in SCHEMA}
    for name in ("created", "collected"):
        known[name] = _moment(row.get(name))
        if known[name] is None and row.get(name) is not None:
            rest[name] = row[name]
    for name in ("source", "url", "license", "language", "domain", "format", "generator"):
        if known.get(name) is not None:
            known[name] = _utf8(known[name] if isinstance(known[name], str) else json.dumps(known[name], default=str))
    own = known.get("metadata")
    if rest or (own is not None and not isinstance(own, str)):
        own = own if isinstance(own, dict) else {"metadata": own} if own else {}
        known["metadata"] = json.dumps({**own, **rest}, ensure_ascii=False, default=str)
    if known.get("metadata"):
        known["metadata"] = _utf8(known["metadata"])
    parents = known.get("parent_ids")
    known["parent_ids"] = [str(parent) for parent in parents] if isinstance(parents, list) else []
    return {**known, "id": str(row["id"]), "source": known.get("source") or path.name}


def _moment(value: Any) -> datetime | None:
    """A moment from Parquet or ISO 8601; None for anything else."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if not isinstance(found, datetime):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed as its name says (.gz, .bz2, .zst)."""
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.endswith(".bz2"):
        return bz2.open(path, "rb")  # type: ignore[return-value]
    if path.name.endswith(".zst"):
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True))
    return path.open("rb")


def _json_rows(path: Path, after: int) -> Iterator[tuple[str, Any]]:
    """JSON Lines, or one JSON array of at most LONGEST bytes."""
    try:
        empty, file = path.stat().st_size == 0, open_binary(path)
    except OSError as error:
        yield f"{path}:1", _broken("truncated file", error)
        return
    with file:
        for _ in range(after):
            file.readline()
        if empty:
            yield str(path), _broken("empty file", "no bytes")
        yield from _json_lines(path, file, after)


def _json_lines(path: Path, file: BinaryIO, number: int) -> Iterator[tuple[str, Any]]:
    """The records of lines of which `number` stood before in the file."""
    try:
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                while line and not line.endswith(b"\n"):
                    line = file.readline(1 << 20)
                yield f"{path}:{number}", _broken("record too large", f"a line of more than {LONGEST} bytes")
            elif number == 1 and line.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                yield from _array(path, line, file)
                return
            elif line.strip():
                yield f"{path}:{number}", _value(line)
    except (EOFError, OSError, zlib.error, zstd_error()) as error:
        yield f"{path}:{number + 1}", _broken("truncated file", error)


def _value(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _broken("invalid UTF-8", error)
    except (ValueError, RecursionError) as error:
        return _broken("not JSON", error)


def _array(path: Path, line: bytes, file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """The records of a file that is one array, or lines that only look like one."""
    whole = line + file.read(LONGEST + 1 - len(line))
    found = _value(whole) if len(whole) <= LONGEST else _broken("record too large", f"an array of more than {LONGEST} bytes")
    if isinstance(found, list):
        yield from ((f"{path}:{number}", value) for number, value in enumerate(found, start=1))
    elif isinstance(found, _Broken) and len(whole) <= LONGEST:
        yield from ((f"{path}:{number}", _value(row)) for number, row in enumerate(whole.splitlines(), start=1) if row.strip())
    else:
        yield str(path), found


def zstd_error() -> type[Exception]:
    """What a damaged .zst file raises."""
    import zstandard

    return zstandard.ZstdError


def _parquet_rows(path: Path, after: int) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                skipped = min(len(batch), max(0, after - number))
                number += skipped
                for row in batch[skipped:].to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        yield f"{path}:{number + 1}", _broken("unreadable file", error)


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
