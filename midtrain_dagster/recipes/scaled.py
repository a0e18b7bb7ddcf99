"""A recipe's shape in minutes: the same shares, schedule, batch ramp and context factor on a small model and few tokens.

What is kept: the goal, selection and decontamination, shares and stages of the mixture, the packing method, every phase's share of
the steps, the start rate as a fraction of the peak, the batch's growth, soups, guards, and the context's method and factor. What
shrinks with the size: the base, the token budget, the sequence length, the batch, the peak rate, what is held out. What falls away:
proxy runs and benchmarks, of which so small a run says nothing; bits per byte of held-out documents are what is left.
"""

import re
from itertools import pairwise
from typing import Any

from pydantic import Field

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.evaluation import Evaluation
from midtrain_dagster.recipes.mixture import Mixture
from midtrain_dagster.recipes.recipe import Base, HeldOut, PackagedBase, Recipe, ScratchBase
from midtrain_dagster.recipes.training import BatchStage, Context, Phase, Training
from midtrain_dagster.settings import Settings

TOKEN_BOUND = re.compile(r"\b(tokens\s*>=?\s*)(\d+)")


class Size(Settings):
    """What a recipe is scaled to."""

    base: Base
    head_dimension: int = Field(description="of the base: longrope has half as many factors", ge=2)
    budget_tokens: int = Field(description="of the mixture", gt=0)
    sequence_length: int = Field(ge=16)
    batch_sequences: int = Field(ge=1)
    peak_learning_rate: float = Field(gt=0)
    precision: str = "auto"
    held_out: HeldOut
    without: tuple[str, ...] = Field(
        (), description="components that lack documents; the others share their part in proportion"
    )


SIZES: dict[str, Size] = {
    "scaled": Size(  # the embedded default, which holds English alone
        base=PackagedBase(),
        head_dimension=64,
        budget_tokens=28672,
        sequence_length=512,
        batch_sequences=4,
        peak_learning_rate=2e-4,
        held_out=HeldOut(one_in=50, documents=12, characters=1500),
        without=("multilingual",),
    ),
    "scaled-scratch": Size(
        base=ScratchBase(kind="scratch", layers=2, hidden=64, heads=4, vocabulary=512, context=128),
        head_dimension=16,
        budget_tokens=16384,
        sequence_length=128,
        batch_sequences=4,
        peak_learning_rate=3e-3,
        precision="fp32",
        held_out=HeldOut(one_in=4, documents=8, characters=1000),
    ),
}
"""By the word after the colon: `olmo-2:scaled` for people, `olmo-2:scaled-scratch` in seconds, for tests."""


def scaled(recipe: Recipe, size: Size, name: str) -> Recipe:
    """The recipe at another size, under another name. Raises MidtrainError where its length in steps cannot be known."""
    mixture = _mixture(recipe.mixture, size, recipe.packing.sequence_length)
    packing = recipe.packing.model_copy(update={"sequence_length": size.sequence_length})
    values = {
        "name": name,
        "description": f"{recipe.name} in minutes: the same shape on {size.budget_tokens:,} tokens. {recipe.description}",
        "base": _base(size, recipe.training.context),
        "held_out": size.held_out,
        "mixture": mixture,
        "packing": packing,
        "scaling": None,
        "training": _training(recipe, size),
        "evaluation": Evaluation(precision="float32", window=size.sequence_length, batch_tokens=2048, bootstrap=2000),
    }
    return Recipe.model_validate({**{field: getattr(recipe, field) for field in Recipe.model_fields}, **values})


def steps_of(recipe: Recipe) -> float:
    """Steps that a recipe takes: what it says, or its budget over its batches, each for its part of the data."""
    training = recipe.training
    if training.steps is not None:
        return training.steps
    if recipe.mixture.budget_tokens is None:
        raise MidtrainError(f"recipe {recipe.name}: give mixture.budget_tokens or training.steps; its length is unknown")
    sequences = training.epochs * recipe.mixture.budget_tokens / recipe.packing.sequence_length
    return sequences * _steps_a_sequence(training.batch_sequences, training.batch_stages)


def _steps_a_sequence(batch: int, stages: tuple[BatchStage, ...]) -> float:
    """Mean of 1/batch over the data."""
    ordered = sorted(stages, key=lambda stage: stage.after)
    borders = [0.0, *(stage.after for stage in ordered), 1.0]
    sizes = [batch, *(stage.sequences for stage in ordered)]
    return sum((end - begin) / size for (begin, end), size in zip(pairwise(borders), sizes, strict=True))


