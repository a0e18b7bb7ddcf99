"""When a training process must end, and that it is alone: signals, the death of whoever started it, a lock on its directory.

Only the standard library, and no torch: this stands before anything heavy is loaded.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.locks import PATIENCE, alone

PR_SET_PDEATHSIG = 1
LOCK = ".lock"


class Interrupted(MidtrainError):
    """A signal, or the death of the parent, ended the run after its checkpoint was saved."""


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came since. A second SIGINT ends the process as usual.

    A second SIGTERM does not: a scheduler's and the one for the parent's death often come together, and a checkpoint is being
    written then.
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        if number == signal.SIGINT:
            signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            previous[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: whoever runs us there handles signals
            break
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_with_parent() -> Callable[[], bool]:
    """Tie this process to its parent, and return whether it has lost it. To be called once, when the process starts.

    On Linux the kernel sends SIGTERM the moment the parent is gone. Elsewhere, and behind torchrun, which Dagster's death does
    not end, the answer comes from looking: at the parent, and behind torchrun at the parent's parent.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    generations = 2 if {"TORCHELASTIC_RUN_ID", "DAGSTER_PIPES_CONTEXT"} <= set(os.environ) else 1
    known = ancestors(generations)
    return lambda: ancestors(generations) != known


def ancestors(generations: int) -> list[int]:
    """Process ids of the parent, its parent, …: fewer where the system does not tell."""
    found = [os.getppid()]
    while len(found) < generations:
        try:
            after_name = Path(f"/proc/{found[-1]}/stat").read_text().rpartition(")")[2]
        except OSError:
            break
        found.append(int(after_name.split()[1]))
    return found


def sole_writer(out: Path, say: Callable[[str], None], patience: float = PATIENCE) -> AbstractContextManager[None]:
    """Hold `out` for this process. The kernel frees it when the process ends, however it ends.

    An orphan that is saving its checkpoint gets `patience` seconds to finish; then MidtrainError says which process is there.
    """
    return alone(out / LOCK, f"training in {out}", patience, "end it, or give this run another directory", say)
