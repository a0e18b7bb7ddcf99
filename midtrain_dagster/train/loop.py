"""The training loop. Imported only inside functions, because it imports torch.

    for step in steps: gradient of the global batch → clip → guards → AdamW at the schedule's rate → log, validate, checkpoint

Data position, learning rate and random seed are functions of the step, so a checkpoint holds weights, optimizer moments and the
guards' memory, and a resumed run is the undisturbed run: bit for bit on as many CPU ranks.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train import checkpoint as checkpoints
from midtrain_dagster.train.batches import micro_batches, rows_of_step
from midtrain_dagster.train.flops import flops_per_token, memory_gigabytes, peak_flops
from midtrain_dagster.train.guards import Watch
from midtrain_dagster.train.models import CausalLM, core, load_model, save_model, stored_dtype, with_adapter
from midtrain_dagster.train.objective import Objective
from midtrain_dagster.train.optimizer_state import keep_moments, load_moments, starting_state
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.ranks import Ranks
from midtrain_dagster.train.schedule import Timetable, timetable
from midtrain_dagster.train.validation import validate
from midtrain_dagster.train.weights import Weights, follow, gathered, moments, optimizer, put, set_moments

INTERRUPTED = "interrupted"


class Halt(Exception):
    """Raised between two micro-batches when the run is to stop: what the step has done so far is given up."""


@dataclass
class Training:
    """A run in memory: made by `prepare`, advanced by `steps`, written by `finish`."""

    plan: TrainingPlan
    ranks: Ranks
    data: Sequences
    validation: dict[str, Sequences]
    model: CausalLM
    objective: nn.Module
    weights: Weights
    adam: torch.optim.AdamW
    times: Timetable
    watch: Watch
    fingerprint: str = ""
    average: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    tokens: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None
    anchor: int | None = None
    """Step of the checkpoint that a rollback returns to."""
    carried_from: str | None = None
    """Where the optimizer's first moments came from; None: they started at zero."""
    stop: Callable[[], bool] = lambda: False

    def heed(self) -> None:
        """Raise Halt if any rank was told to stop. Every rank calls it between micro-batches."""
        if self.ranks.any(self.stop()):
            raise Halt


def prepare(plan: TrainingPlan, ranks: Ranks, model: CausalLM | None = None, fingerprint: str = "") -> Training:
    """Load data and model, wrap them for adapters, precision and ranks. `model` replaces the one in `plan.model`."""
    if plan.keep_optimizer and plan.adapter.kind != "none":
        raise MidtrainError("keep_optimizer: an adapter is merged when the run ends, and its moments end with it")
    torch.manual_seed(plan.seed)
    data = Sequences.open(Path(plan.sequences))
    attention = plan.attention if plan.attention != "auto" else automatic_attention(plan, ranks)
    model = model if model is not None else load_model(Path(plan.model), attention, ranks.device)
    if data.vocab_size > model.config.vocab_size:
        raise MidtrainError(f"{plan.sequences}: packed for {data.vocab_size} tokens, the model knows {model.config.vocab_size}")
    teacher = _teacher(plan, data, attention, ranks)
    model = with_adapter(model, plan.adapter)
    model.train()
    if plan.activation_checkpointing:
        core(model).gradient_checkpointing_enable({"use_reentrant": False})
    dtype = compute_dtype(plan.precision, ranks.device)
    chosen = tuple(i for i, name in enumerate(data.components) if name in plan.distillation.components)
    objective: nn.Module = Objective(
        core(model), len(data.components), teacher, chosen, plan.distillation.weight, plan.distillation.temperature
    )
    if ranks.sharded:
        shard(objective, core(model), dtype)
    weights = Weights(model, dtype, ranks.sharded)
    if plan.compile:
        objective.compile()
    adam = optimizer(weights, plan.betas, plan.epsilon, plan.weight_decay)
    validation = {name: Sequences.open(Path(path)) for name, path in plan.validation.items()}
    times = timetable(plan, data.count)
    training = Training(plan, ranks, data, validation, model, objective, weights, adam, times, Watch(plan.guards), fingerprint)
    if plan.ema_decay is not None:
        training.average = {name: master.detach().clone() for name, master in weights.masters.items()}
    carried = starting_state(plan)
    if carried is not None:
        set_moments(weights, adam, *load_moments(carried, model))
        training.carried_from = str(carried)
    return training


