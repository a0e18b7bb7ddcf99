"""One process at a time: a lock on a file, which the kernel frees when its holder ends, however it ends.

Only the standard library: training imports this before anything heavy is loaded.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError

PATIENCE = 120.0


@contextmanager
def alone(
    file: Path,
    what: str,
    patience: float = PATIENCE,
    advice: str = "wait for it or end it, then run again",
    waiting: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold `file` for this process. MidtrainError names the holder, with `advice`, where another one keeps it for more than
    `patience` seconds; `waiting` is told once that there is one.

    Two objects of one process exclude each other as well.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        deadline = time.monotonic() + patience
        while not _taken(handle):
            handle.seek(0)
            holder = handle.read().strip() or "of unknown number"
            if time.monotonic() >= deadline:
                raise MidtrainError(f"{what}: process {holder} is at it already; {advice}")
            if waiting:
                waiting(f"{what}: waiting for process {holder}, which is at it")
                waiting = None
            time.sleep(0.05)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def held(file: Path) -> bool:
    """Whether a process holds `file` now."""
    if not file.exists():
        return False
    with file.open() as handle:
        return not _taken(handle)


def _taken(handle: Any) -> bool:
    """Take the lock of an open file where it is free; closing the file lets go of it."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
