"""How a training is started: on this machine, under Slurm, on Ray; and the batch that fits."""

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Compute
from midtrain_dagster.train.plan import TrainingPlan
from resources.gpu import Gpu

SRUN = """#!/bin/sh
# as srun: options first, then the command, on every node that was asked for (here: on this one)
for option in "$@"; do case "$option" in --*) echo "$option" >> "$SAID"; shift;; *) break;; esac; done
SLURM_JOB_ID=4711 SLURM_JOB_NODELIST=localhost exec "$@"
"""
SCONTROL = """#!/bin/sh
[ "$1 $2" = "show hostnames" ] && echo "$3"
"""


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    """Four steps of a tiny model."""
    import numpy as np

    from midtrain_dagster.sequences import SequenceWriter
    from midtrain_dagster.train.base import make_model

    make_model(tmp_path / "model", 64, 1, 32, 2, 64)
    with SequenceWriter(tmp_path / "data", 32, 64, ("general",)) as writer:
        tokens = np.random.default_rng(0).integers(64, size=(16, 32))
        writer.append(tokens, np.array([(i, 0, 32, 0, 0, 0) for i in range(16)]))
    return TrainingPlan(
        str(tmp_path / "model"),
        str(tmp_path / "data"),
        str(tmp_path / "out"),
        batch_sequences=4,
        micro_batch=2,
        precision="fp32",
    )


def launched(gpu: Gpu, plan: TrainingPlan) -> dict[str, object]:
    """The plan trained by an asset of its own, in a process that Dagster starts."""
    file = Path(plan.out) / "plan.json"
    plan.write(file)
    told: list[dict[str, object]] = []

    @dg.asset(pool="gpu")
    def trained(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        told.append(gpu.launch(context, file))
        return dg.MaterializeResult()

    assert dg.materialize([trained]).success
    assert not list(Path(plan.out).glob(".pipes-*"))
    return told[0]


def test_torchrun_over_the_devices_of_this_machine() -> None:
    one, two = Gpu(Compute(device="cpu", devices=1)), Gpu(Compute(device="cpu", devices=2, threads=3))
    assert one.command(Path("plan.json")) == [sys.executable, "-m", "midtrain_dagster.train.run", "plan.json"]
    assert two.command(Path("plan.json"))[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert two.environment()["OMP_NUM_THREADS"] == "3"
    assert two.environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in Gpu(Compute(device="cuda", devices=2)).environment()


def test_slurm_starts_one_torchrun_a_node(plan: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `srun` and `scontrol` that do on this machine what Slurm's do on the allocated ones; a soup of two, on two ranks."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    gpu = Gpu(Compute(device="cpu", devices=2, threads=1, launcher="slurm", launch_options=("--partition=short",)))
    told: Any = launched(gpu, replace(plan, soup_seeds=(1, 2)))
    assert (told["ranks"], told["steps"], [run["steps"] for run in told["runs"]]) == (2, 8, [4, 4])
    assert (tmp_path / "out" / "model" / "model.safetensors").exists()
    assert (tmp_path / "said").read_text().split() == ["--nodes=1", "--ntasks-per-node=1", "--partition=short"]
    many = Gpu(Compute(device="cuda", devices=8, nodes=4, launcher="slurm")).command(Path("plan.json"))
    assert many[:4] == ["srun", "--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8"]
    assert "--nnodes=4 --nproc_per_node=8" in many[-1]


def test_ray_is_named_where_it_is_missing(plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    from resources import ray_train

    gpu = Gpu(Compute(device="cpu", devices=2, launcher="ray", launch_options=("ray://head:10001",)))
    assert gpu.command(Path("p.json"))[1:] == ["-m", "resources.ray_train", "p.json", "2", "ray://head:10001"]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MidtrainError, match="Ray is not installed"):
        ray_train.train(plan, 2, None)


def test_the_batch_that_fits_is_measured(plan: TrainingPlan, tmp_path: Path) -> None:
    found = Gpu(Compute(device="cpu", threads=1)).fitting(plan, tmp_path)
    assert found["micro_batch"] in (1, 2, 4)
    assert [trial["sequences"] for trial in found["trials"]] == [1, 2, 4][: len(found["trials"])]
    assert all(0 < trial["gigabytes"] < found["limit_gb"] for trial in found["trials"])
    assert not (tmp_path / "fit.json").exists()
    with pytest.raises(MidtrainError, match=r"measuring the batch that fits: .*one sequence of 32 tokens takes"):
        Gpu(Compute(device="cpu", threads=1, head_room=0.999)).fitting(plan, tmp_path)


def test_on_a_gpu_the_largest_that_leaves_head_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubling until memory says no; the device is told, its memory invented."""
    import torch

    from midtrain_dagster.train import fit
    from midtrain_dagster.train.ranks import Ranks

    ranks = Ranks(0, 1, torch.device("cuda", 0))
    run = SimpleNamespace(ranks=ranks, data=SimpleNamespace(length=2048))
    plan = TrainingPlan("", "", "", batch_sequences=64)
    monkeypatch.setattr(fit, "memory_limit", lambda run: 80e9)

    def measured(run: object, sequences: int) -> tuple[float, float]:
        if sequences > 16:
            raise torch.OutOfMemoryError
        return 10e9 + sequences * 4.5e9, 1000.0

    monkeypatch.setattr(fit, "measured", measured)
    assert fit.search(run, plan, 0.1)["micro_batch"] == 8  # 16 would take 82 GB, 8 take 46 of 72
    assert fit.search(run, TrainingPlan("", "", "", batch_sequences=4), 0.1)["micro_batch"] == 4


def test_the_command_line_keeps_the_batch_that_a_run_began_with(
    plan: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midtrain_dagster.commands.train import with_measured_batch
    from midtrain_dagster.train import fit

    said: list[str] = []
    monkeypatch.setattr(fit, "fitting", lambda plan: {"micro_batch": 3, "device": "cpu", "limit_gb": 1.0})
    assert with_measured_batch(plan, said.append).micro_batch == 3
    replace(plan, micro_batch=2).write(Path(plan.out) / "plan.json")
    assert with_measured_batch(plan, said.append).micro_batch == 2
    assert with_measured_batch(replace(plan, seed=5), said.append).micro_batch == 3
    assert len(said) == 2
