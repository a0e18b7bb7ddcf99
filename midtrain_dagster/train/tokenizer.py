"""A small byte-level BPE tokenizer, trained on given texts: for models made from scratch and for proxies.

With 4,096 tokens in place of 49,152 a tiny model trains five times as fast, since nearly all its work is the output layer.
"""

from collections.abc import Iterable
from pathlib import Path

from midtrain_dagster.errors import MidtrainError

END = "<|endoftext|>"
"""Token 0: it ends a document, pads, and begins nothing."""
LEAST = 257
"""Every byte and END: any text can be written."""


def train_tokenizer(texts: Iterable[str], vocabulary: int, out: Path) -> int:
    """Train on `texts` in their order and save to `out` as transformers loads it; returns the tokens it has.

    Equal texts give an equal tokenizer. Fewer texts than the vocabulary needs give fewer tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocabulary < LEAST:
        raise MidtrainError(f"a byte-level vocabulary has at least {LEAST} tokens, not {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    out.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(out)
    return int(tokenizer.get_vocab_size())
