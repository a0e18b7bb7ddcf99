"""A small head on frozen sentence embeddings: the part of a model rater that is trained here.

Dense layer, tanh, one output: the pooler and the regression head that FineWeb-Edu trains above its frozen encoder
(arXiv 2406.17557). Trained on the CPU with its own generator, so that equal data and seed give equal weights.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import HeadTraining
from midtrain_dagster.rate.batching import rounded

WEIGHTS = ("dense", "dense_bias", "output", "output_bias")


class Encoder(Protocol):
    """Embeds texts."""

    @property
    def version(self) -> str:
        """Changes whenever an embedding could."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, L2-normalised."""


class Head:
    """Weights of a head: dense (d, d) and its bias (d,), output (d,) and its bias (1,); float32."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = {name: np.ascontiguousarray(weights[name], dtype=np.float32) for name in WEIGHTS}
        self.version = blake2b(b"".join(self.weights[name].tobytes() for name in WEIGHTS), digest_size=8).hexdigest()

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores of unit vectors (n, d): float32 of shape (n,), to five significant digits."""
        scaled = embeddings.astype(np.float32) * np.sqrt(embeddings.shape[1])
        hidden = np.tanh(scaled @ self.weights["dense"].T + self.weights["dense_bias"])
        return rounded(hidden @ self.weights["output"] + self.weights["output_bias"][0])

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.weights, path)

    @classmethod
    def load(cls, path: Path) -> "Head":
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        if not path.is_file():
            raise MidtrainError(f"{path}: there is no such head; train it first")
        return cls(load_file(path))


class HeadRater:
    """Scores documents with an encoder and a head."""

    def __init__(self, name: str, encoder: Encoder, head: Head):
        self.name, self._encoder, self._head = name, encoder, head
        about = f"{encoder.version}:{head.version}:{code_version('rate.heads', 'rate.batching')}"
        self.version = blake2b(about.encode(), digest_size=8).hexdigest()

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """float32 of shape (n,); NaN for an empty text."""
        texts = documents["text"].to_list()
        scores = np.full(len(texts), np.nan, dtype=np.float32)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if rows:
            scores[rows] = self._head(self._encoder.encode([texts[row] for row in rows]))
        return scores


def fit(examples: int, dimension: int, settings: HeadTraining, start: float, loss: Callable[[Any, np.ndarray], Any]) -> Head:
    """Minimise `loss(network, rows)` over batches of example rows with AdamW.

    `network` maps a tensor of unit vectors (n, dimension) to scores (n,); `start` is the output's bias before training.
    """
    import torch

    rng = np.random.default_rng(settings.seed)
    spread = 1 / np.sqrt(dimension)
    shapes = {"dense": (dimension, dimension), "dense_bias": (dimension,), "output": (dimension,)}
    weights = {
        name: torch.nn.Parameter(torch.from_numpy(rng.uniform(-spread, spread, shape).astype(np.float32)))
        for name, shape in shapes.items()
    }
    weights["output_bias"] = torch.nn.Parameter(torch.tensor([start], dtype=torch.float32))

    def network(embeddings: Any) -> Any:
        hidden = torch.tanh(embeddings * dimension**0.5 @ weights["dense"].T + weights["dense_bias"])
        return hidden @ weights["output"] + weights["output_bias"]

    optimizer = torch.optim.AdamW(weights.values(), lr=settings.lr)
    for _ in range(settings.epochs):
        order = rng.permutation(examples)
        for begin in range(0, examples, settings.batch):
            optimizer.zero_grad()
            loss(network, order[begin : begin + settings.batch]).backward()
            optimizer.step()
    return Head({name: weight.detach().numpy() for name, weight in weights.items()})
