"""Documents' ids and texts alone, read by column: for stages that look at every text and keep few.

The documents, rejects and their order are those of `files.read`. Blocks in which something is not as it should be are left to its own
code: it knows what is wrong and what to keep.
"""

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster import files
from midtrain_dagster.documents import Batch, rejected

BLOCK_BYTES = 16 << 20
BLOCK_ROWS = 4096
READ_BYTES = 1 << 20  # of a column at a time: a row group as a whole is slower, and much memory
INTEGERS = re.compile(rb'"id": ?-?\d+[,}]')
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
TEXTS = pl.Schema({"id": pl.String, "text": pl.String})


def read_texts(paths: Iterable[Path]) -> Iterator[Batch]:
    """Batches of `id` and `text`, about BLOCK_BYTES each, and the lines or rows that are none. Errors as `files.read`."""
    for path in files.find(paths):
        yield from _parquet(path) if path.name.endswith(".parquet") else _lines(path)


def _slowly(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield Batch(batch.documents.select(list(TEXTS)), batch.rejected)


def _parquet(path: Path) -> Iterator[Batch]:
    import pyarrow
    import pyarrow.parquet

    taken = 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
            for rows in file.iter_batches(batch_size=BLOCK_ROWS, columns=[c for c in TEXTS if c in file.schema_arrow.names]):
                texts = _of_arrow(rows)
                if texts is None:
                    break
                yield Batch(texts, rejected([]))
                taken += len(texts)
            else:
                return
    except (OSError, ValueError, pyarrow.ArrowException):
        pass  # said by what follows
    yield from _slowly(files.rest(path, taken, BLOCK_BYTES))


def _of_arrow(rows: Any) -> pl.DataFrame | None:
    """Rows of Arrow as a frame; None where an id or a text is missing or no string. Raises ArrowInvalid for what is no UTF-8."""
    import pyarrow

    strings = (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())
    if not all(name in rows.schema.names and rows[name].type in strings and not rows[name].null_count for name in TEXTS):
        return None
    rows.validate(full=True)
    frame = pl.from_arrow(rows.select(list(TEXTS)))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _lines(path: Path) -> Iterator[Batch]:
    """JSON Lines block by block: one that is not in order goes the slow way alone; an array, a line longer than a block or a
    damaged archive, and all that follows it, too."""
    taken = 0
    try:
        with files.open_binary(path) as file:
            while block := file.read(BLOCK_BYTES):
                block += file.readline(BLOCK_BYTES) if not block.endswith(b"\n") else b""
                texts = _of_json(block)
                if texts is not None:
                    yield Batch(texts, rejected([]))
                elif block.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") or (not block.endswith(b"\n") and file.read(1)):
                    break
                else:
                    yield from _slowly(files.of_lines(path, io.BytesIO(block), taken, BLOCK_BYTES))
                taken += block.count(b"\n")
            else:
                if path.stat().st_size:
                    return
    except (EOFError, OSError, zlib.error, files.zstd_error()):
        pass  # said by what follows
    yield from _slowly(files.rest(path, taken, BLOCK_BYTES))


def _of_json(block: bytes) -> pl.DataFrame | None:
    """Lines of JSON; None where one is no record with an id and a text that are strings.

    The parser is lenient where `files.read` is not: it takes `5` and `["a"]` for a string, the first of two equal fields, and half a
    surrogate pair for a NUL. So a block is left to `files.read` unless there are as many of each field as lines, each a string (an id
    may be an integer).
    """
    rows = block.count(b"\n") + (not block.endswith(b"\n"))
    for name, unquoted in ((b"id", INTEGERS), (b"text", None)):
        strings = block.count(b'"%b": "' % name) + block.count(b'"%b":"' % name)
        if strings != rows and unquoted is not None:
            strings += len(unquoted.findall(block))
        if not strings == rows == block.count(b'"%b":' % name) or b'"%b" ' % name in block:
            return None
    try:
        frame = pl.read_ndjson(block, schema=TEXTS)
    except pl.exceptions.PolarsError:
        return None
    if len(frame) != rows or sum(frame.null_count().row(0)):
        return None
    if any(_is_escape(block, found.start()) for found in SURROGATE.finditer(block)):
        halved = pl.concat_str("id", "text").str.contains("\0", literal=True)
        return None if frame.select(halved.any()).item() else frame
    return frame


def _is_escape(block: bytes, at: int) -> bool:
    """Whether the backslash at a place begins an escape: an even number of them stands before it."""
    before = block[max(0, at - 64) : at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0
