"""Pictures of a run: its schedule before it starts, its loss and rate afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.schedule import stage_ends, timetable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_and_rate(steps: Sequence[dict[str, Any]], validations: Sequence[dict[str, Any]] = ()) -> "Figure":
    """Training loss (all, and by component), validation losses, and the learning rate below. `steps`: records of steps.jsonl."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    numbers = [r["step"] for r in steps]
    for name in steps[0]["components"] if steps and len(steps[0]["components"]) > 1 else ():
        points = [(r["step"], r["components"][name]) for r in steps if r["components"][name] is not None]
        above.plot(*zip(*points, strict=True), linewidth=0.8, alpha=0.6, label=name) if points else None
    above.plot(numbers, [r["loss"] for r in steps], color="black", linewidth=1.2, label="all")
    for name in validations[0]["sets"] if validations else ():
        points = [(v["step"], v["sets"][name]["loss"]) for v in validations]
        above.plot(*zip(*points, strict=True), marker="o", linestyle="--", linewidth=0.8, label=f"{name} (held out)")
    above.set_ylabel("loss, nats per token")
    above.legend(fontsize="small")
    below.plot(numbers, [r["learning_rate"] for r in steps], color="black", linewidth=1)
    below.set_xlabel("step")
    below.set_ylabel("learning rate")
    return figure


def loss_by_position(validation: Mapping[str, Any]) -> "Figure":
    """Held-out loss by position in the document, before and after: where context is used, the curve still falls at its end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for number, (name, sides) in enumerate(sorted(validation.items())):
        for side, line in (("before", "--"), ("after", "-")):
            points = sides[side]["positions"]
            axes.plot(
                list(map(int, points)), list(points.values()), line, color=f"C{number}", linewidth=1, label=f"{name} {side}"
            )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("position in the document, tokens")
    axes.set_ylabel("loss, nats per token")
    axes.legend(fontsize="small")
    return figure


def schedule(plan: TrainingPlan) -> "Figure":
    """A run that has not started, step by step: learning rate, tokens, and what the tokens are."""
    from matplotlib.figure import Figure

    data = Sequences.open(Path(plan.sequences))
    times = timetable(plan, data.count)
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    rate, batch, shares = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 2])
    rate.plot(times.rates, color="black", linewidth=1)
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    batch.step(range(times.steps), np.diff(times.offsets) * data.length, where="post", color="black", linewidth=1)
    batch.set_ylabel("tokens a step")
    batch.set_ylim(bottom=0)
    places, parts = shares_along(data)
    steps = np.searchsorted(times.offsets, places, side="right") - 1
    seen = places < times.offsets[-1]
    shares.stackplot(steps[seen], parts[seen].T, labels=data.components, step="post", linewidth=0)
    shares.set_ylabel("share of tokens")
    shares.set_ylim(0, 1)
    shares.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    for step in stage_ends(replace(plan, epochs=1.0), data.count, times.offsets).values():
        for axes in (rate, shares):
            axes.axvline(step, color="gray", linewidth=0.6, linestyle=":")
    shares.set_xlabel("step")
    return figure


def shares_along(data: Sequences, bins: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Composition of the packed data in their order: first sequence of each stretch (n,), shares of the components (n, components)."""
    bins = min(bins, data.count)
    spans = data.spans
    stretch = spans[:, 0] * bins // data.count
    cells = np.bincount(
        stretch * len(data.components) + spans[:, 3], weights=spans[:, 2], minlength=bins * len(data.components)
    ).reshape(bins, -1)
    return -(-np.arange(bins) * data.count // bins), cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