def automatic_attention(plan: TrainingPlan, ranks: Ranks) -> str:
    """The fastest that keeps documents apart; compiled, lengths that change with every batch would compile again and again."""
    if ranks.device.type == "cuda":
        return "flex"
    return "sdpa" if plan.compile else "documents"


def _teacher(plan: TrainingPlan, data: Sequences, attention: str, ranks: Ranks) -> CausalLM | None:
    if not plan.distillation.weight:
        return None
    if not set(plan.distillation.components) & set(data.components):
        raise MidtrainError(f"distillation: none of {plan.distillation.components} is a component of {plan.sequences}")
    teacher = load_model(Path(plan.model), attention, ranks.device).requires_grad_(False)
    dtype = compute_dtype(plan.precision, ranks.device)
    for parameter in teacher.parameters():
        parameter.data = parameter.data.to(dtype)
    return teacher.eval()


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies it natively, unless the plan says otherwise.

    A CPU without AVX512-BF16 or AMX emulates bf16 at a quarter of its fp32 speed.
    """
    if precision == "auto":
        cpu = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if device.type == "cuda" or cpu else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def shard(objective: nn.Module, model: CausalLM, dtype: torch.dtype) -> None:
    """FSDP2: each block is one unit, the rest belongs to the objective, whose forward needs the output layer."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in model.base_model.layers:
        fully_shard(block, mp_policy=policy)
    fully_shard(objective, mp_policy=policy)


