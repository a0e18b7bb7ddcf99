"""Gzip files read through their damage: a broken member costs itself, and reading goes on at the next one."""

import io
import zlib
from pathlib import Path
from typing import Any, NamedTuple

PIECE = 64 << 10  # compressed bytes at a time
SMALL = 256  # and around a break
MOST = 1 << 20  # decompressed bytes at a time
MAGIC = b"\x1f\x8b\x08"
TRIAL = 4096  # bytes that a would-be member is tried on
WINDOW = 1 << 20


class Loss(NamedTuple):
    """A place where a file is damaged."""

    offset: int  # in the compressed file: where the damaged member starts
    detail: str


class Gunzip(io.RawIOBase):
    """The decompressed bytes of a gzip file of one or more members.

    What a member holds before its break is given; then a line end, so that what follows starts a line of its own, and the
    next member. `losses` says where this happened. Raises EOFError for a file that ends inside a member, and zlib.error
    after a break that no further member follows: nothing is lost without a word.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.losses: list[Loss] = []
        self._file = path.open("rb")
        self._inflater: Any = None  # None between members
        self._held = b""  # read and not yet decompressed
        self._at = self._member = 0  # where `_held` ends and where the member starts, in the file
        self._out = b""
        self._error: zlib.error | None = None

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._out:
            if self._error is not None:
                raise self._error
            if not self._held:
                self._held = self._file.read(PIECE)
                self._at += len(self._held)
            if not self._held:
                if self._inflater is not None:
                    raise EOFError("the file ends inside a gzip member")
                return 0
            if self._inflater is None:
                self._start()
            else:
                self._inflate()
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size

    def _start(self) -> None:
        """Between members: zero bytes are padding, anything else starts a member."""
        self._held = self._held.lstrip(b"\0")
        if self._held:
            self._member = self._at - len(self._held)
            self._inflater = zlib.decompressobj(31)

    def _inflate(self) -> None:
        before = self._inflater.copy()
        try:
            self._out = self._inflater.decompress(self._held, MOST)
        except zlib.error as error:
            self._break(before, error)
            return
        if self._inflater.eof:
            self._held, self._inflater = self._inflater.unused_data, None
        else:
            self._held = self._inflater.unconsumed_tail

    def _break(self, before: Any, error: zlib.error) -> None:
        """Give what comes before the break, then go on at the next member, or end with the error where there is none."""
        salvaged = b""
        for start in range(0, len(self._held), SMALL):
            try:
                salvaged += before.decompress(self._held[start : start + SMALL], MOST)
            except zlib.error:
                break
        self._out, self._held, self._inflater = salvaged, b"", None
        following = self._next()
        if following is None:
            self._error = error
            return
        self.losses.append(Loss(self._member, str(error)))
        self._out += b"\n"
        self._file.seek(following)
        self._at = following

    def _next(self) -> int | None:
        """Where the next member starts, after the start of this one; None where nothing more can be decompressed."""
        offset = self._member + 1
        self._file.seek(offset)
        window = b""
        while chunk := self._file.read(WINDOW):
            window += chunk
            at = window.find(MAGIC)
            while at >= 0:
                if self._plausible(offset + at):
                    return offset + at
                at = window.find(MAGIC, at + 1)
            keep = min(len(window), len(MAGIC) - 1)
            offset, window = offset + len(window) - keep, window[len(window) - keep :]
        return None

    def _plausible(self, offset: int) -> bool:
        """Whether what starts here begins as a member does. Leaves the file where it was."""
        back = self._file.tell()
        self._file.seek(offset)
        try:
            return bool(zlib.decompressobj(31).decompress(self._file.read(TRIAL), 1))
        except zlib.error:
            return False
        finally:
            self._file.seek(back)
