"""Whether a run began where the base model left off, or the handover threw its loss up."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Handover:
    """The component whose loss rose most over the first steps, in nats per token."""

    component: str
    base: float
    """The base model's loss: on held-out text of the component, else on the component's first step, before any update."""
    first: float
    """The mean over the first steps."""
    jump: float
    error: float
    """Standard error of the jump: steps of one component differ in difficulty, the more the smaller the batch."""
    passed: bool


def handover_jump(
    summary: dict[str, Any], steps: Sequence[dict[str, Any]], tolerance: float = 0.2, window: int = 10
) -> Handover | None:
    """Compare the first `window` steps that hold a component with the base model, component by component.

    Moments that start at zero, or a rate far above the one at which the base ended, show as a rise that later steps win back:
    the end of the curve looks healthy. A jump counts where it exceeds `tolerance`, in nats, by more than twice its standard
    error, taken from the spread in the second half, where the run has settled. The loss of all components together is compared
    like one of them. Where the base's loss is that of one step alone, twice `window` steps must follow.

    `summary` is training.json, `steps` the records of steps.jsonl. None where there are too few steps to tell.
    """
    held_out: dict[str, float] = {}
    for sides in summary["validation"].values():
        for name, loss in sides["before"]["components"].items():
            held_out.setdefault(name, loss)
    found = []
    curves = {"all": [r["loss"] for r in steps if "loss" in r]}
    for name in sorted({name for record in steps for name in record["components"]}):
        curves[name] = [r["components"][name] for r in steps if r["components"].get(name) is not None]
    for name, losses in curves.items():
        if len(losses) < 2 or (name not in held_out and len(losses) <= 2 * window):
            continue
        base, early = held_out.get(name, losses[0]), losses[1 : window + 1]
        settled = losses[len(losses) // 2 :]
        spread = stdev(settled) if len(settled) > 1 else 0.0
        error = spread * (1 / len(early) + (name not in held_out)) ** 0.5  # without held-out text, base is one step's loss too
        jump = fmean(early) - base
        found.append(Handover(name, base, fmean(early), jump, error, jump - 2 * error <= tolerance))
    return max(found, key=lambda handover: (not handover.passed, handover.jump), default=None)
