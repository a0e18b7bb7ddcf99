"""One process at a time: a lock on a file, which the kernel frees when its holder ends, however it ends."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midtrain_dagster.errors import MidtrainError

PATIENCE = 120.0


@contextmanager
def alone(file: Path, what: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold `file` for this process. MidtrainError names the holder where another one keeps it for more than `patience` seconds.

    Two objects of one process exclude each other as well.
    """
    import fcntl

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as held:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                held.seek(0)
                holder = held.read().strip() or "of unknown number"
            if time.monotonic() >= deadline:
                raise MidtrainError(f"{what}: process {holder} is at it already; wait for it or end it, then run again")
            time.sleep(0.05)
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield
