"""Progress with rate and time left, written at most once a second: to the terminal, or to a run's log."""

import time
from collections.abc import Callable


class Progress:
    """Counts work done and tells `emit` how it goes.

    `emit` takes one finished line. A stage calls `advance` as often as it likes; lines come out at most once
    every `interval` seconds (an event in Dagster's log costs 25 ms on SQLite), and once at the end. `check` is asked as
    often: it raises where the work must end, as when a budget is used up.
    """

    def __init__(
        self,
        emit: Callable[[str], None],
        label: str,
        unit: str,
        total: float | None = None,
        interval: float = 1.0,
        check: Callable[[], None] | None = None,
    ):
        self.emit, self.label, self.unit, self.total, self.interval = emit, label, unit, total, interval
        self.check = check
        self.done = 0.0
        self.started = time.monotonic()
        self._emitted = self.started

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        if time.monotonic() - self._emitted >= self.interval:
            self._emitted = time.monotonic()
            self.emit(self.line())
            if self.check is not None:
                self.check()

    def line(self) -> str:
        """`clean: 1,200/5,000 documents, 340/s, 11 s left`."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / elapsed
        of = f"/{self.total:,.0f}" if self.total is not None else ""
        left = f", {(self.total - self.done) / rate:,.0f} s left" if self.total is not None and rate else ""
        return f"{self.label}: {self.done:,.0f}{of} {self.unit}, {rate:,.{0 if rate >= 10 else 1}f}/s{left}"

    def close(self) -> None:
        """Say how it ended."""
        elapsed = time.monotonic() - self.started
        self.emit(f"{self.label}: {self.done:,.0f} {self.unit} in {elapsed:,.1f} s")


def silent(label: str = "", unit: str = "") -> Progress:
    """Progress that nobody reads."""
    return Progress(lambda line: None, label, unit)
