"""Figures of mixtures."""

from collections.abc import Mapping
from typing import Any

import polars as pl


def shares(mixture: pl.DataFrame) -> Any:
    """A matplotlib figure of a mixture (see `mix.mixture.SCHEMA`): shares of the components, stacked over the stages."""
    from matplotlib.figure import Figure

    table = mixture.group_by("stage", "component").agg(pl.col("share").sum(), pl.col("tokens").sum())
    names = sorted(table["component"].unique())
    budget = table.group_by("stage").agg(pl.col("tokens").sum()).sort("stage")
    widths = budget["tokens"].to_list()
    lefts = [sum(widths[:i]) for i in range(len(widths))]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    bottom = [0.0] * len(widths)
    for name in names:
        own = dict(table.filter(component=name).select("stage", "share").iter_rows())
        heights = [own.get(stage, 0.0) for stage in budget["stage"]]
        axes.bar(lefts, heights, widths, bottom, align="edge", label=name)
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    axes.set(xlabel="tokens", ylabel="share", ylim=(0, 1))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def proposal(plan: Mapping[str, Any]) -> Any:
    """A matplotlib figure of a scaling plan: the recipe's shares beside those proposed, and the verdict."""
    from matplotlib.figure import Figure

    names = sorted(plan["proposed shares"])
    figure = Figure(figsize=(7, 1.5 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = range(len(names))
    axes.barh([i - 0.2 for i in places], [plan["recipe's shares"].get(n, 0.0) for n in names], 0.4, label="recipe")
    axes.barh([i + 0.2 for i in places], [plan["proposed shares"][n] for n in names], 0.4, label="proposed")
    axes.set(yticks=list(places), yticklabels=names, xlabel="share")
    axes.set_title(plan["reason"], fontsize=9)
    axes.invert_yaxis()
    axes.legend()
    return figure
