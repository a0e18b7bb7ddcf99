"""`python -m midtrain_dagster.train.run PLAN.json`: one training, from wherever it was left.

Alone, under `torchrun`, or started by Dagster through Pipes; it needs torch, transformers and safetensors, and meets Dagster
only where Dagster started it. In OUT it writes

    plan.json       the plan that was run
    steps.jsonl     one JSON record a step
    state/          the newest checkpoints, see checkpoint.py
    model/          the trained model: safetensors, configuration, tokenizer
    training.json   summary, written last: where it exists, the run is complete

SIGINT or SIGTERM saves a checkpoint after the step under way and exits with 130; the same command then goes on from there.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.plan import TrainingPlan

if TYPE_CHECKING:
    from midtrain_dagster.train.loop import Training

NOT_OF_THE_RESULT = ("out", "checkpoint_every", "keep_checkpoints", "threads", "peak_flops", "model", "sequences", "validation")
"""Fields that do not decide the weights, or whose content rather than name does."""
INTERRUPTED = 130


class Interrupted(MidtrainError):
    """A signal ended the run after its checkpoint was saved."""


def fingerprint(plan: TrainingPlan) -> str:
    """Of all that decides the result: configuration, base weights, training and validation data. Not of where they lie."""
    from midtrain_dagster.train.checkpoint import file_digest

    values = {name: value for name, value in asdict(plan).items() if name not in NOT_OF_THE_RESULT}
    values["model"] = file_digest(Path(plan.model))
    values["sequences"] = Sequences.open(Path(plan.sequences)).digest
    values["validation"] = {name: Sequences.open(Path(path)).digest for name, path in plan.validation.items()}
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def run(plan: TrainingPlan, emit: Callable[[str], None]) -> dict[str, Any]:
    """Train as planned and return the summary; at once, where OUT already holds this very run.

    `emit` takes lines for people, at most one a second. Raises Interrupted after a signal, MidtrainError when a guard found the
    run broken (its model is not written) or the inputs do not fit together.
    """
    if plan.soup_seeds:
        return run_soup(plan, emit)
    prepare_environment(plan)
    from midtrain_dagster.train.ranks import Ranks

    ranks = Ranks.join()
    try:
        out, mark = Path(plan.out), fingerprint(plan)
        if (done := finished(out, mark)) is not None:
            emit(f"{out}: this run is complete already")
            return done
        with signals() as stop:
            return _train(plan, ranks, mark, emit if ranks.rank == 0 else lambda line: None, stop)
    finally:
        ranks.leave()


def run_soup(plan: TrainingPlan, emit: Callable[[str], None]) -> dict[str, Any]:
    """One run for each seed in OUT/seed-N, each resumable, and the mean of their weights in OUT/model.

    The summary is the last run's, with the soup's digest, all steps' tokens, and each run's summary under `runs`. Validation
    losses are those of the runs, not of the soup: evaluation measures that.
    """
    from midtrain_dagster.train.soup import soup

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MidtrainError("soup_seeds: run the seeds one by one under torchrun, then average them with train.soup.soup")
    out = Path(plan.out)
    runs = [run(replace(plan, soup_seeds=(), order_seed=seed, out=str(out / f"seed-{seed}")), emit) for seed in plan.soup_seeds]
    digest = soup([Path(one["model"]) for one in runs], out / "model")
    totals = {name: sum(one[name] for one in runs) for name in ("steps", "tokens", "seconds")}
    mark = blake2b("".join(one["fingerprint"] for one in runs).encode(), digest_size=16).hexdigest()
    summary = {**runs[-1], **totals, "weights_digest": digest, "model": str(out / "model"), "fingerprint": mark, "runs": runs}
    (out / "training.json").write_text(json.dumps(summary, indent=2))
    return summary


def prepare_environment(plan: TrainingPlan) -> None:
    """Settings that must stand before torch loads, and torch's own switches. Idle threads sleep: two runs can share cores."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if plan.threads:
        torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


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
    earlier = steps_so_far(out, training.step) if ranks.rank == 0 else []
    progress = Progress(emit, "train", "tokens", planned_tokens(training))
    with (out / "steps.jsonl").open("a") if ranks.rank == 0 else open(os.devnull, "w") as log:
        for record in loop.steps(training, stop):
            print(json.dumps(record), file=log, flush=True)
            earlier.append(record)
            progress.label = line_of(record, training.times.steps)
            progress.advance(training.tokens - progress.done)
    progress.close()
    if training.stopped == "interrupted":
        raise Interrupted(f"{out}: interrupted after step {training.step}; the same command goes on from there")
    refuse_broken(training)
    digest = loop.finish(training)
    summary = summarize(training, earlier, digest, time.monotonic() - started)
    if ranks.rank == 0:
        (out / "training.json.partial").write_text(json.dumps(summary, indent=2))
        (out / "training.json.partial").replace(out / "training.json")
        shutil.rmtree(out / "state", ignore_errors=True)
    ranks.wait()
    return summary


