"""A tiny model and tiny packed data, made once."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from midtrain_dagster.sequences import Sequences, SequenceWriter

VOCABULARY = 61


def packed(
    path: Path, count: int, length: int = 24, seed: int = 0, components: tuple[str, ...] = ("general", "math")
) -> Sequences:
    """Sequences of a few documents each, learnable: the next token is the last one plus the component's step."""
    random = np.random.default_rng(seed)
    with SequenceWriter(path, length, VOCABULARY, components) as writer:
        for _ in range(count):
            borders = [0, *sorted(random.choice(np.arange(3, length - 4), 2, replace=False).tolist()), length - 1]
            tokens, spans = np.zeros(length, np.int64), []
            for start, end in itertools.pairwise(borders):
                component = int(random.integers(len(components)))
                first = random.integers(VOCABULARY)
                tokens[start:end] = (first + np.arange(end - start) * (component + 1)) % VOCABULARY
                spans.append((0, start, end - start, component, 0, 0))
            writer.append(tokens[None], np.array(spans))
    return Sequences.open(path)


def small_model(path: Path, seed: int = 0, dtype: str = "float32", **changes: object) -> Path:
    """A two-layer Llama with grouped heads, saved as safetensors."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, object] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True, "dtype": dtype,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).to(getattr(torch, dtype)).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Sequences:
    return packed(tmp_path_factory.mktemp("sequences"), count=40)


@pytest.fixture(scope="session")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Sequences:
    return packed(tmp_path_factory.mktemp("validation"), count=7, seed=1)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    return small_model


@pytest.fixture(scope="session")
def pack() -> Callable[..., Sequences]:
    return packed
