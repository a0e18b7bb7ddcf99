"""Worked examples from Python docstrings, found by parsing source files; nothing is imported or run."""

import ast
import doctest
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from midtrain_dagster.collect.licenses import of_packages
from midtrain_dagster.collect.records import Items, Record, Rejected, because
from midtrain_dagster.errors import MidtrainError

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Docstring(NamedTuple):
    """A docstring and the thing it describes."""

    name: str  # dotted, from the package down
    kind: str  # module, class or function
    signature: str  # `solve(a, b, lower=False)`; empty for a module
    text: str
    path: Path
    line: int


def read(site: Path, packages: tuple[str, ...], limit: int) -> Items:
    """One document for each docstring with examples that print something: what it is about, then the examples as they stand."""
    rights = of_packages(site)
    parser = doctest.DocTestParser()
    for package in packages:
        for found in in_package(site, package, limit):
            if isinstance(found, Rejected):
                yield found
                continue
            if ">>>" not in found.text:
                continue
            where = f"{found.path.relative_to(site).as_posix()}:{found.line}"
            try:
                examples = parser.get_examples(found.text)
            except ValueError as error:
                yield Rejected(where, "broken examples", because(error))
                continue
            if any(example.want for example in examples):
                title = f"{found.name}{found.signature.partition('(')[1]}{found.signature.partition('(')[2]}"
                about = {"object": found.name, "examples": len(examples), "path": where.rpartition(":")[0]}
                locator = f"{where.rpartition(':')[0]}#{found.name}"
                yield Record(
                    locator, f"{title}\n\n{found.text}", where, license=rights.get(package), language="en", metadata=about
                )


def in_package(site: Path, package: str, limit: int) -> Iterator[Docstring | Rejected]:
    """The docstrings of a package's modules, in order of path and line."""
    for path in modules(site, package):
        module = ".".join(part for part in path.relative_to(site).with_suffix("").parts if part != "__init__")
        yield from _in_file(path, path.relative_to(site).as_posix(), module, limit)


def modules(site: Path, package: str) -> list[Path]:
    """The source files of a package, tests left out. Raises MidtrainError for a package that is not in the directory."""
    top = site / package
    paths = sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]
    if not paths or not paths[0].exists():
        raise MidtrainError(f"{top}: no such package; install it or leave it out of the source's packages")
    return [path for path in paths if not any(_is_test(part) for part in path.relative_to(site).with_suffix("").parts)]


def _is_test(part: str) -> bool:
    return part in ("tests", "test", "conftest") or part.startswith("test_")


def _in_file(path: Path, name: str, module: str, limit: int) -> Iterator[Docstring | Rejected]:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            yield Rejected(name, "record too large", f"more than {limit} bytes")
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in others' code
            tree = ast.parse(data)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield Rejected(name, "not Python", because(error))
        return
    text = ast.get_docstring(tree, clean=True)
    if text:
        yield Docstring(module, "module", "", text, path, 1)
    yield from _in_body(tree.body, module, path)


def _in_body(body: list[ast.stmt], above: str, path: Path) -> Iterator[Docstring]:
    for node in body:
        if not isinstance(node, Definition):
            continue
        name = f"{above}.{node.name}"
        text = ast.get_docstring(node, clean=False)
        if text:
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield Docstring(name, kind, _signature(node), inspect.cleandoc(text), path, node.lineno)
        if isinstance(node, ast.ClassDef):
            yield from _in_body(node.body, name, path)


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        own = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        return f"{node.name}({_arguments(own, skip=1)})" if own else node.name
    return f"{node.name}({_arguments(node)})"


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, skip: int = 0) -> str:
    written = ast.unparse(node.args)
    first = written.split(", ", 1)
    return (first[1] if len(first) > 1 else "") if skip or first[0] in ("self", "cls") else written