def newest(out: Path, mark: str) -> Path | None:
    """The newest checkpoint in `out` that belongs to this very run."""
    from midtrain_dagster.train.checkpoint import complete

    found = [path for path in complete(out) if json.loads((path / "state.json").read_text())["fingerprint"] == mark]
    return found[-1] if found else None


def begin_afresh(plan: TrainingPlan) -> None:
    """Clear what another run left in OUT, and write the plan."""
    out = Path(plan.out)
    for folder in ("state", "model"):
        shutil.rmtree(out / folder, ignore_errors=True)
    for file in ("steps.jsonl", "training.json"):
        (out / file).unlink(missing_ok=True)
    plan.write(out / "plan.json")


def steps_so_far(out: Path, step: int) -> list[dict[str, Any]]:
    """Records up to `step`; later ones, whose work was lost, are cut off the file."""
    file = out / "steps.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    kept = lines[:step]
    file.write_text("".join(line + "\n" for line in kept))
    return [json.loads(line) for line in kept]


def planned_tokens(training: "Training") -> int:
    return int(training.times.offsets[-1]) * training.data.length


def line_of(record: dict[str, Any], total: int) -> str:
    return f"step {record['step']}/{total} loss {record['loss']:.3f} lr {record['learning_rate']:.2e}"


def refuse_broken(training: "Training") -> None:
    """Weights that are not finite, or a run that a guard ended as broken, never become a model."""
    import torch

    bad = [name for name, tensor in training.weights.masters.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise MidtrainError(f"training diverged: {len(bad)} weight tensors are not finite, {bad[0]} among them")
    if training.stopped and not training.stopped.startswith("general loss"):
        raise MidtrainError(f"training ended at step {training.step}: {training.stopped}; lower the learning rate")


def summarize(training: "Training", records: list[dict[str, Any]], digest: str, seconds: float) -> dict[str, Any]:
    """training.json: what the run was and what it did to the loss."""
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
        "guards": {**training.watch.counts, "general_before": training.watch.general_before},
        "seconds": round(seconds, 2),
        "tokens_per_second": round(sorted(r["tokens_per_second"] for r in records)[len(records) // 2], 1) if records else None,
        "memory_gb": max((r["memory_gb"] for r in records), default=None),
        "precision": str(next(iter(training.weights.computing.values())).dtype).removeprefix("torch."),
        "device": str(training.ranks.device),
        "ranks": training.ranks.world,
        "weights_digest": digest,
        "model": str(Path(plan.out) / "model"),
    }


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came since; a second one ends the process as usual."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            previous[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: whoever runs us there handles signals
            break
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> None:
    """Run the plan named on the command line; the summary goes to standard output as one JSON object."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        raise SystemExit("usage: python -m midtrain_dagster.train.run PLAN.json")
    leader = os.environ.get("RANK", "0") == "0"
    try:
        plan = TrainingPlan.read(Path(given[0]))
        if leader and "DAGSTER_PIPES_CONTEXT" in os.environ:
            summary = run_in_pipes(plan)
        else:
            summary = run(plan, lambda line: print(line, file=sys.stderr, flush=True))
        if leader:
            print(json.dumps(summary))
    except Interrupted as error:
        print(f"midtrain: {error}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except MidtrainError as error:
        print(f"midtrain: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def run_in_pipes(plan: TrainingPlan) -> dict[str, Any]:
    """The same, its progress in the log of the Dagster run that started it, its summary as the asset's metadata."""
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        summary = run(plan, pipes.log.info)
        if pipes.is_asset_step and len(pipes.asset_keys) == 1:
            pipes.report_asset_materialization(metadata=metadata(summary))
        pipes.report_custom_message(summary)
        return summary


def metadata(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary's plain numbers and words, flat, for an asset's page."""
    flat = {name: value for name, value in summary.items() if isinstance(value, str | int | float) and value != ""}
    for name, sides in summary["validation"].items():
        flat |= {f"{name}_loss_{side}": values["loss"] for side, values in sides.items()}
    return flat | {f"{name}_steps_skipped": summary["guards"][name] for name in ("nonfinite", "spike")}


if __name__ == "__main__":
    main()
