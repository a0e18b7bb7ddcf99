"""What a stage takes over from the one before, and what it leaves for the next."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.handover import handover_jump
from midtrain_dagster.train.plan import Adapter, Distillation, Guards, Phase, TrainingPlan
from midtrain_dagster.train.run import run


def plan_for(model: Path, sequences: Sequences, out: Path, **changes: Any) -> TrainingPlan:
    plan = TrainingPlan(
        str(model), str(sequences.path), str(out), peak_learning_rate=1e-2, schedule=(Phase("constant"),), batch_sequences=4,
        micro_batch=4, checkpoint_every=0, precision="fp32", threads=1,
    )  # fmt: skip
    return replace(plan, **changes)


def quiet(line: str) -> None:
    pass


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]


def test_two_stages_with_moments_are_one_run(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    """At a constant rate, five steps and then one more over the same data are what six steps are."""
    from safetensors.torch import load_file

    first = run(plan_for(model_dir, sequences, tmp_path / "a", steps=5, keep_optimizer=True), quiet)
    assert first["optimizer_state"] is None
    model = tmp_path / "a" / "model"
    again = plan_for(model, sequences, tmp_path / "b", steps=1)
    second = run(again, quiet)
    assert second["optimizer_state"] == str(model)
    cold = run(replace(again, out=str(tmp_path / "c"), optimizer_state="none"), quiet)
    assert cold["optimizer_state"] is None
    assert cold["weights_digest"] != second["weights_digest"]

    from midtrain_dagster.train.loop import prepare, steps
    from midtrain_dagster.train.ranks import Ranks

    whole = prepare(plan_for(model_dir, sequences, tmp_path / "d", steps=6), Ranks.alone())
    for number, _ in enumerate(steps(whole), start=1):
        if number == 5:  # the sixth step reads what the second stage reads first
            whole.times.offsets[5:] = [0, 4]
    written = load_file(tmp_path / "b" / "model" / "model.safetensors")
    for name, tensor in whole.weights.masters.items():
        assert torch.equal(written[name], tensor.detach()), name


def test_a_checkpoint_is_read_by_rows_from_the_files_of_any_ranks(tmp_path: Path) -> None:
    """Three ranks wrote 2, 2 and 1 rows, and of a vector of two the last rank none; what is asked for comes back, and no more."""
    from midtrain_dagster.train import checkpoint
    from midtrain_dagster.train.checkpoint import Rows, Writer

    matrix, vector = torch.arange(15.0).reshape(5, 3), torch.tensor([1.0, 2.0])
    checkpoint.begin(tmp_path, 7)
    writers = [Writer(rank, 3) for rank in range(3)]
    for writer in reversed(writers):  # rank 0 comes last, and still has to wait for nobody but the slow
        first, second = 2 * writer.rank, min(writer.rank, 2)
        parts = {
            "m": Rows(matrix[first : first + 2].clone(), first, 5),
            "v": Rows(vector[second : second + 1].clone(), second, 2),
        }
        writer.start(tmp_path, 7, {"weights": parts}, {"step": 7}, keep=1, anchor=None)
    for writer in writers:
        writer.wait()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000007"]
    saved = checkpoint.load(checkpoint.place(tmp_path, 7))
    assert torch.equal(saved.weights["m"], matrix)
    assert torch.equal(saved.weights["v"], vector)
    assert torch.equal(saved.weights.rows("m", 1, 5), matrix[1:5])  # type: ignore[attr-defined]
    assert saved.weights.rows("v", 2, 2).shape == (0,)  # type: ignore[attr-defined]
    assert saved.weights.rows("m", 5, 5).shape == (0, 3)  # type: ignore[attr-defined]
    assert not saved.average
    checkpoint.begin(tmp_path, 8)
    alone = Writer(0, 2)
    alone.start(tmp_path, 8, {"weights": {}}, {}, keep=1, anchor=None)
    time.sleep(0.2)
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["step-00000007"]  # the other rank has not written
    Writer(1, 2).start(tmp_path, 8, {"weights": {}}, {}, keep=1, anchor=None)
    alone.wait()
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["step-00000008"]


def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    model_dir: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midtrain_dagster.train import checkpoint

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run(plan_for(model_dir, sequences, tmp_path, checkpoint_every=2), quiet)
    assert not checkpoint.complete(tmp_path)
    assert not (tmp_path / "model").exists()


def test_moments_come_from_a_distributed_checkpoint(model_dir: Path, tmp_path: Path) -> None:
    import pickle

    import torch.distributed.checkpoint as dcp

    from midtrain_dagster.train.models import load_model
    from midtrain_dagster.train.optimizer_state import load_moments

    model = load_model(model_dir)
    saved = {
        name: {"exp_avg": torch.rand_like(p), "exp_avg_sq": torch.rand_like(p), "step": torch.tensor(7.0)}
        for name, p in model.named_parameters()
    }
    state = {"optim": {"state": saved, "param_groups": [{"lr": 0.1}]}, "model": dict(model.named_parameters())}
    dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    tensors, steps = load_moments(tmp_path / "dcp", model)
    assert steps == 7
    assert len(tensors) == 2 * len(saved)
    for name, moments in saved.items():
        assert torch.equal(tensors[f"exp_avg.{name}"], moments["exp_avg"])
        assert torch.equal(tensors[f"exp_avg_sq.{name}"], moments["exp_avg_sq"])

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(MidtrainError, match="which no index of a checkpoint needs"):
        load_moments(tmp_path / "dcp", model)
    assert not (tmp_path / "ran").exists()


def test_an_adapters_moments_are_not_kept(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    with pytest.raises(MidtrainError, match="keep_optimizer"):
        run(plan_for(model_dir, sequences, tmp_path, keep_optimizer=True, adapter=Adapter("lora")), quiet)


def test_a_jump_is_told_by_its_component() -> None:
    def step(general: float, math: float | None) -> dict[str, Any]:
        return {"components": {"general": general, "math": math}}

    summary = {"validation": {"general": {"before": {"components": {"general": 2.0}}}}}
    smooth = handover_jump(summary, [step(2.1, 3.0), step(1.9, None), step(2.1, 2.9)])
    assert smooth is not None
    assert smooth.passed
    assert smooth.component == "general"
    assert smooth.jump == pytest.approx(0.0)
    jumped = handover_jump(summary, [step(2.0, math) for math in (3.0, 4.0, 3.8, 3.1, 3.0, 3.1)], window=2)
    assert jumped is not None
    assert not jumped.passed
    assert (jumped.component, jumped.base, jumped.jump) == ("math", 3.0, pytest.approx(0.9))
    noisy = handover_jump(summary, [step(2.0, 3.0), step(2.0, 4.6), step(2.1, 2.2), step(2.0, 3.9)])
    assert noisy is not None
    assert noisy.passed  # no more than steps differ among each other
    assert handover_jump(summary, [step(2.0, None)]) is None


def test_a_spike_goes_back_to_the_last_checkpoint_and_on_with_later_data(
    model_dir: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midtrain_dagster.train import guards

    healthy = guards.Watch._is_spike
    calls: list[int] = []

    def spiking(watch: guards.Watch, loss: float) -> bool:
        calls.append(1)
        return len(calls) == 6 or healthy(watch, loss)

    monkeypatch.setattr(guards.Watch, "_is_spike", spiking)
    rules = Guards(spike_action="rollback")
    plan = plan_for(model_dir, sequences, tmp_path / "a", checkpoint_every=2, guards=rules)
    assert run(plan, quiet)["guards"]["spike"] == 1
    found = records(tmp_path / "a")
    assert [r["returned_to"] for r in found] == [None] * 5 + [4] + [None] * 4
    assert [r["sequences"] for r in found] == list(range(4, 44, 4))


def test_the_order_that_was_read_is_kept(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    run(plan_for(model_dir, sequences, tmp_path, order_seed=3, epochs=1.5), quiet)
    order = np.load(tmp_path / "order.npy")
    assert sorted(order[:40].tolist()) == list(range(40))
    assert order[:40].tolist() != list(range(40))
    assert records(tmp_path)[-1]["sequences"] == len(order) == 60


def test_recomputed_activations_change_nothing(model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    plain = run(plan_for(model_dir, sequences, tmp_path / "a", steps=3), quiet)
    again = run(plan_for(model_dir, sequences, tmp_path / "b", steps=3, activation_checkpointing=True), quiet)
    assert again["weights_digest"] == plain["weights_digest"]


def test_a_teacher_holds_the_model_near_the_base(
    model_dir: Path, sequences: Sequences, validation: Sequences, tmp_path: Path
) -> None:
    """The more the divergence weighs, the less the predictions leave the base's."""
    from midtrain_dagster.train.models import load_model

    tokens = torch.from_numpy(validation.tokens[:4].astype(np.int64))

    def distance(weight: float) -> float:
        out = tmp_path / str(weight)
        run(plan_for(model_dir, sequences, out, distillation=Distillation(weight, ("general", "math"))), quiet)
        with torch.no_grad():
            base, trained = (load_model(path)(tokens).logits.log_softmax(-1) for path in (model_dir, out / "model"))
        return float(torch.nn.functional.kl_div(trained, base, reduction="batchmean", log_target=True))

    free, held = distance(0.0), distance(20.0)
    assert held < 0.3 * free


