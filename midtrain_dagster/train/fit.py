"""`python -m midtrain_dagster.train.fit PLAN.json`: how many sequences fit in one forward pass, measured.

Runs whole steps of the plan on real data, weights, moments and all, with one sequence, then two, four …, on as many ranks as it is
started with, and prints one JSON object. Nothing is written. The answer changes a run's rounding and its speed, nothing else; it
becomes part of the plan, so that a resumed run goes on with it.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train.environment import torch_for
from midtrain_dagster.train.plan import Phase, TrainingPlan

if TYPE_CHECKING:
    from midtrain_dagster.train.loop import Training

FASTER = 1.03
"""More sequences must bring at least this on a CPU, where memory is no limit but cache is."""


def fitting(plan: TrainingPlan, head_room: float = 0.1) -> dict[str, Any]:
    """`micro_batch`, and per trial `sequences`, `gigabytes`, `tokens_per_second`; `limit_gb` is what was to be kept under.

    On a GPU the largest that leaves `head_room` of the memory free. On a CPU the first that a doubling does not beat in speed.
    Raises MidtrainError where not even one sequence fits.
    """
    with torch_for(plan):
        from midtrain_dagster.train import loop
        from midtrain_dagster.train.ranks import Ranks

        ranks = Ranks.join()
        try:
            return search(loop.prepare(trial_plan(plan), ranks), plan, head_room)
        finally:
            ranks.leave()


def trial_plan(plan: TrainingPlan) -> TrainingPlan:
    """The same model, data and memory, with a schedule of one step."""
    return replace(
        plan, schedule=(Phase("constant"),), steps=1, data_stages=(), batch_stages=(), validation={}, soup_seeds=(),
        optimizer_state="none",
    )  # fmt: skip


def search(run: "Training", plan: TrainingPlan, head_room: float) -> dict[str, Any]:
    """Double the sequences of a forward pass until memory or speed says no; then the largest that was well."""
    import torch

    cuda = run.ranks.device.type == "cuda"
    limit = memory_limit(run) * (1 - head_room)
    most = max(max([plan.batch_sequences, *(stage.sequences for stage in plan.batch_stages)]) // run.ranks.world, 1)
    trials: list[dict[str, float]] = []
    sequences = 1
    while sequences <= most and not run.ranks.any(expected(trials, sequences) > limit):
        try:
            used, speed = measured(run, sequences)
        except torch.OutOfMemoryError:
            used, speed = float("inf"), 0.0
        full = run.ranks.any(used > limit)
        if not full or not trials:
            trials.append({"sequences": sequences, "gigabytes": round(used / 1e9, 3), "tokens_per_second": round(speed, 1)})
        if full and len(trials) == 1:
            raise MidtrainError(
                f"one sequence of {run.data.length} tokens takes {used / 1e9:.1f} GB of {limit / 1e9:.1f} GB; shorten sequences, "
                "or set training.activation_checkpointing, an adapter, or more devices"
            )
        slower = not cuda and len(trials) > 1 and trials[-1]["tokens_per_second"] < FASTER * trials[-2]["tokens_per_second"]
        if full or run.ranks.any(slower):
            break
        sequences *= 2
    best = trials[-1] if cuda else max(trials, key=lambda trial: trial["tokens_per_second"])
    return {
        "micro_batch": int(best["sequences"]),
        "limit_gb": round(limit / 1e9, 3),
        "device": str(run.ranks.device),
        "trials": trials,
    }


def expected(trials: list[dict[str, float]], sequences: int) -> float:
    """Bytes that so many sequences would take, by a straight line through the last two trials; 0 before there are two.

    A rank that runs out of memory in the middle of a step would leave the others waiting for it.
    """
    if len(trials) < 2:
        return 0.0
    before, last = trials[-2:]
    slope = (last["gigabytes"] - before["gigabytes"]) / (last["sequences"] - before["sequences"])
    return (last["gigabytes"] + slope * (sequences - last["sequences"])) * 1e9


def measured(run: "Training", sequences: int) -> tuple[float, float]:
    """(bytes at the peak, tokens a second) of one whole step with so many sequences in each forward pass on each rank."""
    import numpy as np
    import torch

    from midtrain_dagster.train import loop

    device, cuda = run.ranks.device, run.ranks.device.type == "cuda"
    run.plan = replace(run.plan, micro_batch=sequences)
    rows = np.arange(sequences * run.ranks.world) % run.data.count
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    loop.gradient(run, rows)
    loop.whole_norm(run)
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    run.adam.step()  # at a rate of 0: it makes the moments, and changes no weight
    run.weights.publish()
    run.weights.zero_grad()
    used = torch.cuda.max_memory_reserved(device) if cuda else peak_of_process()
    return float(used), len(rows) * run.data.length / seconds


def peak_of_process() -> int:
    """Bytes of this process at most so far; trials grow, so the last one made the peak."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_limit(run: "Training") -> float:
    """Bytes that a rank may use: its GPU's, or its part of what this machine has free, under a container's bound."""
    import torch

    if run.ranks.device.type == "cuda":
        return float(torch.cuda.get_device_properties(run.ranks.device).total_memory)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    info = Path("/proc/meminfo")
    if info.exists():
        lines = dict(line.split(":") for line in info.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    bound = Path("/sys/fs/cgroup/memory.max")
    if bound.exists() and (said := bound.read_text().strip()).isdigit():
        available = min(available, int(said))
    return available / local + peak_of_process()


def main(arguments: list[str] | None = None) -> None:
    """Measure the plan named on the command line; head-room as a second argument."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        found = fitting(TrainingPlan.read(Path(given[0])), float(given[1]) if len(given) > 1 else 0.1)
    except MidtrainError as error:
        print(f"midtrain: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))


if __name__ == "__main__":
    main()
