"""Repository documents for long context: the files of a repository in one text, what is imported before what imports it.

The order is that of DeepSeek-Coder (arXiv:2401.14196, section 2.2): topological by the imports that are written in the
files, and where imports go in a circle, the file with the fewest unread imports first.
"""

import heapq
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from midtrain_dagster.collect import code
from midtrain_dagster.collect.records import Items, Record, Rejected
from midtrain_dagster.project.sources import Code

PYTHON = re.compile(r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+\(?([\w \t,]*)|import[ \t]+([\w. \t,]+))", re.M)
SCRIPT = re.compile(r"""(?:from|import|require\()\s*["'](\.{1,2}/[^"'\n]+)["']""")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.M)
SCRIPTS = (".js", ".mjs", ".jsx", ".ts", ".tsx", ".vue")
C_LIKE = (".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".cu", ".m")


def read(directory: Path, source: Code) -> Items:
    """The repositories of a directory, each as one document or, where it is too large, as several, cut between files."""
    for top in repositories(directory):
        below = top.relative_to(directory).as_posix()
        prefix = "" if below == "." else below + "/"
        files: list[Record] = []
        for item in code.read(top, source):
            if isinstance(item, Rejected):
                yield item._replace(location=prefix + item.location)
            else:
                files.append(item)
        yield from _documents(below, files, source.max_repository_bytes)


def repositories(directory: Path) -> list[Path]:
    """The git checkouts directly in a directory; the directory itself where it is one or holds none."""
    if (directory / ".git").exists():
        return [directory]
    return sorted(path for path in directory.iterdir() if (path / ".git").exists()) or [directory]


def _documents(name: str, files: Sequence[Record], limit: int) -> Iterator[Record | Rejected]:
    by_name = {record.locator: record for record in files}
    part: list[Record] = []
    size = number = 0
    for path in ordered({record.locator: record.text for record in files}):
        record = by_name[path]
        length = len(record.text.encode("utf-8")) + len(path) + 16
        if part and size + length > limit:
            number += 1
            yield _document(name, part, number)
            part, size = [], 0
        part.append(record)
        size += length
    if part:
        yield _document(name, part, number + 1 if number else 0)


def _document(name: str, files: Sequence[Record], number: int) -> Record:
    """Files under headings that name their paths. `number`: which part of the repository, from 1; 0 for the whole."""
    text = "\n\n".join(f"# File: {record.locator}\n{record.text.rstrip()}" for record in files)
    rights = sorted({record.license for record in files if record.license})
    languages = [str(record.metadata["programming_language"]) for record in files]
    about = {
        "repository": name,
        "files": [record.locator for record in files],
        "part": number or None,
        "programming_language": max(sorted(set(languages)), key=languages.count),
    }
    locator = f"{name}#{number}" if number else name
    return Record(locator, text, locator, license=" AND ".join(rights) or None, metadata=about)


def ordered(files: Mapping[str, str]) -> list[str]:
    """The paths of a repository's files, what is imported first, otherwise by name."""
    waiting = {path: imported(path, text, files) for path, text in files.items()}
    users: dict[str, list[str]] = {path: [] for path in files}
    for path, needs in waiting.items():
        for need in needs:
            users[need].append(path)
    queue = [(len(needs), path) for path, needs in waiting.items()]
    heapq.heapify(queue)
    order: list[str] = []
    while queue:
        count, path = heapq.heappop(queue)
        if path not in waiting or count != len(waiting[path]):
            continue  # an entry from before one of its imports was written
        del waiting[path]
        order.append(path)
        for user in users[path]:
            if user in waiting:
                waiting[user].discard(path)
                heapq.heappush(queue, (len(waiting[user]), user))
    return order


def imported(path: str, text: str, files: Mapping[str, str]) -> set[str]:
    """The files of the same repository that a file imports or includes: Python, JavaScript and TypeScript, C and its like."""
    lower = path.lower()
    here = posixpath.dirname(path)
    if lower.endswith((".py", ".pyi", ".pyx")):
        found = (name for module in _modules(text, here) for name in _python_files(module))
    elif lower.endswith(SCRIPTS):
        stems = (posixpath.normpath(posixpath.join(here, target)) for target in SCRIPT.findall(text))
        found = (stem + end for stem in stems for end in ("", *SCRIPTS, "/index.js", "/index.ts"))
    elif lower.endswith(C_LIKE):
        targets = INCLUDE.findall(text)
        found = (posixpath.normpath(posixpath.join(at, target)) for target in targets for at in (here, "", "include", "src"))
    else:
        return set()
    return {name for name in found if name in files and name != path}


def _modules(text: str, here: str) -> Iterator[str]:
    """The modules that Python source imports, as paths without a suffix; of `from a import b` both a and a/b."""
    for start, names, whole in PYTHON.findall(text):
        for module in (part.split()[0] for part in whole.split(",") if part.split()):
            yield module.replace(".", "/")
        if start:
            dots = len(start) - len(start.lstrip("."))
            base = here if dots else ""
            for _ in range(dots - 1):
                base = posixpath.dirname(base)
            module = posixpath.join(base, start.lstrip(".").replace(".", "/")).rstrip("/")
            yield module
            yield from (posixpath.join(module, part.split()[0]) for part in names.split(",") if part.split())


def _python_files(module: str) -> Iterator[str]:
    for top in ("", "src/"):
        yield from (f"{top}{module}{end}" for end in (".py", ".pyi", ".pyx", "/__init__.py"))
