"""What every command says and where: one JSON object on standard output, everything for people on standard error."""

import json
import sys
from typing import TYPE_CHECKING, Any

from midtrain_dagster.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


def terminal() -> "Console":
    """Rich output for people, on standard error."""
    from rich.console import Console

    return Console(stderr=True)


def say(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr, flush=True)


def progress(label: str, unit: str, total: float | None = None) -> Progress:
    """Progress on standard error: one line rewritten in place on a terminal, a line every five seconds elsewhere."""
    if sys.stderr.isatty():
        return Progress(lambda line: print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True), label, unit, total, 0.2)
    return Progress(say, label, unit, total, interval=5.0)


def result(values: dict[str, Any]) -> None:
    """The command's answer for programs: counts and timings."""
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(json.dumps(values, ensure_ascii=False, default=str))
