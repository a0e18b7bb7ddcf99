"""Measurements of training runs, as arrays that laws are fitted to."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError


@dataclass(frozen=True)
class Points:
    """Where a loss was, or is to be, measured: arrays of one length n. What a table does not have is NaN."""

    share: np.ndarray  # of the domain whose loss it is, 0 to 1
    tokens: np.ndarray  # or steps, in the unit of the table
    size: np.ndarray  # parameters
    start: np.ndarray  # the same loss before this training, nats
    lr_area: np.ndarray  # S1, sum of learning rates so far
    annealing_area: np.ndarray  # S2

    def __len__(self) -> int:
        return len(self.share)

    def __getitem__(self, rows: np.ndarray) -> "Points":
        return Points(*(getattr(self, f.name)[rows] for f in fields(self)))

    def has(self, name: str) -> bool:
        """Whether the column is there and finite in all rows."""
        return bool(np.isfinite(getattr(self, name)).all())

    def varies(self, name: str) -> bool:
        return self.has(name) and bool(np.ptp(getattr(self, name)) > 0)


def points(frame: pl.DataFrame, columns: Mapping[str, str], start: float | None = None, complement: bool = False) -> Points:
    """Points from a table. `columns` maps names of Points to columns; `complement` takes 1 − share (the other domain's).

    `start` fills the start loss where no column does. Raises MidtrainError for a column that is not there or not a number.
    """
    arrays = {}
    for field in fields(Points):
        name = columns.get(field.name)
        arrays[field.name] = np.full(len(frame), np.nan) if name is None else _numbers(frame, name)
    share = arrays["share"]
    if (share < -1e-9).any() or (share > 1 + 1e-9).any():
        worst = share[(share < 0) | (share > 1)][0]
        raise MidtrainError(
            f"column {columns['share']!r} holds {worst:g}: shares lie between 0 and 1; divide percentages by 100"
        )
    if complement:
        arrays["share"] = 1 - arrays["share"]
    if start is not None and "start" not in columns:
        arrays["start"] = np.full(len(frame), start)
    return Points(**arrays)


def _numbers(frame: pl.DataFrame, name: str) -> np.ndarray:
    if name not in frame.columns:
        raise MidtrainError(f"there is no column {name!r}; the table has {', '.join(frame.columns)}")
    try:
        return frame[name].cast(pl.Float64).to_numpy().copy()
    except pl.exceptions.PolarsError:
        raise MidtrainError(f"column {name!r} holds something that is not a number") from None


def areas(learning_rates: np.ndarray, decay: float = 0.999) -> tuple[np.ndarray, np.ndarray]:
    """Learning-rate area S1 and annealing area S2 after each step (arXiv 2408.11029).

    S1(s) = Σ_{i≤s} η_i. S2(s) = Σ_{i≤s} Σ_{k≤i} (η_{k−1} − η_k) · decay^{i−k}: how far the rate has come down, with a
    memory that fades.
    """
    drop = np.concatenate([[0.0], learning_rates[:-1] - learning_rates[1:]])
    momentum = np.empty(len(drop))
    carried = 0.0
    for i, d in enumerate(drop):
        carried = carried * decay + d
        momentum[i] = carried
    return np.cumsum(learning_rates), np.cumsum(momentum)
