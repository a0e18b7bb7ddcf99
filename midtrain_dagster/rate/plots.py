"""Figures of raters."""

from collections.abc import Sequence
from typing import Any

import polars as pl


def held_out(curve: pl.DataFrame, calibration: pl.DataFrame) -> Any:
    """A matplotlib figure of a classifier on held-out examples (see `held_out.HeldOut`): precision over recall, accuracy over confidence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.step(curve["recall"], curve["precision"], where="post")
    left.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    right.plot([0, 1], [0, 1], color="0.8")
    right.plot(calibration["confidence"], calibration["accuracy"], marker="o")
    right.set(xlabel="confidence", ylabel="accuracy")
    return figure


def scores(ratings: pl.DataFrame, raters: Sequence[str], across: int = 4) -> Any:
    """A matplotlib figure of how the scores spread, a panel a rater, `across` panels in a row."""
    from matplotlib.figure import Figure

    rows = -(-len(raters) // across)
    figure = Figure(figsize=(2.6 * min(across, len(raters)), 2.0 * rows), layout="constrained")
    panels = figure.subplots(rows, min(across, len(raters)), squeeze=False)
    for panel, rater in zip(panels.flat, raters, strict=False):
        panel.hist(ratings[rater].drop_nulls().to_list(), bins=30)
        panel.set_title(rater, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.ticklabel_format(axis="x", useOffset=False)
        panel.locator_params(axis="x", nbins=4)
    for panel in list(panels.flat)[len(raters) :]:
        panel.axis("off")
    for row in panels:
        row[0].set_ylabel("documents", fontsize=8)
    return figure


def agreement(correlation: pl.DataFrame, raters: Sequence[str]) -> Any:
    """A matplotlib figure of the rank correlation of each two raters (see `coordinate.Disagreement`), blue together, red against."""
    from matplotlib.figure import Figure

    place = {name: n for n, name in enumerate(raters)}
    values = [[1.0 if row == column else float("nan") for column in raters] for row in raters]
    for one, other, value in correlation.select("one", "other", "spearman").iter_rows():
        values[place[one]][place[other]] = values[place[other]][place[one]] = value
    size = 1.6 + 0.55 * len(raters)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(len(raters)), raters, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(raters)), raters, fontsize=8)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if row != column:
                dark = abs(value) > 0.6
                said = "" if value != value else f"{value:.2f}"
                axes.text(column, row, said, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    return figure
