"""Rotary frequencies against published vectors and against transformers itself."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train import rope


@pytest.mark.parametrize(
    ("dim", "base", "original", "factor", "bounds", "raised"),
    [
        (64, 1e4, 2048, 4, (8, 21), 41829.37),
        (64, 1e5, 2048, 4, (6, 17), 418293.66),
        (128, 1e4, 4096, 8, (20, 46), 82684.62),
    ],
)
def test_ranges_and_bases(dim: int, base: float, original: int, factor: float, bounds: tuple[int, int], raised: float) -> None:
    assert rope.yarn_range(dim, base, original) == bounds
    assert rope.ntk_base(base, factor, dim) == pytest.approx(raised, rel=1e-6)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (1e4, [1, 0.1, 0.00538462, 0.00025, 3.3338e-5]),
        (1e5, [1, 0.0485658, 0.00100618, 4.4457e-5, 3.58253e-6]),
    ],
)
def test_yarn_vectors(base: float, expected: list[float]) -> None:
    assert rope.yarn(64, base, 4, 2048)[[0, 8, 16, 24, 31]] == pytest.approx(expected, rel=2e-5)


def test_attention_factors() -> None:
    assert rope.yarn_attention_factor(4) == pytest.approx(1.138629, abs=1e-6)
    assert rope.yarn_attention_factor(8) == pytest.approx(1.207944, abs=1e-6)
    assert rope.longrope_attention_factor(4, 2048) == pytest.approx(1.087, abs=5e-4)


def test_ntk_divides_the_lowest_frequency_by_the_factor() -> None:
    theta, changed = rope.frequencies(64, 1e4), rope.frequencies(64, rope.ntk_base(1e4, 4, 64))
    assert changed[0] == theta[0]
    assert theta[-1] / changed[-1] == pytest.approx(4)


def test_by_parts_keeps_fast_pairs_and_interpolates_slow_ones() -> None:
    theta = rope.frequencies(64, 1e4)
    turns = 2048 * theta / (2 * math.pi)
    changed = rope.by_parts(theta, 4, 2048)
    assert np.array_equal(changed[turns > 32], theta[turns > 32])
    assert changed[turns < 1] == pytest.approx(theta[turns < 1] / 4)
    middle = (turns > 1) & (turns < 32)
    weight = (turns[middle] - 1) / 31
    assert changed[middle] == pytest.approx((1 - weight) * theta[middle] / 4 + weight * theta[middle])


Maker = Callable[..., Path]
LISTS = {"short_factor": [1 + i / 10 for i in range(4)], "long_factor": [2.0 + i for i in range(4)]}


@pytest.mark.parametrize("length", [50, 200])
@pytest.mark.parametrize("method", rope.METHODS)
def test_equal_to_transformers(method: str, length: int, tmp_path: Path, make_model: Maker) -> None:
    """The saved directory loads with plain transformers and computes our frequencies, at short and at long inputs."""
    from transformers import AutoModelForCausalLM

    source = make_model(tmp_path / "model")
    extra: dict[str, Any] = LISTS if method == "longrope" else {"base": 5e5} if method == "base" else {}
    said = rope.extend_context(source, method, 4.0, tmp_path / "long", **extra)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "long")
    with torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.long))
    rotary = model.model.rotary_emb
    expected, attention = rope.inv_freq(said["rope_parameters"], 8, model.config.max_position_embeddings, length)
    assert rotary.inv_freq.numpy() == pytest.approx(expected, rel=1e-6)
    assert rotary.attention_scaling == pytest.approx(attention, rel=1e-6)
    assert said["context"] == 256
    assert model.config.max_position_embeddings == (64 if method == "dynamic" else 256)


def test_what_cannot_be_extended(tmp_path: Path, make_model: Maker) -> None:
    source = make_model(tmp_path / "model")
    with pytest.raises(MidtrainError, match="not known"):
        rope.extend_context(source, "magic", 4.0, tmp_path / "a")
    with pytest.raises(MidtrainError, match="above the model's 10000"):
        rope.extend_context(source, "base", 4.0, tmp_path / "a")
    with pytest.raises(MidtrainError, match="need 4 numbers"):
        rope.extend_context(source, "longrope", 4.0, tmp_path / "a", short_factor=[1.0], long_factor=[1.0])
    assert not (tmp_path / "a").exists()
    rope.extend_context(source, "yarn", 4.0, tmp_path / "yarn")
    with pytest.raises(MidtrainError, match="extended already"):
        rope.extend_context(tmp_path / "yarn", "yarn", 2.0, tmp_path / "b")
