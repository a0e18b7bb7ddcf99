"""Pictures of a comparison: SVG for the report, PNG for an asset's metadata."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Literal

import polars as pl

from midtrain_dagster.evaluate.verdicts import GOLD_BITS

BASE, MID = "#8a94a6", "#1f6fb5"
COLOURS = {"base": BASE, "mid-trained": MID}
LINES = ("#1f6fb5", "#c4622d", "#2e8b6f", "#8a5cb8", "#b08a1e", "#5a6b7b")
Format = Literal["svg", "png"]
Estimate = tuple[float, float, float]  # value, low, high
Line = tuple[str, Sequence[float], Sequence[float], Sequence[float]]  # name, x, y, two standard errors of y


def range_plot(rows: Sequence[tuple[str, Estimate, Estimate]], label: str, kind: Format = "svg", width: float = 8.2) -> bytes:
    """A line for each of (name, base, mid-trained): both estimates with their intervals, the later one below the earlier."""
    figure, (axes,) = _figure((width, 0.75 + 0.46 * max(len(rows), 1)))
    sides = ((0.14, [row[1] for row in rows]), (-0.14, [row[2] for row in rows]))
    for (shift, estimates), (name, colour) in zip(sides, COLOURS.items(), strict=True):
        at = [len(rows) - 1 - number + shift for number in range(len(rows))]
        below = [max(value - low, 0.0) for value, low, _ in estimates]
        above = [max(high - value, 0.0) for value, _, high in estimates]
        values = [value for value, _, _ in estimates]
        axes.errorbar(
            values, at, xerr=[below, above], fmt="o", markersize=5, color=colour, label=name, capsize=2.5, elinewidth=1.3
        )
    axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(label)
    axes.grid(axis="x", color="#e4e8ee")
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1)
    return _image(figure, kind)


def score_plot(comparison: pl.DataFrame, kind: Format = "png") -> bytes:
    """Every benchmark's score (percent) and bits per byte of its right answers, with two standard errors; a panel each that has any."""
    scores = comparison.filter(pl.col("metric") != GOLD_BITS)
    bits = comparison.filter(pl.col("metric") == GOLD_BITS)
    panels = [
        ("score in percent (more is better)", scores, 100.0),
        ("bits per byte of right answers (fewer is better)", bits, 1.0),
    ]
    panels = [panel for panel in panels if panel[1].height]
    tallest = max((frame.height for _, frame, _ in panels), default=1)
    figure, many = _figure((5.4 * max(len(panels), 1), 0.9 + 0.34 * tallest), max(len(panels), 1))
    for axes, (label, frame, scale) in zip(many, panels, strict=False):
        names = frame["benchmark"].to_list()
        for shift, column, (name, colour) in zip((0.15, -0.15), ("base", "mid"), COLOURS.items(), strict=True):
            at = [len(names) - 1 - number + shift for number in range(len(names))]
            errors = (2 * scale * frame[f"{column}_stderr"].fill_null(0.0)).to_numpy()
            values = (scale * frame[column]).to_numpy()
            axes.errorbar(values, at, xerr=errors, fmt="o", markersize=4, color=colour, label=name, capsize=2, elinewidth=1)
        axes.set_yticks(range(len(names)), list(reversed(names)))
        axes.set_xlabel(label)
        axes.grid(axis="x", color="#e4e8ee")
    if panels:
        many[0].legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
    return _image(figure, kind)


def line_plot(
    lines: Sequence[Line],
    x_label: str,
    title: str,
    kind: Format = "svg",
    colours: Sequence[str] = LINES,
    width: float = 8.2,
    logarithmic: bool = False,
) -> bytes:
    """(name, x, y, two standard errors of y) for each line."""
    figure, (axes,) = _figure((width, 3.2))
    for number, (name, x, y, error) in enumerate(lines):
        axes.errorbar(
            x,
            y,
            yerr=error,
            fmt="o-",
            markersize=4,
            linewidth=1.6,
            capsize=2,
            elinewidth=0.7,
            color=colours[number % len(colours)],
            label=name,
        )
    if logarithmic:
        ticks = sorted({value for _, x, _, _ in lines for value in x})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{int(tick):,}" for tick in ticks])
        axes.minorticks_off()
    elif all(float(value).is_integer() for _, x, _, _ in lines for value in x):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(x_label)
    axes.set_title(title, loc="left", fontsize=9, color="#5b6675")
    axes.grid(color="#e4e8ee")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _image(figure, kind)


def _figure(size: tuple[float, float], columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    many = figure.subplots(1, columns, squeeze=False)[0]
    for axes in many:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#b8c0cc")
        axes.tick_params(length=0, labelsize=9, labelcolor="#3a4454")
        axes.xaxis.label.set(size=9, color="#5b6675")
        axes.yaxis.label.set(size=9, color="#5b6675")
        axes.set_axisbelow(True)
    return figure, many


def _image(figure: Any, kind: Format) -> bytes:
    """Equal figures give equal bytes."""
    from matplotlib import rc_context

    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "midtrain"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=110, metadata=metadata)
    return buffer.getvalue()
