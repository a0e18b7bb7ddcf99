"""A training ends with whoever started it, one process at a time writes to OUT, and a signal is heeded inside a step."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.lifeline import ancestors, sole_writer
from midtrain_dagster.train.plan import TrainingPlan

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "midtrain_dagster.train.run", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(300)
"""


def plan_for(model: Path, sequences: Sequences, out: Path, **changes: object) -> TrainingPlan:
    values: dict[str, object] = {
        "model": str(model), "sequences": str(sequences.path), "out": str(out), "batch_sequences": 4, "micro_batch": 1,
        "checkpoint_every": 0, "precision": "fp32", "threads": 1, **changes,
    }  # fmt: skip
    return TrainingPlan.from_values(values)


def wait_for(condition: Callable[[], object], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """A process that is there and not a zombie (nobody may collect an orphan's status in a container)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_training_ends_when_its_parent_is_killed(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan_for(model_dir, sequences, out, steps=100_000).write(tmp_path / "plan.json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MIDTRAIN_STOP_WITH_PARENT": "1"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "plan.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: lines(out / "steps.jsonl") >= 3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not running(child))
    (saved,) = (out / "state").iterdir()
    assert json.loads((saved / "state.json").read_text())["step"] == lines(out / "steps.jsonl") < 100_000
    with sole_writer(out, print, patience=0):
        pass


def test_a_second_writer_waits_and_then_refuses(tmp_path: Path) -> None:
    said: list[str] = []
    refused = pytest.raises(MidtrainError, match=f"process {os.getpid()} is at it already; end it, or give")
    with sole_writer(tmp_path, said.append), refused, sole_writer(tmp_path, said.append, patience=0.3):
        pass
    assert len(said) == 1
    assert "waiting" in said[0]
    with sole_writer(tmp_path, said.append, patience=0):
        assert len(said) == 1


def test_ancestors_are_told_one_after_another() -> None:
    assert ancestors(1) == [os.getppid()]
    if sys.platform == "linux":
        assert len(ancestors(2)) == 2


def test_a_signal_between_micro_batches_gives_the_step_up(
    model_dir: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midtrain_dagster.train import loop
    from midtrain_dagster.train.run import Interrupted, run

    def quiet(line: str) -> None:
        pass

    whole = run(plan_for(model_dir, sequences, tmp_path / "whole", steps=6), quiet)
    heeded = loop.Training.heed
    calls = []

    def signalled(training: loop.Training) -> None:
        calls.append(training.step)
        if calls.count(2) == 3:  # before its second micro-batch: once the step itself asks, then each micro-batch
            os.kill(os.getpid(), signal.SIGTERM)
        heeded(training)

    plan = plan_for(model_dir, sequences, tmp_path / "parts", steps=6)
    monkeypatch.setattr(loop.Training, "heed", signalled)
    with pytest.raises(Interrupted, match="after step 2"):
        run(plan, quiet)
    assert calls.count(2) == 3
    monkeypatch.setattr(loop.Training, "heed", heeded)
    assert run(plan, quiet)["weights_digest"] == whole["weights_digest"]


def test_a_signal_during_the_last_validation_loses_nothing(
    model_dir: Path, sequences: Sequences, validation: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midtrain_dagster.train import loop
    from midtrain_dagster.train.run import Interrupted, run

    changes = {"validation": {"general": str(validation.path)}, "steps": 3}
    whole = run(plan_for(model_dir, sequences, tmp_path / "whole", **changes), lambda line: None)
    heeded = loop.Training.heed

    def signalled(training: loop.Training) -> None:
        if training.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        heeded(training)

    plan = plan_for(model_dir, sequences, tmp_path / "parts", **changes)
    monkeypatch.setattr(loop.Training, "heed", signalled)
    with pytest.raises(Interrupted, match="after step 3"):
        run(plan, lambda line: None)
    monkeypatch.setattr(loop.Training, "heed", heeded)
    parts = run(plan, lambda line: None)
    assert parts["validations"] == whole["validations"]
    assert parts["weights_digest"] == whole["weights_digest"]
