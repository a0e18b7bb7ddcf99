"""Published raters, loaded and asked as their authors do: FineWeb-Edu's classifier and QuRating's scorer."""

import numpy as np
import polars as pl

from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.batching import model_version, rounded
from midtrain_dagster.rate.classifier import Classifier
from midtrain_dagster.rate.network import Network
from midtrain_dagster.rate.qurater import CRITERIA

FINEWEB_EDU = "HuggingFaceFW/fineweb-edu-classifier"
QURATER = "princeton-nlp/QuRater-1.3B"


def fineweb_edu(name: str = "edu", model: str = FINEWEB_EDU, max_tokens: int = 512, device: str = "cpu") -> Classifier:
    """The FineWeb-Edu classifier (arXiv 2406.17557): one output, 0 to 5 and a little beyond, of the first 512 tokens."""
    return Classifier(name, model, max_tokens=max_tokens, device=device)


class PublishedQuRater:
    """QuRating's scorer (arXiv 2402.09739): a Llama with an output for each criterion, the mean over windows of a text.

    It was trained on 512 tokens at most. A longer text is cut into windows, weighted by their length; no token is added.
    """

    def __init__(self, name: str, criterion: str, model: str = QURATER, max_tokens: int = 512, device: str = "cpu"):
        """Load from a directory or, online, the hub. Raises MidtrainError unless the model has QuRating's four outputs."""
        self.name, self.max_tokens = name, max_tokens
        self._network = Network(model, device)
        if self._network.config.num_labels != len(CRITERIA):
            raise MidtrainError(
                f"qurater {model}: it has {self._network.config.num_labels} outputs, not QuRating's {len(CRITERIA)} "
                f"({', '.join(CRITERIA)}); name it as a classifier, with its label"
            )
        self._output = list(CRITERIA).index(criterion)
        self.version = model_version(
            model, self._network.commit, criterion, max_tokens, code_version("rate.published", "rate.network", "rate.batching")
        )

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """float32 of shape (n,), on the scale of the model's logits; NaN for an empty text."""
        texts = documents["text"].to_list()
        tokens = self._network.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        windows = [
            (row, ids[start : start + self.max_tokens])
            for row, (text, ids) in enumerate(zip(texts, tokens, strict=True))
            for start in range(0, len(ids) if text.strip() else 0, self.max_tokens)
        ]
        logits = self._network.outputs([ids for _, ids in windows], self.max_tokens)[:, self._output]
        rows, lengths = np.array([row for row, _ in windows], dtype=np.int64), np.array([len(ids) for _, ids in windows])
        sums, whole = (np.bincount(rows, weights=w, minlength=len(texts)) for w in (logits * lengths, lengths))
        return rounded(np.divide(sums, whole, where=whole > 0, out=np.full(len(texts), np.nan)))
