"""The whole run: it learns, resumes bit for bit, and writes a model that plain transformers loads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.run import Interrupted, run

TIMING = ("tokens_per_second", "memory_gb", "mfu")


def plan_for(model: Path, sequences: Sequences, out: Path, **changes: Any) -> TrainingPlan:
    plan = TrainingPlan(
        str(model), str(sequences.path), str(out), peak_learning_rate=1e-2, batch_sequences=4, micro_batch=3,
        checkpoint_every=4, precision="fp32", threads=1,
    )  # fmt: skip
    return replace(plan, **changes)


def curve(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def quiet(line: str) -> None:
    pass


def test_it_learns_and_the_model_loads(model_dir: Path, sequences: Sequences, validation: Sequences, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    plan = plan_for(model_dir, sequences, tmp_path, epochs=3.0, validation={"general": str(validation.path)})
    summary = run(plan, quiet)
    assert summary["steps"] == 30
    assert summary["tokens"] == 30 * 4 * 24
    assert summary["loss_end"] < summary["loss_start"] - 0.5
    sides = summary["validation"]["general"]
    assert sides["after"]["loss"] < sides["before"]["loss"] - 0.3
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not (tmp_path / "state").exists()
    assert loaded.config.vocab_size == 61


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("killed_at", [1, 4, 7])
def test_a_resumed_run_is_the_undisturbed_one(
    model_dir: Path, sequences: Sequences, validation: Sequences, tmp_path: Path, precision: str, killed_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from midtrain_dagster.train import loop

    values: dict[str, Any] = {"validation": {"general": str(validation.path)}, "validation_every": 3, "precision": precision,
                              "ema_decay": 0.9}  # fmt: skip
    whole = run(plan_for(model_dir, sequences, tmp_path / "whole", **values), quiet)
    one_step = loop.one_step

    def dies(training: loop.Training) -> dict[str, Any]:
        if training.step == killed_at:
            raise KeyboardInterrupt
        return one_step(training)

    plan = plan_for(model_dir, sequences, tmp_path / "parts", **values)
    monkeypatch.setattr(loop, "one_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(plan, quiet)
    monkeypatch.setattr(loop, "one_step", one_step)
    parts = run(plan, quiet)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert parts["weights_digest"] == whole["weights_digest"]
    assert parts["validations"] == whole["validations"]


def test_a_signal_saves_and_the_next_run_goes_on(
    model_dir: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from midtrain_dagster.train import loop

    one_step = loop.one_step

    def signalled(training: loop.Training) -> dict[str, Any]:
        record = one_step(training)
        if training.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    plan = plan_for(model_dir, sequences, tmp_path, checkpoint_every=0)
    monkeypatch.setattr(loop, "one_step", signalled)
    with pytest.raises(Interrupted):
        run(plan, quiet)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-00000003"]
    monkeypatch.setattr(loop, "one_step", one_step)
    assert run(plan, quiet)["steps"] == 10
    assert [r["step"] for r in curve(tmp_path)] == list(range(1, 11))


def test_a_complete_run_is_not_repeated_and_another_plan_begins_afresh(
    model_dir: Path, sequences: Sequences, tmp_path: Path
) -> None:
    plan = plan_for(model_dir, sequences, tmp_path)
    first = run(plan, quiet)
    said: list[str] = []
    assert run(plan, said.append) == first
    assert "complete already" in said[0]
    other = run(replace(plan, peak_learning_rate=2e-2), quiet)
    assert other["weights_digest"] != first["weights_digest"]


def test_validations_are_spaced_evenly_and_utilisation_is_measured(
    model_dir: Path, sequences: Sequences, validation: Sequences, tmp_path: Path
) -> None:
    plan = plan_for(model_dir, sequences, tmp_path, validation={"general": str(validation.path)}, validations=2)
    summary = run(plan, quiet)
    assert [found["step"] for found in summary["validations"]] == [0, 4, 8, 10]
    records = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert all(0 < record["mfu"] < 1.5 for record in records)
    assert 0 < summary["input_share"] < 1
    assert summary["checkpoint_share"] > 0


def test_accumulation_changes_nothing(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    """The loss is a mean over the targets of the global batch, however it is cut."""
    whole = run(plan_for(model_dir, sequences, tmp_path / "a", micro_batch=4), quiet)
    parts = run(plan_for(model_dir, sequences, tmp_path / "b", micro_batch=1), quiet)
    assert parts["loss_end"] == pytest.approx(whole["loss_end"], rel=1e-4)


def test_a_run_that_cannot_be_finite_writes_no_model(sequences: Sequences, tmp_path: Path, model_dir: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((model_dir / "config.json").read_text())
    tensors = load_file(model_dir / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MidtrainError, match="could not be applied"):
        run(plan_for(broken, sequences, tmp_path / "out"), quiet)
    assert not (tmp_path / "out" / "model").exists()
    assert [r["skipped"] for r in curve(tmp_path / "out")] == ["nonfinite"] * 6


def test_pickles_and_empty_directories_are_refused(sequences: Sequences, tmp_path: Path, model_dir: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text((model_dir / "config.json").read_text())
    with pytest.raises(MidtrainError, match="without weights"):
        run(plan_for(folder, sequences, tmp_path / "out"), quiet)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(MidtrainError, match="pickles"):
        run(plan_for(folder, sequences, tmp_path / "out"), quiet)


def test_seeds_are_averaged(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    summary = run(plan_for(model_dir, sequences, tmp_path, soup_seeds=(1, 2), steps=3), quiet)
    one, two, mean = (load_file(tmp_path / p / "model.safetensors") for p in ("seed-1/model", "seed-2/model", "model"))
    assert len(summary["runs"]) == 2
    assert curve(tmp_path / "seed-1") != curve(tmp_path / "seed-2")
    for name, tensor in mean.items():
        assert torch.allclose(tensor, (one[name] + two[name]) / 2, atol=1e-7)


@pytest.mark.slow
def test_two_ranks_agree_with_one(model_dir: Path, sequences: Sequences, validation: Sequences, tmp_path: Path) -> None:
    """FSDP2 over gloo: the same curve within the error of another order of summation."""
    import os
    import subprocess
    import sys

    plan = plan_for(model_dir, sequences, tmp_path / "two", micro_batch=1, validation={"general": str(validation.path)})
    plan.write(tmp_path / "plan.json")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "midtrain_dagster.train.run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "plan.json")], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run(replace(plan, out=str(tmp_path / "one")), quiet)
    two, one = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert [r["loss"] for r in two] == pytest.approx([r["loss"] for r in one], rel=1e-4)
    assert [r["grad_norm"] for r in two] == pytest.approx([r["grad_norm"] for r in one], rel=1e-3)
    assert json.loads(done.stdout.splitlines()[-1])["ranks"] == 2


def test_models_along_the_run_are_what_shorter_runs_end_with(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    """At a constant rate the model after four steps of ten is the one of a run of four; keeping it changes nothing."""
    from transformers import AutoModelForCausalLM

    from midtrain_dagster.train.plan import Phase

    values: dict[str, Any] = {"schedule": (Phase("constant"),)}
    kept = run(plan_for(model_dir, sequences, tmp_path / "kept", snapshot_every=4, **values), quiet)
    assert run(plan_for(model_dir, sequences, tmp_path / "plain", **values), quiet)["weights_digest"] == kept["weights_digest"]
    assert [path.name for path in sorted((tmp_path / "kept" / "snapshots").iterdir())] == ["step-00000004", "step-00000008"]
    run(plan_for(model_dir, sequences, tmp_path / "short", steps=4, **values), quiet)
    left = AutoModelForCausalLM.from_pretrained(tmp_path / "kept" / "snapshots" / "step-00000004").state_dict()
    right = AutoModelForCausalLM.from_pretrained(tmp_path / "short" / "model").state_dict()
    assert all(torch.equal(left[name], right[name]) for name in right)
