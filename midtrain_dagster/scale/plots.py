"""Figures of laws."""

from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.scale.fit import Law
from midtrain_dagster.scale.measurements import Points


def law_fit(law: Law, points: Points, losses: np.ndarray, label: str = "loss", held_out: np.ndarray | None = None) -> Any:
    """A matplotlib figure: measured losses and the law with its interval over the share, at the most tokens.

    `held_out` (boolean, one a point) marks the runs that the law has not seen.
    """
    from matplotlib.figure import Figure

    tokens = np.nan_to_num(points.tokens, nan=-1.0)
    size = np.nan_to_num(points.size, nan=-1.0)
    last = int(np.lexsort((-size, tokens))[-1])  # most tokens, and of those the smallest size
    rows = np.flatnonzero((tokens == tokens[last]) & (size == size[last]))
    unseen = np.zeros(len(points), bool) if held_out is None else held_out
    shares = np.linspace(*law.shares, 100)
    at = points[np.full(len(shares), rows[0])]
    at = Points(shares, at.tokens, at.size, at.start, at.lr_area, at.annealing_area)
    low, high = law.interval(at)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(shares, low, high, alpha=0.25, label=f"{law.settings.interval:.0%} interval")
    axes.plot(shares, law.predict(at), label=law.form.name)
    seen = rows[~unseen[rows]]
    axes.plot(points.share[seen], losses[seen], "o", label="measured")
    if unseen[rows].any():
        kept = rows[unseen[rows]]
        axes.plot(points.share[kept], losses[kept], "D", mfc="none", label="held out")
    axes.set(xlabel="share of its own domain", ylabel=f"{label}, nats", title=f"at {points.tokens[rows[0]]:g} tokens or steps")
    axes.legend()
    return figure


def proxy_losses(runs: pl.DataFrame) -> Any:
    """A matplotlib figure: what each proxy run measured, target loss over general loss, a marker a role."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for role, marker in (("fit", "o"), ("repeat", "*"), ("held_out", "D"), ("ladder", ".")):
        own = runs.filter(pl.col("role") == role)
        if len(own):
            axes.plot(own["general_loss"], own["target_loss"], marker, label=role.replace("_", " "))
    axes.set(xlabel="general loss, nats per token", ylabel="target loss, nats per token")
    axes.legend()
    return figure


def iso_loss(law: Law, points: Points, label: str = "loss", resolution: int = 40) -> Any:
    """A matplotlib figure: contours of equal loss over share and tokens."""
    from matplotlib.figure import Figure

    shares = np.linspace(*law.shares, resolution)
    tokens = np.geomspace(points.tokens[points.tokens > 0].min(), points.tokens.max(), resolution)
    r, d = np.meshgrid(shares, tokens)
    at = points[np.zeros(r.size, int)]
    at = Points(r.ravel(), np.clip(d.ravel(), tokens[0], points.tokens.max()), at.size, at.start, at.lr_area, at.annealing_area)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    contours = axes.contour(r, d, law.predict(at).reshape(r.shape), levels=12)
    axes.clabel(contours, fontsize=8)
    axes.set(xlabel="share of its own domain", ylabel="tokens or steps", yscale="log", title=f"{label}, nats")
    return figure
