"""fastText classifiers (arXiv 1607.01759): the probability that a text is like the positives.

The set-ups are those of DataComp-LM (arXiv 2406.11794) and WebInstruct (arXiv 2405.03548); training is single-threaded and
seeded, so equal examples give equal bytes.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import FastTextTraining
from midtrain_dagster.rate.held_out import HeldOut, is_held_out, judge

POSITIVE, NEGATIVE = "__label__positive", "__label__negative"
NEGATIVE_LABELS = {NEGATIVE, "__label__cc", "__label__0", "__label__lq", "__label__neg", "__label__low"}
BREAKS = re.compile("[ \t\n\r\v\f\0]+")  # what fastText itself splits at


class TrainedFastText(NamedTuple):
    """A model on disk and how it does on examples that were kept from it."""

    path: Path
    version: str  # hash of the model's bytes
    trained_on: int
    held_out: HeldOut


class FastText:
    """A rater from a fastText model file."""

    def __init__(self, name: str, path: Path, label: str | None = None):
        """Load `path` (.bin or .ftz). `label` is the one whose probability is the score; by default `__label__positive`, or
        of two labels the one that is not a known name for the negatives. Raises MidtrainError when that is not clear.
        """
        self.name = name
        self._model = _load(path)
        self._label = _label(self._model.get_labels(), label, path)
        about = f"{self._label}:{code_version('rate.fasttext')}"
        self.version = blake2b(path.read_bytes() + about.encode(), digest_size=8).hexdigest()

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """Probabilities in [0, 1]; NaN for a text without a single word."""
        scores = np.full(len(documents), np.nan, dtype=np.float32)
        for row, text in enumerate(documents["text"].to_list()):
            line = one_line(text)
            if line:
                labels, chances = self._model.predict(line, k=-1, on_unicode_error="replace")
                found = dict(zip(labels, chances, strict=True))
                scores[row] = min(max(found.get(self._label, 0.0), 0.0), 1.0)  # fastText's softmax may end at 1.00001
        return scores


def one_line(text: str) -> str:
    """The text as fastText takes it: one line, without anything that it would read as a label or as the line's end."""
    line = BREAKS.sub(" ", text).strip().encode("utf-8", "replace").decode()
    return line.replace("__label__", "label").replace("</s>", "s")


def train(positives: Sequence[str], negatives: Sequence[str], settings: FastTextTraining, out: Path) -> TrainedFastText:
    """Train on two lists of texts, judge on the held-out share of both, write the model to `out`.

    Raises MidtrainError when a side has no example to train on or none to be judged on.
    """
    sides = {POSITIVE: positives, NEGATIVE: negatives}
    kept_out = {
        label: [is_held_out(text, settings.held_out, settings.seed) for text in texts] for label, texts in sides.items()
    }
    for label, texts in sides.items():
        held = sum(kept_out[label])
        if held == 0 or held == len(texts):
            name = label.removeprefix("__label__")
            raise MidtrainError(f"fastText: {len(texts)} {name} examples are too few to train on some and be judged on others")
    lines = [
        f"{label} {one_line(text)}"
        for label, texts in sides.items()
        for text, held in zip(texts, kept_out[label], strict=True)
        if not held
    ]
    order = np.random.default_rng(settings.seed).permutation(len(lines))  # one learns from a mixture, not from one side first
    _fit([lines[n] for n in order], settings, out)
    rater = FastText("held_out", out, POSITIVE)
    judged = [
        (text, label == POSITIVE)
        for label, texts in sides.items()
        for text, held in zip(texts, kept_out[label], strict=True)
        if held and one_line(text)
    ]
    frame = pl.DataFrame({"id": [str(n) for n in range(len(judged))], "text": [text for text, _ in judged]})
    report = judge(rater.score(frame), np.array([positive for _, positive in judged]))
    return TrainedFastText(out, rater.version, len(lines), report)


def _fit(lines: Sequence[str], settings: FastTextTraining, out: Path) -> None:
    import fasttext

    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as directory:
        examples = Path(directory) / "examples.txt"
        examples.write_text("\n".join(lines) + "\n", encoding="utf-8")
        model = fasttext.train_supervised(
            input=str(examples),
            dim=settings.dim,
            lr=settings.lr,
            epoch=settings.epoch,
            wordNgrams=settings.word_ngrams,
            minCount=settings.min_count,
            bucket=settings.bucket,
            thread=1,
            seed=settings.seed,
            verbose=0,
        )
        written = Path(directory) / "model.bin"
        model.save_model(str(written))
        written.replace(out)


def _load(path: Path) -> Any:
    import fasttext

    if not path.is_file():
        raise MidtrainError(f"{path}: there is no such fastText model")
    try:
        return fasttext.load_model(str(path))
    except ValueError as error:
        raise MidtrainError(f"{path}: not a fastText model: {error}") from None


def _label(labels: Sequence[str], wanted: str | None, path: Path) -> str:
    if wanted is not None:
        for label in (wanted, f"__label__{wanted}"):
            if label in labels:
                return label
        raise MidtrainError(f"{path}: no label {wanted}; there are: {', '.join(sorted(labels))}")
    if POSITIVE in labels:
        return POSITIVE
    others = [label for label in labels if label not in NEGATIVE_LABELS]
    if len(labels) == 2 and len(others) == 1:
        return others[0]
    raise MidtrainError(f"{path}: which label is the score? Name one of {', '.join(sorted(labels))}")
