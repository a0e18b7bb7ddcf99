"""A sequence classifier of Hugging Face transformers: its outputs for tokens, in batches of like length."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.batching import length_buckets, padded


class Network:
    """`AutoModelForSequenceClassification` with its tokenizer, loaded once; safetensors alone."""

    def __init__(self, model: str, device: str = "cpu", batch_tokens: int = 16_384):
        """Load from a directory or, online, the hub. Raises MidtrainError when there is none."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
            network: Any = AutoModelForSequenceClassification.from_pretrained(model, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise MidtrainError(f"classifier {model}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
        self.model, self._network = model, network.to(device).eval()
        self._device, self._batch_tokens = device, batch_tokens
        self._filler = int(self.tokenizer.pad_token_id or 0)
        if self.config.pad_token_id is None:  # decoders look for the last token of a row, and need to know what is none
            self.config.pad_token_id = self._filler

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self._network.config

    @property
    def commit(self) -> str | None:
        """Which commit of the hub was loaded; None for a directory."""
        return getattr(self.config, "_commit_hash", None)

    def outputs(self, tokens: Sequence[Sequence[int]], most: int) -> np.ndarray:
        """Logits of token rows of `most` tokens each at most: float64 of shape (n, labels), NaN for a row without tokens."""
        import torch

        found = np.full((len(tokens), self.config.num_labels), np.nan)
        for rows, width in length_buckets([len(row) for row in tokens], self._batch_tokens):
            ids, mask = padded([tokens[row] for row in rows], min(width, most), self._filler)
            with torch.inference_mode():
                inputs, attention = torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)
                logits = self._network(input_ids=inputs, attention_mask=attention).logits
            found[rows] = logits.float().cpu().numpy()
        return found
