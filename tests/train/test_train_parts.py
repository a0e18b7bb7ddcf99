"""Adapters merge exactly, soups average, moments carry over, recipes become plans, guards count."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.training import Training
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.guards import Watch
from midtrain_dagster.train.plan import Adapter, Guards, TrainingPlan
from midtrain_dagster.train.soup import soup


def test_a_recipe_section_is_a_plan() -> None:
    section = Training.check({"schedule": [{"shape": "warmup", "steps": 3}, {"shape": "sqrt", "end": 0.1}]}, where="here")
    values = {**section.plan_values(), "model": "m", "sequences": "s", "out": "o"}
    plan = TrainingPlan.from_values(values)
    assert plan.schedule[1].end == 0.1
    assert TrainingPlan.from_values(__import__("json").loads(plan.to_json())) == plan
    with pytest.raises(MidtrainError, match="unknown keys: speed"):
        TrainingPlan.from_values({**values, "speed": 1})
    with pytest.raises(MidtrainError, match="not both"):
        Training.check({"schedule": [{"shape": "linear", "steps": 3, "share": 0.5}]}, where="here")


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_adapters_merge_exactly(kind: str, model_dir: Path, sequences: Sequences, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from midtrain_dagster.train import loop
    from midtrain_dagster.train.models import core
    from midtrain_dagster.train.ranks import Ranks

    plan = TrainingPlan(
        str(model_dir), str(sequences.path), str(tmp_path), peak_learning_rate=1e-2, precision="fp32",
        adapter=Adapter(kind, rank=4), checkpoint_every=0, steps=4, attention="sdpa",
    )  # fmt: skip
    training = loop.prepare(plan, Ranks(0, 1, torch.device("cpu")))
    records = list(loop.steps(training))
    assert len(records) == 4
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        adapted = core(training.model).eval()(tokens).logits
        loop.finish(training)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(tokens).logits
        base = AutoModelForCausalLM.from_pretrained(model_dir)(tokens).logits
    assert torch.allclose(merged, adapted, atol=1e-5)
    assert not torch.allclose(merged, base, atol=1e-3)


def test_a_soup_is_the_mean(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    models = [make_model(tmp_path / str(seed), seed=seed) for seed in range(3)]
    soup(models, tmp_path / "soup")
    tensors = [load_file(path / "model.safetensors") for path in models]
    for name, tensor in load_file(tmp_path / "soup" / "model.safetensors").items():
        assert torch.allclose(tensor, torch.stack([t[name] for t in tensors]).mean(dim=0), atol=1e-7)
    other = make_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(MidtrainError, match="cannot be averaged"):
        soup([models[0], other], tmp_path / "bad")


def test_moments_carry_over_from_a_trainers_file(model_dir: Path, tmp_path: Path) -> None:
    from midtrain_dagster.train.models import load_model
    from midtrain_dagster.train.optimizer_state import load_moments

    model = load_model(model_dir)
    named = list(model.named_parameters())
    groups = [[p for _, p in named if p.ndim >= 2], [p for _, p in named if p.ndim < 2]]
    adam = torch.optim.AdamW([{"params": group} for group in groups], lr=1e-3)
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    adam.step()
    torch.save(adam.state_dict(), tmp_path / "optimizer.pt")
    tensors, steps = load_moments(tmp_path / "optimizer.pt", model)
    assert steps == 1
    for name, parameter in named:
        assert torch.equal(tensors[f"exp_avg.{name}"], adam.state[parameter]["exp_avg"])
    (tmp_path / "evil.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(MidtrainError, match="not readable as plain tensors"):
        load_moments(tmp_path / "evil.pt", model)


def test_a_spike_is_skipped_and_counted() -> None:
    watch = Watch(Guards(spike_minimum=5, spike_window=10))
    assert [watch.problem(2.0 + 0.01 * i, 1.0) for i in range(6)] == [None] * 6
    assert watch.problem(9.0, 1.0) == "spike"
    assert watch.problem(2.0, float("inf")) == "nonfinite"
    assert watch.problem(2.0, 1.0) is None
    assert watch.counts == {"nonfinite": 1, "spike": 1, "rollbacks": 0}
    assert max(watch.recent) < 9


def test_forgetting_ends_the_run_and_rolls_back(
    model_dir: Path, sequences: Sequences, validation: Sequences, tmp_path: Path
) -> None:
    from midtrain_dagster.train.run import run

    plan = TrainingPlan(
        str(model_dir), str(sequences.path), str(tmp_path), validation={"general": str(validation.path)}, peak_learning_rate=3.0,
        precision="fp32", validation_every=1, guards=Guards(general_tolerance=0.0, general_action="rollback"), threads=1,
    )  # fmt: skip
    summary = run(plan, lambda line: None)
    assert "rolled back" in summary["stopped"]
    assert summary["validations"][-1]["sets"]["general"]["loss"] > summary["validations"][0]["sets"]["general"]["loss"]
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_a_proxy_learns(sequences: Sequences, validation: Sequences) -> None:
    from midtrain_dagster.train.proxy import ProxyShape, train_proxy

    found = train_proxy(sequences.path, {"general": validation.path}, ProxyShape(layers=1, hidden=32, heads=2))
    assert found["steps"] == 3
    sides = found["validation"]["general"]
    assert sides["after"]["loss"] < sides["before"]["loss"]


def test_a_base_from_scratch_is_reproducible(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from midtrain_dagster.train.base import import_base

    spec = SimpleNamespace(kind="scratch", layers=1, hidden=32, heads=2, vocabulary=300, context=64)
    said = [import_base(spec, tmp_path / name, texts=["the cat and the hat"] * 9) for name in ("a", "b")]
    assert said[0]["digest"] == said[1]["digest"]
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert tokenizer.decode(tokenizer("über the cat\n")["input_ids"]) == "über the cat\n"


def test_the_mean_of_the_last_points_is_saved_and_survives_a_kill(
    model_dir: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from midtrain_dagster.train import loop
    from midtrain_dagster.train.ranks import Ranks
    from midtrain_dagster.train.run import run

    plan = TrainingPlan(
        str(model_dir), str(sequences.path), str(tmp_path / "out"), batch_sequences=4, precision="fp32", threads=1,
        peak_learning_rate=1e-2, average_last=3, average_every=2, checkpoint_every=7,
    )  # fmt: skip
    training = loop.prepare(plan, Ranks.alone())
    points = []
    for record in loop.steps(training):
        if record["step"] in (6, 8, 10):
            points.append({name: tensor.detach().clone() for name, tensor in training.weights.masters.items()})
    one_step = loop.one_step

    def dies(run: loop.Training) -> dict[str, object]:
        if run.step == 9:
            raise KeyboardInterrupt
        return one_step(run)

    monkeypatch.setattr(loop, "one_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(plan, lambda line: None)
    monkeypatch.setattr(loop, "one_step", one_step)
    run(plan, lambda line: None)
    for name, tensor in load_file(tmp_path / "out" / "model" / "model.safetensors").items():
        assert torch.allclose(tensor, torch.stack([point[name] for point in points]).mean(dim=0), atol=1e-6), name