def test_tensorboard_is_an_extra(
    model_dir: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MidtrainError, match="pip install tensorboard"):
        run(plan_for(model_dir, sequences, tmp_path / "a", tensorboard=True), quiet)
    scalars: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int):
            self.add_scalar = lambda *what: scalars.append(what)
            self.close = lambda: None

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    run(plan_for(model_dir, sequences, tmp_path / "b", tensorboard=True, steps=2), quiet)
    losses = [(r["loss"], r["step"]) for r in records(tmp_path / "b")]
    assert [(value, step) for name, value, step in scalars if name == "train/loss"] == losses


def test_a_proxy_leaves_torch_as_it_was(sequences: Sequences, validation: Sequences) -> None:
    from midtrain_dagster.train.proxy import ProxyShape, train_proxy

    def state() -> tuple[Any, ...]:
        exact, random = torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
        return torch.get_num_threads(), exact, torch.utils.deterministic.fill_uninitialized_memory, random

    torch.use_deterministic_algorithms(False)
    before = state()
    plan = TrainingPlan("", "", "", steps=1, threads=torch.get_num_threads() + 1)
    train_proxy(sequences.path, {"general": validation.path}, ProxyShape(layers=1, hidden=32, heads=2), plan)
    assert state() == before


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(
    ranks: tuple[int, int], model_dir: Path, sequences: Sequences, tmp_path: Path
) -> None:
    import os
    import signal
    import subprocess
    import sys
    import time

    plan = plan_for(model_dir, sequences, tmp_path / "parts", micro_batch=1, epochs=4.0)
    plan.write(tmp_path / "plan.json")

    def start(count: int) -> subprocess.Popen[str]:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
        command = [sys.executable, *launcher, "-m", "midtrain_dagster.train.run", str(tmp_path / "plan.json")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    log = tmp_path / "parts" / "steps.jsonl"
    with start(ranks[0]) as first:
        end = time.monotonic() + 240
        while not (log.exists() and len(log.read_text().splitlines()) >= 3):
            assert first.poll() is None
            assert time.monotonic() < end, "it did not start"
            time.sleep(0.02)
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=120)
    assert len(records(tmp_path / "parts")) < 40
    assert any((tmp_path / "parts" / "state").iterdir())
    with start(ranks[1]) as second:
        _, errors = second.communicate(timeout=300)
        assert second.returncode == 0, errors[-3000:]
    assert "going on after step" in errors
    run(replace(plan, out=str(tmp_path / "whole")), quiet)
    parts, whole = (np.array([r["loss"] for r in records(tmp_path / name)]) for name in ("parts", "whole"))
    assert parts == pytest.approx(whole, rel=1e-3)