def _base(size: Size, context: Context | None) -> Base:
    """A model from scratch knows a context that the extension brings to the sequence length; others stay as they are."""
    if size.base.kind != "scratch" or context is None:
        return size.base
    return size.base.model_copy(update={"context": max(16, round(size.sequence_length / context.factor))})


def _mixture(mixture: Mixture, size: Size, sequence_length: int) -> Mixture:
    """The same shares of a small budget; a document counts as long, at the latest, where it fills a sequence."""
    kept = [component for component in mixture.components if component.name not in size.without]
    part = sum(component.share or 0 for component in kept) / max(sum(c.share or 0 for c in mixture.components), 1e-12)
    components = [
        component.model_copy(
            update={
                "where": component.where
                and TOKEN_BOUND.sub(lambda m: m[1] + str(min(int(m[2]), size.sequence_length)), component.where),
                "share": component.share and component.share / part,
            }
        )
        for component in kept
    ]
    stages = []
    for stage in mixture.stages:
        shares = {name: share for name, share in stage.shares.items() if name not in size.without}
        total = sum(shares.values())
        length = stage.document_length and max(16, round(stage.document_length * size.sequence_length / sequence_length))
        changed_shares = {name: share / total for name, share in shares.items()}
        stages.append(stage.model_copy(update={"shares": changed_shares, "document_length": length}))
    changed = {"components": components, "stages": stages, "budget_tokens": size.budget_tokens}
    return Mixture.model_validate({**{field: getattr(mixture, field) for field in Mixture.model_fields}, **changed})


def _training(recipe: Recipe, size: Size) -> Training:
    """Phases by their share of the steps, rates by their share of the peak, batches by their growth."""
    training = recipe.training
    growth = size.batch_sequences / training.batch_sequences
    stages = tuple(
        stage.model_copy(update={"sequences": max(1, round(stage.sequences * growth))}) for stage in training.batch_stages
    )
    steps = size.budget_tokens / size.sequence_length * _steps_a_sequence(size.batch_sequences, stages) * training.epochs
    whole = steps_of(recipe)
    start = training.start_learning_rate
    changed: dict[str, Any] = {
        "peak_learning_rate": size.peak_learning_rate,
        "start_learning_rate": start and start / training.peak_learning_rate * size.peak_learning_rate,
        "schedule": tuple(_phase(phase, whole, steps) for phase in training.schedule),
        "batch_sequences": size.batch_sequences,
        "batch_stages": stages,
        "micro_batch": min(size.batch_sequences, training.micro_batch or size.batch_sequences),
        "steps": None,
        "precision": size.precision,
        "attention": "auto",
        "compile": False,
        "activation_checkpointing": False,
        "optimizer_state": None,
        "peak_flops": None,
        "validation_every": 0,
        "validations": 2,
        "validation_sequences": 4,
        "context": _context(training.context, size),
    }
    return Training.model_validate({**{field: getattr(training, field) for field in Training.model_fields}, **changed})


def _phase(phase: Phase, whole: float, steps: float) -> Phase:
    """A length in steps becomes a share, of one step at least; a half-life shrinks with the run."""
    changed: dict[str, Any] = {}
    if phase.steps is not None:
        changed |= {"steps": None, "share": min(1.0, max(phase.steps / whole, 1 / steps))}
    if phase.half_life is not None:
        changed |= {"half_life": phase.half_life * steps / whole}
    return phase.model_copy(update=changed)


def _context(context: Context | None, size: Size) -> Context | None:
    """The same method and factor, from what the base was trained at; factor lists resampled to its number of frequencies."""
    if context is None:
        return None
    changed: dict[str, Any] = {"original": None, "probe_lengths": None}
    for field in ("short_factor", "long_factor"):
        values = getattr(context, field)
        changed[field] = values and _resampled(values, size.head_dimension // 2)
    return context.model_copy(update=changed)


def _resampled(values: tuple[float, ...], length: int) -> tuple[float, ...]:
    """The curve that `values` draw over the frequencies, read at `length` points in straight lines between them."""
    import numpy as np

    read = np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(values)), values)
    return tuple(round(float(value), 6) for value in read)
