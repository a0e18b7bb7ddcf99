"""A tokenizer of whole words, and documents with known numbers of tokens."""

import random

import polars as pl
import pytest

from midtrain_dagster.documents import documents


@pytest.fixture(scope="session")
def word_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i + 3 for i in range(500)}
    backend = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "[UNK]": 1, "<|im_end|>": 2, **words}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", unk_token="[UNK]")


@pytest.fixture
def make_documents():
    """lengths (words) and components, by seed → documents with `component`, ids d0, d1, …"""

    def make(lengths: list[int], components: list[str], seed: int = 0) -> pl.DataFrame:
        rng = random.Random(seed)
        rows = [
            {"id": f"d{i}", "text": " ".join(f"w{rng.randrange(500)}" for _ in range(n)), "source": c}
            for i, (n, c) in enumerate(zip(lengths, components, strict=True))
        ]
        return documents(rows).with_columns(component=pl.col("source"))

    return make
