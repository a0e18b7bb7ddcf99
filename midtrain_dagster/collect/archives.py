"""A member of a .7z archive as a file on temporary disk space. No path of an archive is ever written to."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError


class TooLarge(Exception):
    """A member is larger, decompressed, than is allowed."""


@contextmanager
def member(path: Path, name: str, limit: int) -> Iterator[Path]:
    """The member of that name (in whatever directory, case aside) of a .7z archive, for as long as the block runs.

    Raises ValueError for an archive that is damaged, holds an unsafe path or no such member, TooLarge for one of more than
    `limit` bytes, whatever its header declares, and MidtrainError where py7zr is not installed.
    """
    try:
        import py7zr
        from py7zr.exceptions import ArchiveError
    except ImportError:
        raise MidtrainError(
            f"{path}: reading .7z needs py7zr: pip install 'midtrain-dagster[archives]', or unpack it"
        ) from None
    with tempfile.TemporaryDirectory(prefix="midtrain-") as directory:
        out = Path(directory) / "member"
        try:
            with py7zr.SevenZipFile(path) as archive:
                inside = _one(archive.list(), name, limit)
                archive.extract(targets=[inside], factory=_factory(out, limit))
        except (
            ArchiveError,
            OSError,
            EOFError,
            ValueError,
            LookupError,
            ArithmeticError,
            MemoryError,
            TypeError,
            AttributeError,
        ) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            if type(error).__module__.split(".")[0] in (
                "_lzma",
                "lzma",
                "zlib",
                "pyppmd",
                "bcj",
                "inflate64",
                "pyzstd",
                "brotli",
            ):
                raise ValueError(f"{type(error).__name__}: {error}") from error
            raise
        if not out.is_file():
            raise ValueError(f"{name} could not be taken out")
        yield out


def _one(entries: list[Any], name: str, limit: int) -> str:
    """The member's own path in the archive."""
    paths = [str(entry.filename) for entry in entries]
    unsafe = [
        path for path in paths if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/") or path[1:2] == ":"
    ]
    if unsafe:
        raise ValueError(f"unsafe path in archive: {unsafe[0][:200]}")
    found = [
        entry for entry in entries if str(entry.filename).rsplit("/", 1)[-1].lower() == name.lower() and not entry.is_directory
    ]
    if len(found) != 1:
        raise ValueError(f"holds {len(found)} of {name}, expected one")
    if (found[0].uncompressed or 0) > limit:
        raise TooLarge(f"{name} has {found[0].uncompressed} bytes, at most {limit}")
    return str(found[0].filename)


def _factory(out: Path, limit: int) -> Any:
    """What py7zr writes to instead of files: one file of ours, no larger than the limit."""
    from py7zr.io import Py7zIO, WriterFactory

    class Bounded(Py7zIO):
        def __init__(self) -> None:
            self.file = out.open("w+b")
            self.written = 0

        def write(self, data: bytes | bytearray) -> int:
            self.written += len(data)
            if self.written > limit:
                raise TooLarge(f"more than {limit} bytes")
            return self.file.write(data)

        def read(self, size: int | None = None) -> bytes:
            return self.file.read(-1 if size is None else size)

        def seek(self, offset: int, whence: int = 0) -> int:
            return self.file.seek(offset, whence)

        def flush(self) -> None:
            self.file.flush()

        def size(self) -> int:
            return self.written

        def close(self) -> None:
            self.file.close()

    class One(WriterFactory):
        def create(self, filename: str) -> Py7zIO:
            return Bounded()

    return One()
