"""Context in stages, and the probes: plans that fit together, needles where they were put, losses by position."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train import probe
from midtrain_dagster.train.plan import Phase, TrainingPlan
from midtrain_dagster.train.stages import Stage, phases_of, stage_plans


def encode(text: str) -> list[int]:
    return list(text.encode())


def test_stages_keep_tokens_a_step_and_hand_on() -> None:
    plan = TrainingPlan("base", "", "out", batch_sequences=16, micro_batch=4, peak_learning_rate=1e-4)
    made = stage_plans(plan, 2048, [Stage(length, Path(f"s{length}"), {}) for length in (4096, 8192, 65536)])
    assert [m.plan.batch_sequences for m in made] == [8, 4, 1]
    assert [m.plan.micro_batch for m in made] == [2, 1, 1]
    assert [m.factor for m in made] == [2, 4, 32]
    assert [str(m.weights) for m in made] == ["base", "out/stage-4096/model", "out/stage-8192/model"]
    assert [[p.shape for p in m.plan.schedule] for m in made] == [["warmup", "constant"], ["constant"], ["linear"]]
    assert [m.plan.keep_optimizer for m in made] == [True, True, False]
    with pytest.raises(MidtrainError, match="must grow"):
        stage_plans(plan, 8192, [Stage(4096, Path("s"), {})])


def test_phases_left_out_leave_their_length() -> None:
    wsd = (Phase("warmup", share=0.1), Phase("constant", share=0.6), Phase("sqrt", share=0.3))
    assert phases_of(wsd, first=True, last=True) == wsd
    assert phases_of(wsd, first=False, last=False) == (Phase("constant"),)
    assert phases_of(wsd, first=False, last=True) == (Phase("constant", share=0.6), Phase("sqrt"))
    with pytest.raises(MidtrainError, match="a warm-up alone"):
        phases_of(wsd[:1], first=False, last=True)


def test_two_stages_run_one_after_another(model_dir: Path, pack: Callable[..., Sequences], tmp_path: Path) -> None:
    import json

    from midtrain_dagster.train.rope import extend_context
    from midtrain_dagster.train.run import run

    data = {length: pack(tmp_path / f"s{length}", 8, length) for length in (64, 128)}
    plan = TrainingPlan(str(model_dir), "", str(tmp_path / "out"), batch_sequences=4, precision="fp32", threads=1)
    for stage in stage_plans(plan, 32, [Stage(n, d.path, {"general": d.path}) for n, d in data.items()]):
        extend_context(stage.weights, "yarn", stage.factor, Path(stage.plan.model), original=32, configuration=model_dir)
        summary = run(stage.plan, lambda line: None)
        assert summary["optimizer_state"] == (None if stage.length == 64 else stage.plan.model)
    config = json.loads((tmp_path / "out/stage-128/model/config.json").read_text())
    assert config["rope_parameters"]["factor"] == 4
    assert config["max_position_embeddings"] == 128
    found = probe.position_loss(tmp_path / "out/stage-128/model", data[128].path)
    sides = summary["validation"]["general"]["after"]["positions"]
    assert found == pytest.approx({int(lower): loss for lower, loss in sides.items()}, rel=1e-5)


@pytest.mark.parametrize("depth", [0.0, 0.25, 1.0])
def test_the_needle_is_where_it_was_put(depth: float) -> None:
    prompt = probe.passkey_prompt(encode, 1000, depth, "48213", seed=3)
    text = bytes(prompt.tokens.tolist()).decode()
    assert 1000 - max(map(len, probe.FILLER)) < len(prompt.tokens) <= 1000
    assert text.endswith("The pass key is 48213")
    assert text[-prompt.answer :] == " 48213"
    assert text.index("48213") / 1000 == pytest.approx(depth * 0.9, abs=0.06)
    with pytest.raises(MidtrainError, match="take at least"):
        probe.passkey_prompt(encode, 50, depth, "48213")


def test_passkey_tells_a_reader_from_a_guesser() -> None:
    """One `model` repeats the number it finds in its input, the other always says the same."""

    class Reader:
        device = "cpu"

        def __init__(self, reads: bool):
            self.reads = reads

        def eval(self) -> None:
            pass

        def __call__(self, input_ids: torch.Tensor, logits_to_keep: int, **kwargs: Any) -> SimpleNamespace:
            text = bytes(input_ids[0].tolist()).decode()
            start = text.index("pass key is ") + len("pass key is ")
            said = " " + (text[start : start + 5] if self.reads else "00000")
            logits = torch.zeros(1, logits_to_keep, 256)
            logits[0, np.arange(6), list(said.encode())] = 20.0
            return SimpleNamespace(logits=logits)

    right, wrong = (probe.passkey(Reader(reads), encode, [400, 800], trials=2) for reads in (True, False))
    assert len(right) == 10
    assert {row["found"] for row in right} == {1.0}
    assert {row["found"] for row in wrong} == {0.0}
    assert max(row["loss"] for row in right) < 0.01 < min(row["loss"] for row in wrong)
