"""What a model does with a long context: finds a number hidden in it, and predicts late tokens better than early ones.

Both are one forward pass a sequence: a greedy answer is right exactly where every token of it is the most likely one given those
before, so nothing needs to be generated. Run them on the model before and after a stage.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midtrain_dagster.errors import MidtrainError

FILLER = (
    "The grass is green and the sky is blue. ",
    "The road goes up the hill and down again. ",
    "A cat sleeps on the warm stones of the wall. ",
    "Rain fell in the night, and the river is high. ",
    "The baker opens his shop before the sun is up. ",
)
NEEDLE = "The pass key is {key}. Remember it: {key} is the pass key. "
QUESTION = "\nWhat is the pass key? The pass key is"


@dataclass(frozen=True)
class Prompt:
    """Tokens up to and with the answer; the last `answer` of them are the answer."""

    tokens: np.ndarray
    answer: int
    depth: float


def passkey_prompt(encode: Callable[[str], Sequence[int]], length: int, depth: float, key: str, seed: int = 0) -> Prompt:
    """A prompt of at most `length` tokens, nearly filled, with the needle after the share `depth` of the filler (2305.16300).

    Sentences of filler are drawn by `seed`. Raises MidtrainError where question and needle alone do not fit.
    """
    needle, question, answer = (list(encode(text)) for text in (NEEDLE.format(key=key), QUESTION, f" {key}"))
    sentences = [list(encode(sentence)) for sentence in FILLER]
    room = length - len(needle) - len(question) - len(answer)
    if room < 0:
        raise MidtrainError(f"passkey: {length} tokens do not hold needle and question; take at least {length - room}")
    random = np.random.default_rng(seed)
    chosen: list[list[int]] = []
    while room >= len(drawn := sentences[random.integers(len(sentences))]):
        chosen.append(drawn)
        room -= len(drawn)
    place = round(depth * len(chosen))
    before, after = ([token for sentence in part for token in sentence] for part in (chosen[:place], chosen[place:]))
    return Prompt(np.array(before + needle + after + question + answer, dtype=np.int64), len(answer), depth)


def passkey(
    model: Any, encode: Callable[[str], Sequence[int]], lengths: Sequence[int], depths: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    trials: int = 3, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """How often `model` (loaded by `models.load_model`) completes the number hidden at each length and depth.

    One row a length and depth: `length`, `depth`, `trials`, `found` (share answered exactly), `loss` (nats a token of the answer).
    The numbers have five digits and are the same for every model with one seed.
    """
    import torch

    model.eval()
    rows = []
    for length in lengths:
        for depth in depths:
            random = np.random.default_rng([seed, length, round(depth * 1000)])
            right, loss = 0, 0.0
            for trial in range(trials):
                prompt = passkey_prompt(encode, length, depth, str(random.integers(10_000, 100_000)), seed + trial)
                tokens = torch.from_numpy(prompt.tokens)[None].to(model.device)
                with torch.no_grad():
                    logits = model(input_ids=tokens[:, :-1], logits_to_keep=prompt.answer, use_cache=False).logits[0].float()
                wanted = tokens[0, -prompt.answer :]
                right += int((logits.argmax(dim=1) == wanted).all())
                loss += float(torch.nn.functional.cross_entropy(logits, wanted))
            rows.append({"length": length, "depth": depth, "trials": trials, "found": right / trials, "loss": loss / trials})
    return rows


def before_and_after(base: Path, trained: Path, lengths: Sequence[int], seed: int = 0) -> list[dict[str, Any]]:
    """`passkey` of two model directories with one tokenizer: a row a length and depth, `found` and `loss` of both.

    Lengths that needle and question alone exceed are left out.
    """
    from transformers import AutoTokenizer

    from midtrain_dagster.train.models import load_model
    from midtrain_dagster.train.ranks import Ranks

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    least = sum(len(encode(text)) for text in (NEEDLE.format(key="10000"), QUESTION, " 10000")) + 8
    lengths = [length for length in lengths if length >= least]
    sides = []
    for model in (base, trained):
        loaded = load_model(model, "sdpa", Ranks.alone().device)
        sides.append(passkey(loaded, encode, lengths, depths=(0.1, 0.5, 0.9), trials=2, seed=seed))
        del loaded
    return [
        {
            "length": before["length"], "depth": before["depth"], "trials": before["trials"],
            "found before": before["found"], "found after": after["found"],
            "loss before": before["loss"], "loss after": after["loss"],
        }
        for before, after in zip(*sides, strict=True)
    ]  # fmt: skip


def position_loss(model: Path, sequences: Path, micro: int = 1, limit: int | None = None) -> dict[int, float]:
    """Loss by position in the document, nats a token, in bins [1, 2), [2, 4), … keyed by their lower bound.

    On documents that fill the context, a model that uses it has a loss that falls to the last bin. The same numbers are in every
    validation of a training (`validations[…].sets[…].positions`); this is for a model that is not being trained.
    """
    from midtrain_dagster.sequences import Sequences
    from midtrain_dagster.train.models import load_model
    from midtrain_dagster.train.objective import Objective
    from midtrain_dagster.train.ranks import Ranks
    from midtrain_dagster.train.validation import validate

    ranks, data = Ranks.alone(), Sequences.open(sequences)
    loaded = load_model(model, "flex" if ranks.device.type == "cuda" else "documents", ranks.device).eval()
    found = validate(Objective(loaded, 1), data, ranks, micro, limit)
    return {int(lower): loss for lower, loss in found["positions"].items()}
