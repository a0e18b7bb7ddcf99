"""Figures of laws."""

from typing import Any

import numpy as np

from midtrain_dagster.scale.fit import Law
from midtrain_dagster.scale.measurements import Points


def law_fit(law: Law, points: Points, losses: np.ndarray, label: str = "loss") -> Any:
    """A matplotlib figure: measured losses and the law with its interval over the share, at the most tokens."""
    from matplotlib.figure import Figure

    last = points.tokens == np.nanmax(points.tokens)
    rows = np.flatnonzero(last)
    shares = np.linspace(*law.shares, 100)
    at = points[np.full(len(shares), rows[0])]
    at = Points(shares, at.tokens, at.size, at.start, at.lr_area, at.annealing_area)
    low, high = law.interval(at)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(shares, low, high, alpha=0.25, label=f"{law.settings.interval:.0%} interval")
    axes.plot(shares, law.predict(at), label=law.form.name)
    axes.plot(points.share[rows], losses[rows], "o", label="measured")
    axes.set(xlabel="share of its own domain", ylabel=f"{label}, nats", title=f"at {points.tokens[rows[0]]:g} tokens or steps")
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
