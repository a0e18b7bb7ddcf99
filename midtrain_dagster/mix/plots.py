"""Figures of mixtures."""

from typing import Any

import polars as pl


def mixture_shares(mixture: pl.DataFrame) -> Any:
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
