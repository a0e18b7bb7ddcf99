"""Perplexity under a reference model, as CCNet (arXiv 1911.00359) rates web text."""

from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.batching import length_buckets, model_version, padded, rounded


class Perplexity:
    """exp of the mean negative log-likelihood, in nats per token, of a text's tokens after the first."""

    def __init__(self, name: str, model: str, max_tokens: int = 512, device: str = "cpu", batch_tokens: int = 4096):
        """Load a causal language model from a directory or, online, the hub; safetensors alone."""
        self.name, self.max_tokens, self._device, self._batch_tokens = name, max_tokens, device, batch_tokens
        self._tokenizer, self._model = _load(model, device)
        self.version = model_version(
            model,
            getattr(self._model.config, "_commit_hash", None),
            max_tokens,
            code_version("rate.perplexity", "rate.batching"),
        )

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """float32 of shape (n,), at least 1; NaN for a text of fewer than two tokens. The text is cut at `max_tokens`.

        Where the tokenizer has a beginning-of-sequence token that it puts first, the first real token counts as well.
        """
        import torch

        texts = documents["text"].to_list()
        scores = np.full(len(texts), np.nan)
        tokens = self._tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []
        lengths = [len(ids) if len(ids) > 1 else 0 for ids in tokens]
        for rows, width in length_buckets(lengths, self._batch_tokens):
            ids, mask = padded([tokens[row] for row in rows], min(width, self.max_tokens), 0)
            with torch.inference_mode():
                inputs, attention = torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)
                logits = self._model(input_ids=inputs, attention_mask=attention).logits[:, :-1].float()
                loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), inputs[:, 1:], reduction="none")
                target = attention[:, 1:]
                mean = (loss * target).sum(dim=1) / target.sum(dim=1)
            scores[rows] = np.exp(mean.double().cpu().numpy())
        return rounded(scores)


def _load(model: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        network: Any = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise MidtrainError(f"reference model {model}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    return tokenizer, network.to(device).eval()
