"""Python functions in texts that are not always programs: a page with code in it, a question whose answer is the code's rest."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

LONGEST = 20_000  # characters of a text that are searched for functions
MOST = 12  # functions of one text
CALLS = 8  # of a question's worked examples
INDENTS = ("    ", "  ", "\t", "")  # of an answer's first line, which has lost its own
START = re.compile(r"^([ \t]*)(?:def \w+\s*\(|(?:from [\w.]+ )?import \w)", re.MULTILINE)


class Program(NamedTuple):
    """Imports, constants and functions that parse, in the text's order."""

    code: str
    names: tuple[str, ...]  # of its functions


class Task(NamedTuple):
    """A question that asks for a function, with its own solution."""

    code: str
    entry: str
    calls: tuple[str, ...]  # arguments of the question's worked examples, each a tuple's source: `([1, 2], 'x')`


def program(text: str) -> Program | None:
    """The functions of a text; None when there is none that parses."""
    kept = _statements(text[:LONGEST])
    names = [node.name for node in kept if isinstance(node, ast.FunctionDef)][:MOST]
    return Program(ast.unparse(ast.Module(kept, [])), tuple(names)) if names else None


def task(question: str, answer: str) -> Task | None:
    """A question and its solution as a program: the question's last function completed by the answer, or the answer alone."""
    if "def " not in question + answer:
        return None
    for text in (*(f"{question.rstrip()}\n{indent}{answer}" for indent in INDENTS), answer):
        whole = program(text) if answer else None
        if whole is not None and any(_solved(node) for node in ast.parse(whole.code).body):
            named = [name for name in whole.names if re.search(rf"def {re.escape(name)}\b", question)]
            called = [name for name in whole.names if re.search(rf"\b{re.escape(name)}\(", question)]
            entry = (named or called or list(whole.names))[-1]
            return Task(whole.code, entry, tuple(dict.fromkeys(_calls(question, entry)))[:CALLS])
    return None


def _solved(node: ast.stmt) -> bool:
    """Whether a function does more than say what it is for."""
    return isinstance(node, ast.FunctionDef) and any(not isinstance(part, ast.Expr | ast.Pass) for part in node.body)


def _statements(text: str) -> list[ast.stmt]:
    whole = _parsed(text)
    if whole is None:
        whole, end = [], 0
        for found in START.finditer(text):
            if found.start() >= end:
                block = _block(text[found.start() :], len(found.group(1)))
                parsed = _parsed(_dedented(block, found.group(1)))
                end = found.start() + len(block) if parsed is not None else found.end()
                whole += parsed or []
    return [node for node in whole if isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom) or _constant(node)]


def _constant(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign):
        return False
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _parsed(text: str) -> list[ast.stmt] | None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of a stray backslash in somebody's string
        try:
            return ast.parse(text).body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None


def _block(text: str, indent: int) -> str:
    """The statement that begins a text: up to the first line that is indented no more, brackets and docstrings aside."""
    lines = text.splitlines(keepends=True)
    depth, quoted, count = 0, "", 0
    for line in lines:
        bare = line.strip()
        if count and bare and depth <= 0 and not quoted and len(line) - len(line.lstrip()) <= indent:
            break
        for mark in ('"""', "'''"):
            if line.count(mark) % 2 and quoted in ("", mark):
                quoted = "" if quoted else mark
        depth = 0 if quoted else depth + sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))
        count += 1
    return "".join(lines[:count])


def _dedented(block: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in block.splitlines(keepends=True))


def _calls(text: str, entry: str) -> Iterator[str]:
    """The arguments of every call of a function whose arguments are constants."""
    for found in re.finditer(rf"(?<!def )\b{re.escape(entry)}\(", text):
        depth, end = 1, found.end()
        while end < min(len(text), found.end() + 2000) and depth:
            depth += (text[end] in "([{") - (text[end] in ")]}")
            end += 1
        inside = " ".join(text[found.end() : end - 1].split())
        try:
            yield repr(ast.literal_eval(f"({inside},)"))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
