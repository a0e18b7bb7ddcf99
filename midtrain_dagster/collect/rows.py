"""Records in JSON, Parquet and Arrow files, one dictionary a record, streaming."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from midtrain_dagster.collect.records import Rejected, because
from midtrain_dagster.collect.streams import CHUNK, damaged, lines, losses, opened, utf8

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst", ".jsonl.bz2")
PARQUET_SUFFIXES = (".parquet",)
ARROW_SUFFIXES = (".arrow", ".feather")
ROWS = 256  # read from a table at a time


class Row(NamedTuple):
    """One record and where it stands."""

    location: str
    values: dict[str, Any]


def read(path: Path, name: str, limit: int) -> Iterator[Row | Rejected]:
    """The records of a file, in whichever of the formats its name says."""
    lower = path.name.lower()
    if lower.endswith(PARQUET_SUFFIXES):
        return parquet(path, name)
    return arrow(path, name) if lower.endswith(ARROW_SUFFIXES) else jsons(path, name, limit)


def jsons(path: Path, name: str, limit: int) -> Iterator[Row | Rejected]:
    """JSON Lines, or one JSON array of records; plain or compressed."""
    number = 0
    try:
        with opened(path) as file:
            array = ".json" in path.suffixes and _first(path) == b"["
            for number, value in _array(utf8(file), limit) if array else _lines(utf8(file), limit):
                yield _row(f"{name}:{number}", value)
            yield from lost(file, name)
    except damaged() as error:
        yield Rejected(f"{name}:{number + 1}", "truncated file", because(error))


def lost(file: BinaryIO, name: str) -> Iterator[Rejected]:
    """The damaged places of a compressed file that reading could pass."""
    for loss in losses(file):
        yield Rejected(f"{name}@{loss.offset}", "corrupt gzip member", loss.detail)


def _first(path: Path) -> bytes:
    with opened(path) as file:
        return utf8(file).read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]


def _row(location: str, value: Any) -> Row | Rejected:
    if isinstance(value, Rejected):
        return value._replace(location=location)
    return (
        Row(location, value)
        if isinstance(value, dict)
        else Rejected(location, "not a record", f"a JSON {type(value).__name__}")
    )


def _lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, Any]]:
    for number, _, data in lines(file, limit):
        if data is None:
            yield number, Rejected("", "record too large", f"a line of more than {limit} bytes")
        elif data.strip():
            yield number, _value(data)


def _value(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Rejected("", "invalid UTF-8", because(error))
    except (ValueError, RecursionError) as error:
        return Rejected("", "not JSON", because(error))


def _array(file: BinaryIO, limit: int) -> Iterator[tuple[int, Any]]:
    """The values of one large array, decoded one by one. After a value that is no JSON nothing can be read."""
    decoder, number, at = json.JSONDecoder(), 0, 0
    import codecs

    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    buffer = ""
    ended = False
    while True:
        while at < len(buffer) and buffer[at] in " \t\r\n,[" and (number == 0 or buffer[at] != "["):
            number, at = (max(number, 1), at + 1)
            if buffer[at - 1] == "[":
                break
        if at < len(buffer) and buffer[at] == "]":
            return
        try:
            if at >= len(buffer):
                raise ValueError("the array does not end")
            value, stop = decoder.raw_decode(buffer, at)
            if stop >= len(buffer) and not ended:
                raise ValueError("may go on")
            yield number, value if stop - at <= limit else Rejected("", "record too large", f"more than {limit} characters")
            number, at = number + 1, stop
        except (ValueError, RecursionError) as error:
            if ended or len(buffer) - at > limit:
                reason = "record too large" if len(buffer) - at > limit else "not JSON"
                yield max(number, 1), Rejected("", reason, because(error))
                return
            try:
                chunk = file.read(max(CHUNK, len(buffer) - at))
                buffer, at, ended = buffer[at:] + utf8.decode(chunk, final=not chunk), 0, not chunk
            except UnicodeDecodeError as problem:
                yield max(number, 1), Rejected("", "invalid UTF-8", because(problem))
                return


def parquet(path: Path, name: str) -> Iterator[Row | Rejected]:
    """Rows of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{name}:{number}", values)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        yield Rejected(f"{name}:{number + 1}", "unreadable file", because(error))


def arrow(path: Path, name: str) -> Iterator[Row | Rejected]:
    """Rows of an Arrow IPC file or stream."""
    import pyarrow

    number = 0
    try:
        with pyarrow.OSFile(str(path)) as file:
            for batch in _arrow_batches(file):
                batch.validate(full=True)  # offsets of a damaged file would be followed to anywhere in memory
                for start in range(0, batch.num_rows, ROWS):
                    for values in batch.slice(start, ROWS).to_pylist():
                        number += 1
                        yield Row(f"{name}:{number}", values)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        yield Rejected(f"{name}:{number + 1}", "unreadable file", because(error))


def _arrow_batches(file: Any) -> Iterator[Any]:
    import pyarrow.ipc

    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pyarrow.ipc.open_file(file)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from pyarrow.ipc.open_stream(file)
