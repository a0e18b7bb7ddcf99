"""A longer context in stages: 8K, then 16K, …, each a training of its own on sequences of its own length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train.plan import Phase, TrainingPlan


@dataclass(frozen=True)
class Stage:
    """One length: its packed training sequences, and held-out sets (long text, and short general text as the guard)."""

    length: int
    sequences: Path
    validation: dict[str, Path]


@dataclass(frozen=True)
class StagePlan:
    """One stage: `rope.extend_context(weights, method, factor, Path(plan.model), configuration=base)`, then train `plan`."""

    length: int
    weights: Path
    """Model whose weights (and moments) the stage starts from: the base, then the stage before."""
    factor: float
    """New length over the length that the base was trained at: rotary scaling is stated once, not upon scaling."""
    plan: TrainingPlan


def stage_plans(plan: TrainingPlan, trained_length: int, stages: Sequence[Stage]) -> list[StagePlan]:
    """What to run, in order; nothing is read or written. `plan` is the whole run: its model is the base, its out the parent.

    Tokens a step stay the same, so a stage of twice the length reads half as many sequences a step. The first stage warms up, the
    last one decays, between them the rate stays at its peak, and every stage hands its optimizer's moments to the next. Llama 3
    went to 128K in six such stages, to the next one when short tasks had recovered (2407.21783, §3.4.2).
    """
    lengths = [stage.length for stage in stages]
    if not stages or lengths[0] < trained_length or any(a >= b for a, b in pairwise(lengths)):
        raise MidtrainError(f"context stages: lengths must grow from {trained_length} on, not {lengths}")
    if plan.batch_stages:
        raise MidtrainError("context stages: the batch follows from the length; leave `batch_stages` out")
    planned: list[StagePlan] = []
    weights = Path(plan.model)
    for number, stage in enumerate(stages):
        first, last = number == 0, number == len(stages) - 1
        out = Path(plan.out) / f"stage-{stage.length}"
        sequences = max(plan.batch_sequences * trained_length // stage.length, 1)
        own = replace(
            plan,
            model=str(out / "base"),
            out=str(out),
            sequences=str(stage.sequences),
            validation={name: str(path) for name, path in stage.validation.items()},
            batch_sequences=sequences,
            micro_batch=min(max(plan.micro_batch * trained_length // stage.length, 1), sequences),
            schedule=phases_of(plan.schedule, first, last),
            start_learning_rate=plan.start_learning_rate if first else None,
            optimizer_state=plan.optimizer_state if first else None,
            keep_optimizer=plan.keep_optimizer or (not last and plan.adapter.kind == "none"),
        )
        planned.append(StagePlan(stage.length, weights, stage.length / trained_length, own))
        weights = out / "model"
    return planned


def phases_of(phases: Sequence[Phase], first: bool, last: bool) -> tuple[Phase, ...]:
    """The part of a schedule that one of several stages has: warm-up in the first, decay in the last, constant between."""
    kept = [phase for phase in phases if (phase.shape != "warmup" or first) and (phase.shape in ("warmup", "constant") or last)]
    if not last and not any(phase.shape == "constant" for phase in kept):
        kept.append(Phase("constant"))
    if not kept:
        raise MidtrainError("context stages: the schedule is a warm-up alone; add a decay or a constant phase")
    if kept != list(phases) and all(phase.share is not None or phase.steps is not None for phase in kept):
        kept[-1] = replace(kept[-1], share=None, steps=None)  # what the left-out phases had
    return tuple(kept)
