"""Pictures of a comparison, as PNG bytes for a report or an asset's metadata."""

from io import BytesIO
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.compare import GOLD_BITS

COLOURS = {"base": "#7a869a", "mid": "#1f77b4"}


def score_plot(comparison: pl.DataFrame) -> bytes:
    """Scores before and after with two standard errors, and bits per byte of gold answers; a panel each, where there are any."""
    scores = comparison.filter(pl.col("metric") != GOLD_BITS)
    bits = comparison.filter(pl.col("metric") == GOLD_BITS)
    panels = [("score (higher is better)", scores), ("bits per byte of gold answers (lower is better)", bits)]
    return _panels([(title, frame) for title, frame in panels if frame.height], "benchmark")


def bits_plot(base: pl.DataFrame, mid: pl.DataFrame) -> bytes:
    """Bits per byte of held-out documents by domain (bits_per_byte.DOMAIN_SCHEMA), before and after, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1 + 0.6 * max(base.height, 1)), layout="constrained")
    axes = figure.subplots()
    domains = base["domain"].to_list()
    for shift, (name, frame) in zip((0.15, -0.15), (("base", base), ("mid", mid)), strict=True):
        some = frame.drop_nulls("bits_per_byte")
        places = [domains.index(domain) + shift for domain in some["domain"]]
        values, low, high = (some[column].to_numpy() for column in ("bits_per_byte", "low", "high"))
        axes.errorbar(values, places, xerr=[values - low, high - values], fmt="o", color=COLOURS[name], label=name, capsize=3)
    axes.set_yticks(range(len(domains)), [str(domain) for domain in domains])
    axes.set_xlabel("bits per byte (lower is better)")
    axes.legend()
    return _png(figure)


def _panels(panels: list[tuple[str, pl.DataFrame]], label: str) -> bytes:
    from matplotlib.figure import Figure

    rows = max((frame.height for _, frame in panels), default=1)
    width = max(len(panels), 1)
    figure = Figure(figsize=(2 + 5 * width, 1.2 + 0.5 * max(rows, 1)), layout="constrained")
    for axes, (title, frame) in zip(figure.subplots(1, width, squeeze=False)[0], panels, strict=False):
        names = frame[label].to_list()
        for shift, side in ((0.15, "base"), (-0.15, "mid")):
            errors = (2 * frame[f"{side}_stderr"].fill_null(0.0)).to_numpy()
            places = [at + shift for at in range(len(names))]
            axes.errorbar(frame[side].to_numpy(), places, xerr=errors, fmt="o", color=COLOURS[side], label=side, capsize=3)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(title)
        axes.legend()
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
