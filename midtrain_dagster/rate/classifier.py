"""Any sequence classifier of Hugging Face transformers as a rater; the published FineWeb-Edu classifier is one of them."""

from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.batching import model_version, rounded
from midtrain_dagster.rate.network import Network


class Classifier:
    """The value of a model with one output, or the probability of one label of a model with several."""

    def __init__(self, name: str, model: str, label: str | None = None, max_tokens: int = 512, device: str = "cpu"):
        """Load a model from a directory or, online, the hub.

        Raises MidtrainError when there is none, or when it has several labels and none is named.
        """
        self.name, self.max_tokens = name, max_tokens
        self._network = Network(model, device)
        self._output = _output(self._network.config, label, model)
        self.version = model_version(
            model,
            self._network.commit,
            self._output,
            max_tokens,
            code_version("rate.classifier", "rate.network", "rate.batching"),
        )

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """float32 of shape (n,): the raw value of a one-output model (FineWeb-Edu: about 0 to 5), else a probability.

        NaN for an empty text. The text is cut at `max_tokens`.
        """
        texts = documents["text"].to_list()
        tokens = self._network.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []
        said = [ids if text.strip() else [] for ids, text in zip(tokens, texts, strict=True)]
        logits = self._network.outputs(said, self.max_tokens)
        if self._output is None:
            return rounded(logits[:, 0])
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        return rounded(chances[:, self._output] / chances.sum(axis=1))


def _output(config: Any, label: str | None, model: str) -> int | None:
    """Which logit's probability is the score; None for the value of a one-output model."""
    if config.num_labels == 1:
        return None
    if label is None and config.num_labels == 2:
        return 1
    names = {str(name): index for index, name in config.id2label.items()}
    if label not in names:
        raise MidtrainError(f"classifier {model}: which label is the score? Name one of {', '.join(names)}")
    return int(names[label])
