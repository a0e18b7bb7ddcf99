"""What a piece of work used: seconds of wall clock, CPU and accelerator, memory at its peak, bytes in and out.

The process and all that it started are measured together. What the system does not tell is None, never zero.
"""

import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

INTERVAL = 0.25  # seconds between two looks at memory


class Usage(NamedTuple):
    """Of one piece of work."""

    wall_seconds: float
    cpu_seconds: float  # user and system, of the process and its children
    gpu_seconds: float  # accelerators held, times seconds
    peak_memory_bytes: int | None  # resident, of the process and its children together; pages they share count for each
    bytes_read: int | None  # through system calls, from disk, cache and network
    bytes_written: int | None


class Meter:
    """Measures what happens between `with` and its end. `gpus`: accelerators that are held meanwhile.

    `look` is called with the usage so far about once a second: for budgets. What it raises is kept in `problem`, and
    `check` raises it in the thread that works.
    """

    def __init__(self, gpus: int = 0, look: Callable[[Usage], None] | None = None, interval: float = INTERVAL):
        self.gpus, self.look, self.interval = gpus, look, interval
        self.peak: int | None = None
        self.problem: Exception | None = None
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="meter")

    def __enter__(self) -> "Meter":
        self._began = time.monotonic()
        self._cpu, self._io = cpu_seconds(), transferred()
        self._sample()
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._watcher.join()
        self._sample()
        self.used = self.so_far()

    def so_far(self) -> Usage:
        """What was used since the beginning."""
        wall, now = time.monotonic() - self._began, transferred()
        both = (None, None) if now is None or self._io is None else (now[0] - self._io[0], now[1] - self._io[1])
        return Usage(wall, max(0.0, cpu_seconds() - self._cpu), wall * self.gpus, self.peak, *both)

    def check(self) -> None:
        """Raise what `look` raised, in the thread that calls."""
        if self.problem is not None:
            raise self.problem

    def _watch(self) -> None:
        told = self._began
        while not self._stop.wait(self.interval):
            self._sample()
            if self.look is not None and self.problem is None and time.monotonic() - told >= min(1.0, 4 * self.interval):
                told = time.monotonic()
                try:
                    self.look(self.so_far())
                except Exception as error:
                    self.problem = error

    def _sample(self) -> None:
        found = resident()
        if found is not None:
            self.peak = max(self.peak or 0, found)


def resident() -> int | None:
    """Resident memory of this process and all below it, in bytes."""
    import psutil

    total = None
    for process in family():
        with suppress(psutil.Error):
            total = (total or 0) + process.memory_info().rss
    return total


def family() -> list[Any]:
    """This process and all below it."""
    import psutil

    own = psutil.Process()
    with suppress(psutil.Error):
        return [own, *own.children(recursive=True)]
    return [own]


def cpu_seconds() -> float:
    """CPU time of this process, of children that have ended, and of those that still run."""
    import psutil

    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(used.ru_utime + used.ru_stime for used in ended)
    for process in family()[1:]:
        with suppress(psutil.Error):
            spent = process.cpu_times()
            total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


def transferred() -> tuple[int, int] | None:
    """Bytes read and written so far by this process and children that have ended; None where the system does not tell."""
    try:
        lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(lines["rchar"]), int(lines["wchar"])
    except (OSError, ValueError, KeyError):
        return None
