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
from midtrain_dagster.train.plan import TrainingPlan


def encode(text: str) -> list[int]:
    return list(text.encode())


def test_a_long_context_is_probed_before_and_after(model_dir: Path, pack: Callable[..., Sequences], tmp_path: Path) -> None:
    """Numbers to be found by base and trained model, and losses by position: both are in the summary of the run."""
    from midtrain_dagster.train.rope import extend_context
    from midtrain_dagster.train.run import run
    from midtrain_dagster.train.tokenizer import train_tokenizer

    base = tmp_path / "base"
    extend_context(model_dir, "yarn", 4.0, base)
    train_tokenizer(["The pass key is what you remember. " * 9], 300, base)
    data = pack(tmp_path / "data", 8, 128)
    plan = TrainingPlan(
        str(base), str(data.path), str(tmp_path / "out"), validation={"long": str(data.path)}, batch_sequences=4, precision="fp32",
        threads=1, probe_lengths=(16, 256), steps=2,
    )  # fmt: skip
    from midtrain_dagster.train import models

    widened = models.load_model(base)
    widened.resize_token_embeddings(300)
    widened.save_pretrained(base)
    summary = run(plan, lambda line: None)
    assert [(row["length"], row["depth"]) for row in summary["needle"]] == [(256, depth) for depth in (0.1, 0.5, 0.9)]
    for row in summary["needle"]:
        assert row["found before"] == row["found after"] == 0.0  # of a model of noise
        assert row["loss before"] != row["loss after"]
    sides = summary["validation"]["long"]["after"]["positions"]
    found = probe.position_loss(tmp_path / "out/model", data.path)
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
