"""Bytes in bounded pieces: decompression, lines and XML elements that cannot fill the memory."""

import bz2
import codecs
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from midtrain_dagster.collect import gunzip

CHUNK = 1 << 20
PIECE = 64 << 10
WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Piece(NamedTuple):
    """A line or an element; `data` is None where it was longer than the limit."""

    number: int  # counted from 1
    offset: int  # first byte, in the decompressed stream
    data: bytes | None


def damaged() -> tuple[type[Exception], ...]:
    """What reading a damaged compressed file raises."""
    import zstandard

    return EOFError, OSError, zlib.error, zstandard.ZstdError


def opened(path: Path) -> BinaryIO:
    """A file, decompressed as its name says (.gz, .bz2, .zst)."""
    if path.name.endswith(".gz"):
        return io.BufferedReader(gunzip.Gunzip(path), CHUNK)
    if path.name.endswith(".bz2"):
        return bz2.open(path, "rb")  # type: ignore[return-value]
    if path.name.endswith(".zst"):
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True))
    return path.open("rb")


class Transcoded(io.RawIOBase):
    """A stream of UTF-16 or UTF-32 as UTF-8, a piece at a time; what is not valid becomes U+FFFD."""

    def __init__(self, stream: BinaryIO, charset: str):
        super().__init__()
        self._stream, self._decoder = stream, codecs.getincrementaldecoder(charset)("replace")
        self._out, self._ended = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out and not self._ended:
            piece = self._stream.read(PIECE)
            self._ended = not piece
            text = self._decoder.decode(piece, final=self._ended)
            self._out = text.encode("utf-8", "replace")
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size


def utf8(stream: BinaryIO) -> BinaryIO:
    """The stream, or where it starts with the byte order mark of another Unicode form, the same text as UTF-8."""
    start = stream.peek(4)[:4] if hasattr(stream, "peek") else b""
    for mark, charset in WIDE:
        if start.startswith(mark):
            return io.BufferedReader(Transcoded(stream, charset), CHUNK)
    return stream


def losses(stream: BinaryIO) -> tuple[gunzip.Loss, ...]:
    """What was lost of a stream up to where it was read, where reading could go on after it."""
    raw = getattr(stream, "raw", None)
    return tuple(raw.losses) if isinstance(raw, gunzip.Gunzip) else ()


def lines(stream: BinaryIO, limit: int) -> Iterator[Piece]:
    """Lines of at most `limit` bytes without their end; a longer one is skipped in pieces and yields None."""
    number = offset = 0
    while line := stream.readline(limit + 2):
        number += 1
        size = len(line)
        whole = len(line.rstrip(b"\r\n")) <= limit
        data = line.rstrip(b"\r\n") if whole else None
        while not line.endswith(b"\n") and (line := stream.readline(CHUNK)):
            size += len(line)
        yield Piece(number, offset, data)
        offset += size


def elements(stream: BinaryIO, tag: bytes, limit: int) -> Iterator[Piece]:
    """The XML elements `<tag …>…</tag>` of a stream, each as its own bytes, of at most `limit`.

    The stream is cut, not parsed, so that a broken element costs itself and nothing else, and nothing that the
    prolog declares (entities) reaches an element. An element that does not end yields what there is of it.
    """
    start, end = b"<" + tag, b"</" + tag + b">"
    buffer, base, number = b"", 0, 0
    while chunk := stream.read(CHUNK):
        buffer += chunk
        while True:
            at = _opening(buffer, start)
            if at < 0:
                keep = min(len(buffer), len(start))
                base, buffer = base + len(buffer) - keep, buffer[len(buffer) - keep :]
                break
            stop = buffer.find(end, at)
            if stop < 0 and len(buffer) - at <= limit:
                base, buffer = base + at, buffer[at:]
                break
            number += 1
            offset = base + at
            if stop < 0:
                buffer, skipped = _after(stream, buffer, end)
                base += skipped
                yield Piece(number, offset, None)
                continue
            stop += len(end)
            data, base, buffer = buffer[at:stop], base + stop, buffer[stop:]
            yield Piece(number, offset, data if len(data) <= limit else None)
    at = _opening(buffer, start)
    if at >= 0:
        yield Piece(number + 1, base + at, buffer[at:])


def _opening(buffer: bytes, start: bytes) -> int:
    """Where `<tag` stands as a whole name, or -1."""
    at = buffer.find(start)
    while at >= 0 and buffer[at + len(start) : at + len(start) + 1] not in (b"", b">", b" ", b"\t", b"\r", b"\n"):
        at = buffer.find(start, at + 1)
    return at


def _after(stream: BinaryIO, buffer: bytes, end: bytes) -> tuple[bytes, int]:
    """Read on until `end` without keeping what comes before it: what follows it, and how many bytes were passed."""
    passed = 0
    while True:
        at = buffer.find(end)
        if at >= 0:
            return buffer[at + len(end) :], passed + at + len(end)
        chunk = stream.read(CHUNK)
        if not chunk:
            return b"", passed + len(buffer)
        keep = min(len(buffer), len(end))
        passed += len(buffer) - keep
        buffer = buffer[len(buffer) - keep :] + chunk


def read_whole(path: Path, limit: int) -> bytes | None:
    """A file, decompressed, of at most `limit` bytes; None for a larger one. Raises one of damaged() for a broken one."""
    with opened(path) as file:
        data = file.read(limit + 1)
        if losses(file):
            raise EOFError(f"corrupt gzip member: {losses(file)[0].detail}")
    return data if len(data) <= limit else None
