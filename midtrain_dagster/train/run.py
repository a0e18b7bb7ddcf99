"""`python -m midtrain_dagster.train.run PLAN.json`: one training, from wherever it was left.

Alone, under `torchrun`, or started by Dagster through Pipes; it needs torch, transformers and safetensors, and meets Dagster
only where Dagster started it. In OUT it writes

    plan.json       the plan that was run
    steps.jsonl     one JSON record a step
    order.npy       with `order_seed`: the sequences in the order in which they were read
    tensorboard/    the same for TensorBoard, where the plan asks for it
    state/          the newest checkpoints, see checkpoint.py
    snapshots/      models along the way, where the plan asks for them
    model/          the trained model: safetensors, configuration, tokenizer
    training.json   summary, written last: where it exists, the run is complete

SIGINT, SIGTERM or the death of the parent process saves a checkpoint of the last whole step and exits with 130; the same command
then goes on from there. OUT is locked meanwhile: a second process waits, then refuses.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.environment import torch_for
from midtrain_dagster.train.lifeline import Interrupted, signals, sole_writer, stop_with_parent
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.steplog import StepLog, Unlogged

if TYPE_CHECKING:
    from midtrain_dagster.train.loop import Training

NOT_OF_THE_RESULT = (
    "out",
    "checkpoint_every",
    "keep_checkpoints",
    "threads",
    "peak_flops",
    "tensorboard",
    "probe_lengths",
    "model",
    "sequences",
    "validation",
)
"""Fields that do not decide the weights, or whose content rather than name does."""
INTERRUPTED = 130


def fingerprint(plan: TrainingPlan) -> str:
    """Of all that decides the result: configuration, base weights, training and validation data. Not of where they lie."""
    from midtrain_dagster.train.checkpoint import file_digest

    values = {name: value for name, value in asdict(plan).items() if name not in NOT_OF_THE_RESULT}
    if plan.guards.spike_action == "rollback":
        values["checkpoint_every"] = plan.checkpoint_every  # it decides how far a rollback goes
    if plan.optimizer_state not in (None, "none"):
        values["optimizer_state"] = file_digest(Path(plan.optimizer_state))
    values["model"] = file_digest(Path(plan.model))
    values["sequences"] = Sequences.open(Path(plan.sequences)).digest
    values["validation"] = {name: Sequences.open(Path(path)).digest for name, path in plan.validation.items()}
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def run(plan: TrainingPlan, emit: Callable[[str], None], orphaned: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Train as planned and return the summary; at once, where OUT already holds this very run.

    With `soup_seeds` there is a run for each seed in OUT/seed-N, each resumable, and the mean of their weights is the model.
    `emit` takes lines for people, at most one a second; `orphaned` says when to stop because nobody waits for the run any more.
    Raises Interrupted then and after a signal, MidtrainError when a guard found the run broken (its model is not written), the
    inputs do not fit together, or another process trains in OUT.
    """
    out = Path(plan.out)
    leads = os.environ.get("RANK", "0") == "0"
    say = emit if leads else lambda line: None
    each = [replace(plan, soup_seeds=(), order_seed=n, out=str(out / f"seed-{n}"), probe_lengths=()) for n in plan.soup_seeds]
    with torch_for(plan), signals() as signalled, sole_writer(out, say) if leads else nullcontext():
        from midtrain_dagster.train.ranks import Ranks

        ranks = Ranks.join()
        try:
            runs = [one(member, ranks, say, lambda: signalled() or orphaned(), last=not each) for member in each or [plan]]
        finally:
            ranks.leave()
        if not leads or (not each and "needle" in runs[0]):
            return runs[0]
        return complete(plan, mixed(plan, runs) if each else runs[0])


def one(plan: TrainingPlan, ranks: Any, say: Callable[[str], None], stop: Callable[[], bool], last: bool) -> dict[str, Any]:
    """One run on all ranks; its summary is written at once unless it is the `last`, which others need not wait for."""
    out, mark = Path(plan.out), fingerprint(plan)
    if (done := finished(out, mark)) is not None:
        say(f"{out}: this run is complete already")
        return done
    summary = _train(plan, ranks, mark, say, stop)
    if not last and ranks.rank == 0:
        complete(plan, summary)
    ranks.wait()
    return summary


