"""Where a source's files are: placeholders, relative paths, directories and globs."""

import glob
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from midtrain_dagster.errors import MidtrainError


def expand(location: str, root: Path) -> str:
    """The location as an absolute path or glob, with `~`, `{site-packages}` and `{stdlib}` filled in."""
    paths = sysconfig.get_paths()
    filled = location.replace("{site-packages}", paths["purelib"]).replace("{stdlib}", paths["stdlib"])
    path = Path(filled).expanduser()
    return str(path if path.is_absolute() else root.resolve() / path)


def base(location: str, root: Path) -> Path:
    """The directory that locators are relative to: the directory named, or the one before the first wildcard."""
    full = Path(expand(location, root))
    if full.is_dir():
        return full
    for number, part in enumerate(full.parts):
        if glob.has_magic(part):
            return Path(*full.parts[:number])
    return full.parent


def directory(location: str, root: Path) -> Path:
    """The directory that a source is; raises MidtrainError where there is none."""
    path = Path(expand(location, root))
    if not path.is_dir():
        raise MidtrainError(f"{path}: there is no such directory; correct the source's location")
    return path


def files(location: str, root: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files that a location names, sorted: a file is itself, a directory all files below it with one of `suffixes`.

    Raises MidtrainError for a path that does not exist and a glob that matches nothing. An empty directory is an empty source.
    """
    full = expand(location, root)
    path = Path(full)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.name.lower().endswith(tuple(suffixes)) and p.is_file())
    if not glob.has_magic(full):
        raise MidtrainError(f"{full}: there is no such file or directory; correct the source's location")
    found = sorted(Path(p) for p in glob.glob(full, recursive=True) if Path(p).is_file())
    if not found:
        raise MidtrainError(f"{full}: no file matches; correct the source's location")
    return found


def relative(path: Path, to: Path) -> str:
    """A file's stable name inside its source, with forward slashes; a byte that is not UTF-8 as `\\xff`."""
    name = path.relative_to(to).as_posix() if path.is_relative_to(to) else path.name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
