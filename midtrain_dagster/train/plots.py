"""Pictures of a run: its schedule before it starts, its loss and rate afterwards."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.schedule import learning_rates

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


def schedule(plan: TrainingPlan) -> "Figure":
    """The learning rate of every step of a run that has not started."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(learning_rates(plan), color="black", linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    return figure