def steps(run: Training, stop: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
    """Train to the end of the timetable, or until a guard or `stop` ends it; yields one record a step.

    Validates before the first step, at intervals and after the last; checkpoints at intervals and where it stops.
    """
    run.stop = stop
    try:
        if not run.validations or (validates_here(run) and run.validations[-1]["step"] != run.step):
            assess(run)
        while run.step < run.times.steps and not run.stopped:
            run.heed()
            yield one_step(run)
            if validates_here(run):
                assess(run)
            elif due(run.step, run.plan.checkpoint_every) and run.step < run.times.steps and not run.stopped:
                save(run, regular=True)
            if due(run.step, run.plan.snapshot_every) and run.step < run.times.steps and not run.stopped:
                snapshot(run)
    except Halt:
        run.weights.zero_grad()
        run.stopped = INTERRUPTED
        if run.step:
            save(run)


def validates_here(run: Training) -> bool:
    """Whether the step just done is one after which the run validates."""
    last = run.step == run.times.steps or run.stopped is not None
    return bool(run.validation) and run.step > 0 and (last or due(run.step, run.plan.validation_every))


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def one_step(run: Training) -> dict[str, Any]:
    """One optimizer step over the global batch: its record for the log."""
    started = time.perf_counter()
    torch.manual_seed(hash((run.plan.seed, run.step, run.ranks.rank)) % (1 << 63))
    rate = float(run.times.rates[run.step])
    rows = rows_of_step(run.times.offsets, run.step, run.data.count, run.plan.order_seed)
    sums = gradient(run, rows)
    targets = float(sums[:, 1].sum())
    loss = float(sums[:, 0].sum()) / max(targets, 1.0)
    norm = whole_norm(run)
    problem = run.watch.problem(loss, norm)
    if problem is None:
        for group in run.adam.param_groups:
            group["lr"] = rate
        run.adam.step()
        run.weights.publish()
        if run.plan.ema_decay is not None:
            follow(run.average, run.weights.masters, run.plan.ema_decay)
    else:
        run.stopped = run.watch.must_stop(problem)
    run.weights.zero_grad()
    returned = return_to_anchor(run) if problem == "spike" and run.plan.guards.spike_action == "rollback" else None
    run.step += 1
    tokens = len(rows) * run.data.length
    run.tokens += tokens
    return record(run, loss, sums, norm, rate, tokens, time.perf_counter() - started, problem, returned)


def return_to_anchor(run: Training) -> int | None:
    """Take weights, moments and average back to the last regular checkpoint; None where there is none yet.

    Step, data and rate go on: what led to the spike is not read again. Steps after the returned one are no part of the weights.
    """
    if run.anchor is not None and not run.stopped:
        set_tensors(run, checkpoints.load(checkpoints.place(Path(run.plan.out), run.anchor)))
        return run.anchor
    return None


def gradient(run: Training, rows: np.ndarray) -> Tensor:
    """Leave in the masters' `.grad` the gradient of the mean loss over all targets of the global batch.

    Returns float64 (components, 2): sum of losses and number of targets.
    """
    data, ranks = run.data, run.ranks
    parts = list(micro_batches(data, rows, run.plan.micro_batch, ranks.rank, ranks.world, ranks.device))
    targets = ranks.total(sum((part["target"][:, 1:].sum() for part in parts), torch.zeros((), device=ranks.device)).double())
    scale = ranks.world / max(float(targets), 1.0)  # FSDP averages gradients over ranks; the mean is over targets
    sums = torch.zeros(len(data.components), 2, dtype=torch.float64, device=ranks.device)
    for part in parts:
        run.heed()
        total, found, _ = run.objective(part)
        (total * scale).backward()
        run.weights.accumulate()
        sums += found
    return ranks.total(sums).cpu()


def whole_norm(run: Training) -> float:
    """Clip the gradient to the plan's norm; returns the norm before clipping. A gradient that is short enough is not touched."""
    from torch.distributed.tensor import DTensor

    masters = list(run.weights.masters.values())
    norm = nn.utils.get_total_norm([tensor.grad for tensor in masters if tensor.grad is not None])
    whole = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    if 0 < run.plan.clip < whole:
        nn.utils.clip_grads_with_norm_(masters, run.plan.clip, norm)
    return whole


def record(
    run: Training, loss: float, sums: Tensor, norm: float, rate: float, tokens: int, seconds: float, problem: str | None,
    returned: int | None,
) -> dict[str, Any]:  # fmt: skip
    """What one step says of itself; a component without a target in the step is null."""
    by_component = {
        name: float(total / count) if count else None
        for name, (total, count) in zip(run.data.components, sums.tolist(), strict=True)
    }
    speed = tokens / max(seconds, 1e-9)
    peak = peak_flops(run.plan.peak_flops, run.ranks.device)
    used = flops_per_token(core(run.model), run.data.length) * speed / peak / run.ranks.world if peak else None
    return {
        "step": run.step,
        "tokens": run.tokens,
        "sequences": int(run.times.offsets[run.step]),
        "loss": loss,
        "components": by_component,
        "learning_rate": rate,
        "grad_norm": norm,
        "skipped": problem,
        "returned_to": returned,
        "tokens_per_second": round(speed, 1),
        "mfu": None if used is None else round(used, 4),
        "memory_gb": memory_gigabytes(run.ranks.device),
    }


def assess(run: Training) -> None:
    """Validate on every set, keep the result, and end the run if the general loss rose beyond tolerance.

    Where a rollback may come, every healthy validation leaves a checkpoint to roll back to.
    """
    guards = run.plan.guards
    limit = run.plan.validation_sequences
    found = {
        name: validate(run.objective, data, run.ranks, run.plan.micro_batch, limit, run.heed)
        for name, data in run.validation.items()
    }
    run.validations.append({"step": run.step, "sets": found})
    general = found.get(guards.general_validation)
    if general and run.watch.forgets(general["loss"]):
        before = run.watch.general_before
        run.stopped = f"general loss {general['loss']:.4f} is over {before:.4f} + {guards.general_tolerance}"
        if guards.general_action == "rollback" and run.anchor is not None:
            seen, reason = run.validations, run.stopped
            restore(run, checkpoints.load(checkpoints.place(Path(run.plan.out), run.anchor)))
            run.validations, run.stopped = seen, f"{reason}; rolled back to step {run.step}"
    elif returns_to_validated(run.plan) or due(run.step, run.plan.checkpoint_every):
        save(run, regular=True, validated=True)


def returns_to_validated(plan: TrainingPlan) -> bool:
    """Whether the run may return to where the general loss was last within tolerance."""
    return plan.guards.general_action == "rollback" and plan.guards.general_tolerance is not None


def save(run: Training, regular: bool = False, validated: bool = False) -> None:
    """Checkpoint the run. Every rank calls it; rank 0 writes.

    A regular checkpoint, of a step that the plan names, may become the anchor of rollbacks; one written because the run was
    interrupted does not, so that an interrupted run rolls back to where an undisturbed one does.
    """
    if regular and (validated if returns_to_validated(run.plan) else run.plan.guards.spike_action == "rollback"):
        run.anchor = run.step
    moment, adam_steps = moments(run.weights, run.adam)
    state = {
        "step": run.step,
        "tokens": run.tokens,
        "fingerprint": run.fingerprint,
        "optimizer_steps": adam_steps,
        "watch": run.watch.state(),
        "validations": run.validations,
        "anchor": run.anchor,
    }
    whole = checkpoints.Checkpoint(gathered(run.weights.masters), gathered(moment), gathered(run.average), state)
    if run.ranks.rank == 0:
        checkpoints.save(Path(run.plan.out), run.step, whole, run.plan.keep_checkpoints, run.anchor)
    run.ranks.wait()


def restore(run: Training, saved: checkpoints.Checkpoint) -> None:
    """Continue from a checkpoint, on this number of ranks."""
    set_tensors(run, saved)
    run.step, run.tokens = saved.state["step"], saved.state["tokens"]
    run.watch.restore(saved.state["watch"])
    run.validations, run.anchor = saved.state["validations"], saved.state["anchor"]


@torch.no_grad()
def set_tensors(run: Training, saved: checkpoints.Checkpoint) -> None:
    """Weights, moments and moving average from a checkpoint."""
    run.weights.load(saved.weights)
    set_moments(run.weights, run.adam, saved.optimizer, saved.state["optimizer_steps"])
    for name, tensor in run.average.items():
        put(tensor, saved.average[name])


def snapshot(run: Training) -> None:
    """Write the model as it is now to OUT/snapshots/step-N, in one rename. Every rank calls it; rank 0 writes.

    It is put together in a model of its own, because writing one merges its adapters.
    """
    tensors = gathered(run.average or run.weights.masters)
    if run.ranks.rank == 0:
        source, folder = Path(run.plan.model), Path(run.plan.out) / "snapshots"
        final, partial = folder / f"step-{run.step:08d}", folder / f".partial-{run.step:08d}"
        for old in (final, partial):  # of a run that was killed after it, or that rolled back
            shutil.rmtree(old, ignore_errors=True)
        save_model(with_adapter(load_model(source), run.plan.adapter), tensors, source, partial, stored_dtype(source))
        partial.rename(final)
    run.ranks.wait()


def finish(run: Training) -> str:
    """Write OUT/model from the masters, or from their average where one is kept; returns the digest of its weights.

    The model in memory is used up: adapters are merged into it.
    """
    tensors = gathered(run.average or run.weights.masters)
    kept, adam_steps = moments(run.weights, run.adam) if run.plan.keep_optimizer else ({}, 0.0)
    kept = gathered(kept)
    if run.ranks.rank:
        return ""
    source, out = Path(run.plan.model), Path(run.plan.out) / "model"
    model = run.model if not run.ranks.sharded else with_adapter(load_model(source), run.plan.adapter)
    written = save_model(model, tensors, source, out, stored_dtype(source))
    if kept:
        keep_moments(out, kept, adam_steps)
    return checkpoints.digest(written)
