"""Models of a few weights, for raters that load one."""

from pathlib import Path


def save_models(root: Path, seed: int = 0) -> None:
    """A language model, a classifier, and a regression as FineWeb-Edu's is laid out, over four words, with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(seed)
    inner = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "the": 2, "Notebook": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=4, max_position_embeddings=32, **sizes)).save_pretrained(root / "language")
    for name, labels in (("classifier", 2), ("published", 1)):
        bert = BertConfig(vocab_size=4, max_position_embeddings=32, num_labels=labels, **sizes)
        BertForSequenceClassification(bert).save_pretrained(root / name)
    for name in ("language", "classifier", "published"):
        tokenizer.save_pretrained(root / name)
