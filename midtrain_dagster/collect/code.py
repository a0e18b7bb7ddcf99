"""Source code: one document a file, with its language and licence; generated and vendored files left out."""

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from midtrain_dagster.collect import licenses
from midtrain_dagster.collect.charsets import decode
from midtrain_dagster.collect.records import Items, Record, Rejected, because
from midtrain_dagster.project.sources import Code

LANGUAGES = {  # extension -> programming language, as GitHub's Linguist names it
    "py": "Python", "pyi": "Python", "pyx": "Cython", "ipynb": "Jupyter Notebook", "c": "C", "h": "C", "cc": "C++",
    "cpp": "C++", "cxx": "C++",
    "hpp": "C++", "hh": "C++", "cu": "Cuda", "rs": "Rust", "go": "Go", "java": "Java", "kt": "Kotlin", "scala": "Scala",
    "js": "JavaScript",
    "mjs": "JavaScript", "jsx": "JavaScript", "ts": "TypeScript", "tsx": "TypeScript", "rb": "Ruby", "php": "PHP",
    "pl": "Perl", "pm": "Perl",
    "r": "R", "jl": "Julia", "hs": "Haskell", "ml": "OCaml", "mli": "OCaml", "lean": "Lean", "v": "Coq", "ex": "Elixir",
    "exs": "Elixir",
    "erl": "Erlang", "clj": "Clojure", "lisp": "Common Lisp", "el": "Emacs Lisp", "scm": "Scheme", "lua": "Lua",
    "swift": "Swift", "m": "MATLAB",
    "cs": "C#", "fs": "F#", "f": "Fortran", "f90": "Fortran", "f95": "Fortran", "sh": "Shell", "bash": "Shell",
    "ps1": "PowerShell", "sql": "SQL",
    "html": "HTML", "css": "CSS", "scss": "SCSS", "vue": "Vue", "tex": "TeX", "asm": "Assembly", "s": "Assembly",
    "zig": "Zig", "nim": "Nim",
    "dart": "Dart", "proto": "Protocol Buffer", "cmake": "CMake", "toml": "TOML", "yaml": "YAML", "yml": "YAML",
    "md": "Markdown",
    "rst": "reStructuredText",
}  # fmt: skip
NAMED = {"makefile": "Makefile", "dockerfile": "Dockerfile", "cmakelists.txt": "CMake", "rakefile": "Ruby", "gemfile": "Ruby"}
HIDDEN = {"__pycache__", "node_modules"}  # no source of anyone's: not even counted
VENDORED = {
    "vendor",
    "vendors",
    "_vendor",
    "_vendored",
    "vendored",
    "third_party",
    "thirdparty",
    "extern",
    "externals",
    "bower_components",
}
GENERATED = re.compile(
    r"@generated|do not (?:edit|modify)|(?:auto-?|automatically )generated|generated (?:by|from|automatically)", re.I
)


def read(directory: Path, source: Code) -> Items:
    """The files of a directory in order of their paths. A vendored directory is one reject, each generated file another."""
    site = licenses.of_packages(directory) if any(directory.glob("*.dist-info")) else {}
    whole = licenses.of_directory(directory)
    for path, name in walk(directory, source):
        if path.is_dir():
            yield Rejected(name + "/", "vendored", "a copy of someone else's code")
            continue
        rights = site.get(name.split("/")[0]) or _nearest(path.parent, directory) or whole
        yield _file(path, name, source.max_record_bytes, rights)


def walk(directory: Path, source: Code) -> Iterator[tuple[Path, str]]:
    """The files that are documents, and the vendored directories, each with its path in the directory."""
    for current, directories, files in os.walk(directory):
        here = Path(current)
        below = sorted(
            d for d in directories if not d.startswith(".") and d not in HIDDEN and not d.endswith((".dist-info", ".egg-info"))
        )
        below = [
            d for d in below if not (here / d).is_symlink() and not _matches(_name(here / d, directory) + "/", source.exclude)
        ]
        directories[:] = [d for d in below if d.lower() not in VENDORED]
        yield from ((here / d, _name(here / d, directory)) for d in below if d.lower() in VENDORED)
        for file in sorted(files):
            name = _name(here / file, directory)
            if (
                language(name)
                and _matches(name, source.include)
                and not _matches(name, source.exclude)
                and (here / file).is_file()
            ):
                yield here / file, name


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path matches a glob: `*` crosses directories, and `tests/` is any directory of that name with all below it."""
    return any(fnmatch(name, p) or (p.endswith("/") and (name.startswith(p) or f"/{p}" in f"/{name}")) for p in patterns)


def language(name: str) -> str | None:
    """The programming language of a file, from its name."""
    last = name.rsplit("/", 1)[-1].lower()
    return NAMED.get(last) or (LANGUAGES.get(last.rsplit(".", 1)[1]) if "." in last else None)


@lru_cache(maxsize=4096)
def _nearest(directory: Path, top: Path) -> str | None:
    """The licence of the nearest directory above a file that has one."""
    if directory == top or top not in directory.parents:
        return None
    return licenses.of_directory(directory) or _nearest(directory.parent, top)


def _file(path: Path, name: str, limit: int, rights: str | None) -> Record | Rejected:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            return Rejected(name, "record too large", f"more than {limit} bytes")
        text, _ = decode(data)
    except OSError as error:
        return Rejected(name, "unreadable file", because(error))
    except UnicodeError as error:
        return Rejected(name, "invalid UTF-8", because(error))
    if "\0" in text:
        return Rejected(name, "binary file", "contains NUL")
    if GENERATED.search(text[:600]) or name.endswith((".min.js", ".min.css")):
        return Rejected(name, "generated", " ".join(text[:200].split()))
    named = licenses.IDENTIFIER.search(text[:2048])
    about = {"path": name, "programming_language": language(name)}
    return Record(name, text, name, license=named.group(1).strip() if named else rights, metadata=about)
