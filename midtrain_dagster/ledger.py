"""What everything cost: one line for each time that an asset ran, kept for good, and the budgets that runs must keep.

`<lake>/costs/<run>.jsonl`: one file a run, so that concurrent runs never share one; a line is written in one piece.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.metering import Usage
from midtrain_dagster.project.operations import Budget, MachinePrices

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "at": pl.String,  # when it ended, ISO 8601
    "run": pl.String,
    "root_run": pl.String,  # the first of a run and its retries
    "recipe": pl.String,  # null where all recipes share the asset
    "stage": pl.String,
    "asset": pl.String,
    "outcome": pl.String,  # made, up to date, failed, stopped
    "worked_on": pl.Int64,  # documents, or 1 for an artifact that was made
    "wall_seconds": pl.Float64,
    "cpu_seconds": pl.Float64,
    "gpu_seconds": pl.Float64,
    "peak_memory_bytes": pl.Int64,
    "bytes_read": pl.Int64,
    "bytes_written": pl.Int64,
    "teacher_requests": pl.Int64,
    "teacher_prompt_tokens": pl.Int64,
    "teacher_completion_tokens": pl.Int64,
    "teacher_money": pl.Float64,
    "money": pl.Float64,  # machine and teacher
}
SCHEMA = pl.Schema(COLUMNS)
SUMS = tuple(name for name, kind in COLUMNS.items() if kind in (pl.Int64, pl.Float64) and name != "peak_memory_bytes")


class BudgetReached(MidtrainError):
    """A run has used what it may."""


class Ledger:
    """The account of a lake. `prices`: of the machine; `budget`: of each run."""

    def __init__(self, folder: Path, prices: MachinePrices | None = None, budget: Budget | None = None):
        self.folder = folder
        self.prices, self.budget = prices or MachinePrices(), budget or Budget()

    def machine(self, used: Usage) -> float:
        """Price of what was used of the machine."""
        return (used.cpu_seconds * self.prices.cpu_hour + used.gpu_seconds * self.prices.gpu_hour) / 3600

    def add(self, line: dict[str, Any]) -> dict[str, Any]:
        """Keep one line; returns it as it was written."""
        told = {**dict.fromkeys(SCHEMA), "at": datetime.now(UTC).isoformat(timespec="seconds"), **line}
        unknown = set(told) - set(SCHEMA)
        if unknown:
            raise ValueError(f"no such columns in the ledger: {', '.join(sorted(unknown))}")
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / f"{told['run']}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, (json.dumps(told) + "\n").encode())
        finally:
            os.close(file)
        return told

    def lines(self) -> pl.DataFrame:
        """All lines, oldest first. A line that a full disk cut off is left out."""
        rows = []
        for file in sorted(self.folder.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
        return pl.DataFrame(rows, schema=SCHEMA).sort("at", maintain_order=True)

    def used(self, root_run: str) -> dict[str, float]:
        """Money and accelerator hours of a run and its retries so far."""
        rows = self.lines().filter(pl.col("root_run") == root_run) if self.folder.is_dir() else pl.DataFrame(schema=SCHEMA)
        return {"money": float(rows["money"].sum()), "gpu_hours": float(rows["gpu_seconds"].sum()) / 3600}


def most(first: Budget, second: Budget) -> Budget:
    """The narrower of two budgets, limit by limit."""
    pairs = {name: [b for b in (getattr(first, name), getattr(second, name)) if b is not None] for name in Budget.model_fields}
    return Budget(**{name: min(limits) if limits else None for name, limits in pairs.items()})


def keep(budget: Budget, used: dict[str, float]) -> None:
    """Raise BudgetReached where something is used up. `used`: hours, money, gpu_hours."""
    for name in Budget.model_fields:
        limit, amount = getattr(budget, name), used.get(name, 0.0)
        if limit is not None and amount >= limit:
            raise BudgetReached(
                f"budget reached: {amount:.4g} of {limit:.4g} {name.replace('_', ' ')} used; what is finished is kept, "
                "a training went as far as its last checkpoint; raise the budget and run again to go on"
            )
