"""Learning rates and batch sizes as pure functions of the step.

A phase covers the half-open interval [begin, end) of steps; p = (step - begin) / (end - begin) is in [0, 1) inside it, and
reaches 1 only at the step after its last. So two phases never claim one step, and the rate is continuous where one phase begins
at the rate at which the other ended. Warmup-stable-decay (MiniCPM, 2404.06395) is the list warmup, constant, any decay.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train.plan import BatchStage, DataStage, Phase, TrainingPlan


def linear(p: float, start: float, end: float) -> float:
    """end + (start - end)(1 - p); with start < end it is a warm-up, start 0 gives end·s/W."""
    return end + (start - end) * (1 - p)


def cosine(p: float, start: float, end: float) -> float:
    """end + (start - end)(1 + cos πp)/2 (Loshchilov and Hutter, 1608.03983)."""
    return end + (start - end) * (1 + math.cos(math.pi * p)) / 2


def power(p: float, start: float, end: float, exponent: float = 0.5) -> float:
    """end + (start - end)(1 - p^a); a = 1/2 is the 1-sqrt decay of Hägele et al. (2405.18392)."""
    return end + (start - end) * (1 - p**exponent)


def exponential(p: float, start: float, end: float) -> float:
    """start·(end/start)^p, both positive: the curve of `half_life` with a half-life of length·ln2 / ln(start/end)."""
    return start * (end / start) ** p


def half_life(steps: float, start: float, half: float) -> float:
    """start·0.5^(steps / half), `steps` counted from where the decay begins (MiniCPM, 2404.06395)."""
    return start * 0.5 ** (steps / half)


@dataclass(frozen=True)
class Stretch:
    """A phase laid onto steps [begin, end), its rates absolute."""

    phase: Phase
    begin: int
    end: int
    first_rate: float
    last_rate: float

    def rate(self, step: int) -> float:
        """Rate at a step of the interval, or at `end`, where the next phase takes over."""
        p = (step - self.begin) / max(self.end - self.begin, 1)
        match self.phase.shape:
            case "constant":
                return self.first_rate
            case "warmup" | "linear":
                return linear(p, self.first_rate, self.last_rate)
            case "cosine":
                return cosine(p, self.first_rate, self.last_rate)
            case "sqrt":
                return power(p, self.first_rate, self.last_rate)
            case "power":
                return power(p, self.first_rate, self.last_rate, self.phase.exponent)
            case "exponential":
                return exponential(p, self.first_rate, self.last_rate)
            case "half_life":
                return half_life(step - self.begin, self.first_rate, _half_life_of(self.phase))


def _half_life_of(phase: Phase) -> float:
    if not phase.half_life or phase.half_life <= 0:
        raise MidtrainError("schedule: a half_life phase needs `half_life`, a positive number of steps")
    return phase.half_life


def lay_out(
    phases: Sequence[Phase], steps: int, peak: float, start: float | None = None, ends: Mapping[str, int] | None = None
) -> list[Stretch]:
    """Phases on `steps` steps, in order and without a gap. `ends`: the step with which each data stage is over.

    Raises MidtrainError when the lengths cannot cover the steps, or an exponential decay would end at zero.
    """
    if not phases:
        raise MidtrainError("schedule: it has no phases")
    borders = _borders(phases, steps, ends or {})
    rate = start if start is not None else 0.0 if phases[0].shape == "warmup" else peak
    stretches: list[Stretch] = []
    for phase, begin, end in zip(phases, borders, borders[1:], strict=False):
        first = rate if phase.start is None else phase.start * peak
        last = first if phase.shape == "constant" else peak if phase.shape == "warmup" else 0.0
        if phase.end is not None:
            last = phase.end * peak
        if phase.shape == "exponential" and min(first, last) <= 0:
            raise MidtrainError(
                "schedule: an exponential phase needs `end` above 0: it halves again and again, never reaching 0"
            )
        if phase.shape == "half_life":
            last = half_life(end - begin, first, _half_life_of(phase))
        stretches.append(Stretch(phase, begin, end, first, last))
        rate = last  # also after a phase that rounding left without a step
    return stretches


def _borders(phases: Sequence[Phase], steps: int, ends: Mapping[str, int]) -> list[int]:
    """First step of each phase, and `steps`: between two ends of data stages phases share the steps that there are."""
    borders, group = [0], list[Phase]()
    for phase in phases:
        group.append(phase)
        if phase.until is not None:
            if phase.until not in ends:
                raise MidtrainError(f"schedule: the data have no stage {phase.until}; they have {', '.join(ends) or 'none'}")
            borders += _filled(group, borders[-1], ends[phase.until], steps)
            group = []
    if group:
        borders += _filled(group, borders[-1], steps, steps)
    if borders[-1] != steps:
        raise MidtrainError(f"schedule: its last phase ends with step {borders[-1]}, the run has {steps}")
    return borders


def _filled(phases: Sequence[Phase], begin: int, end: int, steps: int) -> list[int]:
    """Last step (exclusive) of each phase on [begin, end). Borders are rounded, not lengths: shares that sum to 1 cover it all."""
    room = end - begin
    lengths = [p.steps if p.steps is not None else None if p.share is None else p.share * steps for p in phases]
    open_ended = [i for i, length in enumerate(lengths) if length is None]
    known = sum(length for length in lengths if length is not None)
    if len(open_ended) > 1:
        raise MidtrainError("schedule: only one phase may leave its length open; give the others `share`, `steps` or `until`")
    if known > room + 0.5:
        raise MidtrainError(f"schedule: its phases take {known:g} steps, the run has {room}")
    if not open_ended and known < room - 0.5:
        raise MidtrainError(f"schedule: its phases cover {known:g} of {room} steps; leave one open to take the rest")
    filled = [room - known if length is None else length for length in lengths]
    return [*(begin + round(float(x)) for x in np.cumsum(filled)[:-1]), end]


def stage_borders(stages: Sequence[DataStage], sequences: int) -> list[int]:
    """Where the data stages end, in packed sequences: rounded to whole ones."""
    return [round(float(x) * sequences) for x in np.cumsum([stage.fraction for stage in stages])]


def stage_ends(plan: TrainingPlan, sequences: int, offsets: np.ndarray) -> dict[str, int]:
    """The first step that begins after a data stage's last sequence, by the stage's name. Raises where the data repeat."""
    if plan.epochs != 1 and any(phase.until for phase in plan.schedule):
        raise MidtrainError("schedule: `until` needs data that are read once; set `epochs: 1`")
    borders = zip(plan.data_stages, stage_borders(plan.data_stages, sequences), strict=True)
    return {stage.name: min(int(np.searchsorted(offsets, border)), len(offsets) - 1) for stage, border in borders}


def batch_offsets(
    sequences: int, base: int, stages: Sequence[BatchStage] = (), epochs: float = 1.0, steps: int | None = None
) -> np.ndarray:
    """Where each step begins to read, int64 of steps + 1: step s reads the sequences from offsets[s] up to offsets[s + 1].

    A stage holds from the step that begins at or after its share of the data. Unless `steps` is given, the last step may be
    smaller. Offsets beyond the data mean that it repeats.
    """
    total = round(sequences * epochs)
    offsets = [0]
    ordered = sorted(stages, key=lambda stage: stage.after)
    while len(offsets) - 1 < steps if steps is not None else offsets[-1] < total:
        planned = total if steps is None else max(steps * base, 1)
        size = base
        for stage in ordered:
            size = stage.sequences if offsets[-1] >= stage.after * planned else size
        offsets.append(offsets[-1] + size if steps is not None else min(offsets[-1] + size, total))
    return np.array(offsets, dtype=np.int64)


def batch_factor(size: float, base: float, rule: str) -> float:
    """How the rate follows the batch size: Adam's √(B/B0) (2205.10287), SGD's B/B0 (1706.02677), or 1."""
    return {"none": 1.0, "sqrt": math.sqrt(size / base), "linear": size / base}[rule]


@dataclass(frozen=True)
class Timetable:
    """What every step of a run does: `rates[s]`, and the sequences from `offsets[s]` up to `offsets[s + 1]`."""

    rates: np.ndarray
    offsets: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.rates)


def timetable(plan: TrainingPlan, sequences: int) -> Timetable:
    """The whole run before it starts. `sequences`: how many the packed data holds."""
    if sequences <= 0:
        raise MidtrainError(f"{plan.sequences}: holds no sequences to train on")
    offsets = batch_offsets(sequences, plan.batch_sequences, plan.batch_stages, plan.epochs, plan.steps)
    steps = len(offsets) - 1
    if steps == 0:
        raise MidtrainError("training plan: no steps; raise `epochs` or `steps`")
    rates = np.concatenate(
        [
            [stretch.rate(step) for step in range(stretch.begin, stretch.end)]
            for stretch in lay_out(
                plan.schedule, steps, plan.peak_learning_rate, plan.start_learning_rate, stage_ends(plan, sequences, offsets)
            )
        ]
    )
    stages = sorted(plan.batch_stages, key=lambda stage: stage.after)
    if stages:
        reached = offsets[:-1, None] >= np.array([stage.after for stage in stages]) * (
            offsets[-1] if plan.steps is None else steps * plan.batch_sequences
        )
        sizes = np.array([plan.batch_sequences, *(stage.sequences for stage in stages)])[reached.sum(axis=1)]
        rates = rates * np.array([batch_factor(size, plan.batch_sequences, plan.batch_rate_rule) for size in sizes])
    return Timetable(rates, offsets)