def mixed(plan: TrainingPlan, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The soup of `runs` in OUT/model, and its summary.

    OUT/steps.jsonl holds the records of all runs, one run after another, each with its `seed`. The summary is the last run's,
    with the soup's digest, all steps' tokens, and each run's summary under `runs`. Validation
    losses are those of the runs, not of the soup: evaluation measures that.
    """
    from midtrain_dagster.train.soup import soup

    out = Path(plan.out)
    digest = soup([Path(one["model"]) for one in runs], out / "model")
    with (out / "steps.jsonl").open("w") as steps:
        for seed in plan.soup_seeds:
            for line in (out / f"seed-{seed}" / "steps.jsonl").read_text().splitlines():
                steps.write(json.dumps({**json.loads(line), "seed": seed}) + "\n")
    totals = {name: sum(one[name] for one in runs) for name in ("steps", "tokens", "seconds")}
    mark = blake2b("".join(one["fingerprint"] for one in runs).encode(), digest_size=16).hexdigest()
    return {**runs[-1], **totals, "weights_digest": digest, "model": str(out / "model"), "fingerprint": mark, "runs": runs}


def finished(out: Path, mark: str) -> dict[str, Any] | None:
    """The summary of a complete run with this fingerprint, if `out` holds one."""
    file = out / "training.json"
    summary: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return summary if summary.get("fingerprint") == mark and (out / "model" / "model.safetensors").exists() else None


def _train(plan: TrainingPlan, ranks: Any, mark: str, emit: Callable[[str], None], stop: Callable[[], bool]) -> dict[str, Any]:
    from midtrain_dagster.train import checkpoint, loop

    out, started = Path(plan.out), time.monotonic()
    training = loop.prepare(plan, ranks, fingerprint=mark)
    saved = newest(out, mark)
    if saved is not None:
        loop.restore(training, checkpoint.load(saved))
        emit(f"going on after step {training.step} of {training.times.steps}")
    elif ranks.rank == 0:
        begin_afresh(plan)
    ranks.wait()
    progress = Progress(emit, "train", "tokens", planned_tokens(training))
    with StepLog(out, training.step, plan.tensorboard) if ranks.rank == 0 else Unlogged() as log:
        try:
            for record in loop.steps(training, stop):
                log.add(record)
                progress.label = line_of(record, training.times.steps)
                progress.advance(training.tokens - progress.done)
        finally:
            training.writer.wait()
        log.validated(training.validations)
    progress.close()
    if training.stopped == loop.INTERRUPTED:
        raise Interrupted(f"{out}: interrupted after step {training.step}; the same command goes on from there")
    refuse_broken(training)
    digest = loop.finish(training)
    summary = summarize(training, log.records, digest, time.monotonic() - started)
    if ranks.rank == 0:
        write_order(training, out / "order.npy")
    ranks.wait()
    return summary


def complete(plan: TrainingPlan, summary: dict[str, Any]) -> dict[str, Any]:
    """What the leader does when the others need not wait: look for numbers in long prompts, and write the summary, last of all."""
    out = Path(plan.out)
    summary["needle"] = []
    if plan.probe_lengths:
        from midtrain_dagster.train.probe import before_and_after

        summary["needle"] = before_and_after(Path(plan.model), out / "model", plan.probe_lengths, plan.seed)
    (out / "training.json.partial").write_text(json.dumps(summary, indent=2))
    (out / "training.json.partial").replace(out / "training.json")
    shutil.rmtree(out / "state", ignore_errors=True)
    return summary


def write_order(training: "Training", file: Path) -> None:
    """Where the order is not the packed one: the numbers of the sequences in the order in which they were read.

    A record of steps.jsonl says in `sequences` how many of them had been read when its step was done.
    """
    import numpy as np

    from midtrain_dagster.train.batches import sequences_between

    read = int(training.times.offsets[training.step])
    if training.plan.order_seed is not None:
        np.save(file, sequences_between(0, read, training.data.count, training.plan.order_seed, training.borders))


def newest(out: Path, mark: str) -> Path | None:
    """The newest checkpoint in `out` that belongs to this very run."""
    from midtrain_dagster.train.checkpoint import complete

    found = [path for path in complete(out) if json.loads((path / "state.json").read_text())["fingerprint"] == mark]
    return found[-1] if found else None


def begin_afresh(plan: TrainingPlan) -> None:
    """Clear what another run left in OUT, and write the plan."""
    out = Path(plan.out)
    for folder in ("state", "model", "snapshots", "tensorboard"):
        shutil.rmtree(out / folder, ignore_errors=True)
    for file in ("steps.jsonl", "training.json", "order.npy"):
        (out / file).unlink(missing_ok=True)
    plan.write(out / "plan.json")


def planned_tokens(training: "Training") -> int:
    return int(training.times.offsets[-1]) * training.data.length


def line_of(record: dict[str, Any], total: int) -> str:
    return f"step {record['step']}/{total} loss {record['loss']:.3f} lr {record['learning_rate']:.2e}"


def refuse_broken(training: "Training") -> None:
    """Weights that are not finite, or a run that a guard ended as broken, never become a model."""
    import torch

    if training.stopped and not training.stopped.startswith("general loss"):
        raise MidtrainError(f"training ended at step {training.step}: {training.stopped}; lower the learning rate")
    bad = [name for name, tensor in training.weights.masters.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise MidtrainError(f"training diverged: {len(bad)} weight tensors are not finite, {bad[0]} among them")


def summarize(training: "Training", records: list[dict[str, Any]], digest: str, seconds: float) -> dict[str, Any]:
    """training.json: what the run was and what it did to the loss."""
    from midtrain_dagster.train.prepare import compute_dtype

    plan, validations = training.plan, training.validations
    applied = [r["loss"] for r in records if not r["skipped"]]
    return {
        "fingerprint": training.fingerprint,
        "steps": training.step,
        "planned_steps": training.times.steps,
        "stopped": training.stopped,
        "tokens": training.tokens,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "loss_start": applied[0] if applied else None,
        "loss_end": applied[-1] if applied else None,
        "validation": {
            name: {
                "before": validations[0]["sets"][name],
                "after": validations[-1]["sets"][name],
            }
            for name in plan.validation
        },
        "validations": validations,
        "optimizer_state": training.carried_from,
        "guards": {**training.watch.counts, "general_before": training.watch.general_before},
        "seconds": round(seconds, 2),
        "input_share": round(training.reading / training.stepping, 5) if training.stepping else None,
        "checkpoint_share": round(training.stalled / training.stepping, 5) if training.stepping else None,
        "tokens_per_second": round(sorted(r["tokens_per_second"] for r in records)[len(records) // 2], 1) if records else None,
        "memory_gb": max((r["memory_gb"] for r in records), default=None),
        "precision": str(compute_dtype(plan.precision, training.ranks.device)).removeprefix("torch."),
        "device": str(training.ranks.device),
        "ranks": training.ranks.world,
        "weights_digest": digest,
        "model": str(Path(plan.out) / "model"),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the plan named on the command line; the summary goes to standard output as one JSON object, or to Dagster."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        raise SystemExit("usage: python -m midtrain_dagster.train.run PLAN.json")
    leader = os.environ.get("RANK", "0") == "0"
    launched = {"DAGSTER_PIPES_CONTEXT", "TORCHELASTIC_RUN_ID", "MIDTRAIN_STOP_WITH_PARENT"} & set(os.environ)
    orphaned = (
        stop_with_parent() if launched else lambda: False
    )  # a person's shell may close; what a program launched ends with it
    try:
        plan = TrainingPlan.read(Path(given[0]))
        if leader:
            report(lambda say: run(plan, say, orphaned))
        else:
            run(plan, tell, orphaned)
    except Interrupted as error:
        print(f"midtrain: {error}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except MidtrainError as error:
        print(f"midtrain: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def tell(line: str) -> None:
    """A line on standard error; when nobody reads it any more, training still ends in order."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def report(train: Callable[[Callable[[str], None]], dict[str, Any]]) -> None:
    """Run `train`, which gets a place for its progress, and hand its summary on: to the Dagster run that started this process,
    where one did, as the asset's metadata; else to standard output.
    """
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        print(json.dumps(train(tell)))
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        summary = train(pipes.log.info)
        if pipes.is_asset_step and len(pipes.asset_keys) == 1:
            pipes.report_asset_materialization(metadata=metadata(summary))
        pipes.report_custom_message(summary)


def metadata(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary's plain numbers and words, flat, for an asset's page."""
    flat = {name: value for name, value in summary.items() if isinstance(value, str | int | float) and value != ""}
    for name, sides in summary["validation"].items():
        flat |= {f"{name}_loss_{side}": values["loss"] for side, values in sides.items()}
    return (
        flat
        | {f"{name}_steps_skipped": summary["guards"][name] for name in ("nonfinite", "spike")}
        | {"rollbacks": summary["guards"]["rollbacks"], "ended": summary["stopped"] or "at its last step"}
    )


if __name__ == "__main__":
    main()
