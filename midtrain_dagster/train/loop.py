"""The training loop. Imported only inside functions, because it imports torch.

    for step in steps: gradient of the global batch → clip → guards → AdamW at the schedule's rate → log, validate, checkpoint

Data position, learning rate and random seed are functions of the step, so a checkpoint holds weights, optimizer moments and the
guards' memory, and a resumed run is the undisturbed run: bit for bit on as many CPU ranks.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from midtrain_dagster.train import checkpoint as checkpoints
from midtrain_dagster.train.batches import micro_batches, rows_of_step
from midtrain_dagster.train.flops import flops_per_token, memory_gigabytes, peak_flops
from midtrain_dagster.train.models import core, load_model, save_model, stored_dtype, with_adapter
from midtrain_dagster.train.optimizer_state import keep_moments
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.prepare import Halt as Halt
from midtrain_dagster.train.prepare import Training as Training
from midtrain_dagster.train.prepare import compute_dtype
from midtrain_dagster.train.prepare import prepare as prepare
from midtrain_dagster.train.validation import validate
from midtrain_dagster.train.weights import copied, follow, gathered, moments, put, set_moments

INTERRUPTED = "interrupted"


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
    every = run.plan.validation_every or (run.plan.validations and -(-run.times.steps // (run.plan.validations + 1)))
    return bool(run.validation) and run.step > 0 and (last or due(run.step, every))


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def one_step(run: Training) -> dict[str, Any]:
    """One optimizer step over the global batch: its record for the log."""
    started = time.perf_counter()
    torch.manual_seed(hash((run.plan.seed, run.step, run.ranks.rank)) % (1 << 63))
    rate = float(run.times.rates[run.step])
    rows = rows_of_step(run.times.offsets, run.step, run.data.count, run.plan.order_seed, run.borders)
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
    else:
        run.stopped = run.watch.must_stop(problem)
    run.weights.zero_grad()
    returned = return_to_anchor(run) if problem == "spike" and run.plan.guards.spike_action == "rollback" else None
    run.step += 1
    if problem is None or run.plan.average_last:
        remember(run)
    tokens = len(rows) * run.data.length
    run.tokens += tokens
    seconds = time.perf_counter() - started
    run.stepping += seconds
    return record(run, loss, sums, norm, rate, tokens, seconds, problem, returned)


def remember(run: Training) -> None:
    """Bring the average of the weights up to the step just done, where one is kept."""
    if run.plan.ema_decay is not None:
        follow(run.average, run.weights.masters, run.plan.ema_decay)
    number = points_until(run)
    if number and (run.times.steps - run.step) % run.plan.average_every == 0:
        run.average = run.average or {name: torch.zeros_like(master) for name, master in run.weights.masters.items()}
        follow(run.average, run.weights.masters, 1 - 1 / number)


def points_until(run: Training) -> int:
    """How many of the points that `average_last` averages have been reached."""
    return max(run.plan.average_last - -(-(run.times.steps - run.step) // run.plan.average_every), 0)


def return_to_anchor(run: Training) -> int | None:
    """Take weights, moments and average back to the last regular checkpoint; None where there is none yet.

    Step, data and rate go on: what led to the spike is not read again. Steps after the returned one are no part of the weights.
    """
    if run.anchor is not None and not run.stopped:
        settle(run)
        set_tensors(run, checkpoints.load(checkpoints.place(Path(run.plan.out), run.anchor)))
        run.watch.counts["rollbacks"] += 1
        return run.anchor
    return None


def gradient(run: Training, rows: np.ndarray) -> Tensor:
    """Leave in the masters' `.grad` the gradient of the mean loss over all targets of the global batch.

    Returns float64 (components, 2): sum of losses and number of targets.
    """
    data, ranks = run.data, run.ranks
    started = time.perf_counter()
    parts = list(micro_batches(data, rows, run.plan.micro_batch, ranks.rank, ranks.world, ranks.device))
    run.reading += time.perf_counter() - started
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
    peak = peak_flops(run.plan.peak_flops, run.ranks.device, compute_dtype(run.plan.precision, run.ranks.device))
    used = flops_per_token(core(run.model), run.data.length) * speed / peak / run.ranks.world
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
        "mfu": round(used, 4),
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
            seen, counts, reason = run.validations, run.watch.counts, run.stopped
            settle(run)
            restore(run, checkpoints.load(checkpoints.place(Path(run.plan.out), run.anchor)))
            run.validations, run.stopped = seen, f"{reason}; rolled back to step {run.step}"
            run.watch.counts = {**counts, "rollbacks": counts["rollbacks"] + 1}
    elif returns_to_validated(run.plan) or due(run.step, run.plan.checkpoint_every):
        save(run, regular=True, validated=True)


def returns_to_validated(plan: TrainingPlan) -> bool:
    """Whether the run may return to where the general loss was last within tolerance."""
    return plan.guards.general_action == "rollback" and plan.guards.general_tolerance is not None


def save(run: Training, regular: bool = False, validated: bool = False) -> None:
    """Checkpoint the run: every rank copies its part and goes on, a thread writes it.

    A regular checkpoint, of a step that the plan names, may become the anchor of rollbacks; one written because the run was
    interrupted does not, so that an interrupted run rolls back to where an undisturbed one does.
    """
    started = time.perf_counter()
    if regular and (validated if returns_to_validated(run.plan) else run.plan.guards.spike_action == "rollback"):
        run.anchor = run.step
    settle(run)
    if run.ranks.rank == 0:
        checkpoints.begin(Path(run.plan.out), run.step)
    run.ranks.wait()
    moment, adam_steps = moments(run.weights, run.adam)
    state = {
        "step": run.step,
        "tokens": run.tokens,
        "fingerprint": run.fingerprint,
        "optimizer_steps": adam_steps,
        "watch": run.watch.state(),
        "validations": list(run.validations),
        "anchor": run.anchor,
    }
    parts = {"weights": run.weights.masters, "optimizer": moment, "average": run.average}
    kinds = {kind: copied(tensors) for kind, tensors in parts.items() if tensors}
    run.writer.start(Path(run.plan.out), run.step, kinds, state, run.plan.keep_checkpoints, run.anchor)
    run.stalled += time.perf_counter() - started


def settle(run: Training) -> None:
    """Wait until no rank is writing any more: the newest checkpoint is then complete for all."""
    run.writer.wait()
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
    if bool(saved.average) != bool(run.average):  # points of `average_last` begin after some checkpoints, and before others
        run.average = {name: torch.zeros_like(master) for name, master in run.weights.masters.items()} if saved.average else {}
    for name, tensor in run.average.items():
        put(tensor, saved.average, name)


def snapshot(run: Training) -> None:
    """Write the model as it is now to OUT/snapshots/step-N, in one rename. Every rank calls it; rank 0 writes.

    It is put together in a model of its own, because writing one merges its adapters.
    """
    tensors = gathered(run.average or run.weights.masters, keep=run.ranks.rank == 0)
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
    leads = run.ranks.rank == 0
    tensors = gathered(run.average or run.weights.masters, keep=leads)
    kept, adam_steps = moments(run.weights, run.adam) if run.plan.keep_optimizer else ({}, 0.0)
    kept = gathered(kept, keep=leads)
    if not leads:
        return ""
    source, out = Path(run.plan.model), Path(run.plan.out) / "model"
    model = run.model if not run.ranks.sharded else with_adapter(load_model(source), run.plan.adapter)
    written = save_model(model, tensors, source, out, stored_dtype(source))
    if kept:
        keep_moments(out, kept, adam_steps)
    return checkpoints.digest(written)
