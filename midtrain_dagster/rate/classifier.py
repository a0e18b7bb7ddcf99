"""Any sequence classifier of Hugging Face transformers as a rater; the published FineWeb-Edu classifier is one of them."""

from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.batching import length_buckets, model_version, padded, rounded

FINEWEB_EDU = "HuggingFaceFW/fineweb-edu-classifier"


class Classifier:
    """Scores with `AutoModelForSequenceClassification`: a regression's value, or the probability of a label."""

    def __init__(
        self,
        name: str,
        model: str,
        label: str | None = None,
        max_tokens: int = 512,
        device: str = "cpu",
        batch_tokens: int = 16_384,
    ):
        """Load a model from a directory or, online, the hub; safetensors alone.

        Raises MidtrainError when there is none, or when it has several labels and none is named.
        """
        self.name, self.max_tokens, self._device, self._batch_tokens = name, max_tokens, device, batch_tokens
        self._tokenizer, self._model = _load(model, device)
        self._output = _output(self._model.config, label, model)
        commit = getattr(self._model.config, "_commit_hash", None)
        self.version = model_version(model, commit, self._output, max_tokens)

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """float32 of shape (n,): the raw value of a one-output model (FineWeb-Edu: about 0 to 5), else a probability.

        NaN for an empty text. The text is cut at `max_tokens`.
        """
        import torch

        texts = documents["text"].to_list()
        scores = np.full(len(texts), np.nan)
        tokens = self._tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []
        lengths = [len(ids) if text.strip() else 0 for ids, text in zip(tokens, texts, strict=True)]
        for rows, width in length_buckets(lengths, self._batch_tokens):
            ids, mask = padded([tokens[row] for row in rows], min(width, self.max_tokens), self._tokenizer.pad_token_id or 0)
            with torch.inference_mode():
                inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
                logits = self._model(**{key: value.to(self._device) for key, value in inputs.items()}).logits.float()
            if self._output is None:
                scores[rows] = logits[:, 0].cpu().numpy()
            else:
                scores[rows] = torch.softmax(logits, dim=-1)[:, self._output].cpu().numpy()
        return rounded(scores)


def _load(model: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModelForSequenceClassification.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise MidtrainError(f"classifier {model}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    return tokenizer, network.to(device).eval()


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
