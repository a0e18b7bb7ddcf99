"""The raters of a project: what scores documents, and how each was or is to be trained."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeGuard

from pydantic import Field, model_validator

from midtrain_dagster.settings import Settings

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="the column of the ratings; conditions say rate.<name>")]

PRESETS: dict[str, dict[str, float | int]] = {
    # arXiv 2406.11794: fastText's own defaults for a supervised model, with bigrams.
    "dclm": {"dim": 100, "lr": 0.1, "epoch": 5, "word_ngrams": 2, "min_count": 1, "bucket": 2_000_000},
    # arXiv 2405.03548, the recall of WebInstruct.
    "webinstruct": {"dim": 256, "lr": 0.1, "epoch": 3, "word_ngrams": 3, "min_count": 3, "bucket": 2_000_000},
}
"""Published hyper-parameters of fastText quality classifiers. Two million buckets of 100 floats are 0.8 GB of memory."""


class Examples(Settings):
    """Documents to learn from: those of the project that meet a condition, and those in files."""

    condition: str | None = Field(default=None, description="SQL condition over documents: source = 'openhermes'")
    files: tuple[Path, ...] = Field(default=(), description="JSONL or Parquet of documents, or text files with one a line")
    most: int = Field(default=200_000, description="at most so many, chosen by hash of seed and id", gt=0)

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.condition is None and not self.files:
            raise ValueError("give a condition, files or both")
        return self


class FastTextTraining(Settings):
    """Hyper-parameters of a supervised fastText model, by preset or one by one; the rest stays as here."""

    preset: Literal["dclm", "webinstruct"] | None = Field(
        default=None, description="published values for what is not given here"
    )
    dim: int = Field(default=100, description="size of the vectors", gt=0)
    lr: float = Field(default=0.1, description="learning rate at the start; it falls linearly to 0", gt=0)
    epoch: int = Field(default=5, description="passes over the examples", gt=0)
    word_ngrams: int = Field(default=2, description="longest word n-gram", ge=1)
    min_count: int = Field(default=1, description="rarest word that is kept", ge=1)
    bucket: int = Field(default=200_000, description="hash buckets of n-grams; each takes 4 × dim bytes", gt=0)
    held_out: float = Field(
        default=0.1, description="share of the examples that the model is judged on, by hash of the text", gt=0, lt=1
    )
    seed: int = Field(default=0, description="of fastText and of the split")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return {**PRESETS[values["preset"]], **values}
        return values


class FastTextRater(Settings):
    """Probability that a document is like the positives: a ready model, or one that is trained."""

    kind: Literal["fasttext"] = "fasttext"
    name: Name
    model: Path | None = Field(default=None, description="ready .bin or .ftz; null: train on positives and negatives")
    label: str | None = Field(
        default=None, description="the label whose probability is the score; null: ours, or the model's only sensible one"
    )
    positives: Examples | None = Field(default=None, description="what good documents look like")
    negatives: Examples | None = Field(default=None, description="what ordinary documents look like")
    training: FastTextTraining = Field(default=FastTextTraining(), description="hyper-parameters")

    @model_validator(mode="after")
    def _ready_or_trainable(self) -> Self:
        if (self.model is None) == (self.positives is None and self.negatives is None):
            raise ValueError("give either a ready model, or positives and negatives")
        if self.model is None and (self.positives is None or self.negatives is None):
            raise ValueError("training needs both positives and negatives")
        return self


class HeadTraining(Settings):
    """Training of a small head on frozen embeddings: FineWeb-Edu's values (arXiv 2406.17557)."""

    lr: float = Field(default=3e-4, description="learning rate of AdamW", gt=0)
    epochs: int = Field(default=20, description="passes over the scores", gt=0)
    batch: int = Field(default=256, description="texts, or pairs of texts, a step", gt=0)
    held_out: float = Field(default=0.1, description="share that the head is judged on, by hash of the text", gt=0, lt=1)
    seed: int = Field(default=0, description="of initial weights and order")


class EduRater(Settings):
    """Educational value from 0 to 5: the published classifier, or a head of one's own on a teacher's scores."""

    kind: Literal["edu"] = "edu"
    name: Name = "edu"
    model: str | None = Field(
        default="HuggingFaceFW/fineweb-edu-classifier", description="directory or hub name; null: a head of one's own"
    )
    annotations: int = Field(default=2_000, description="documents that the teacher scores, for a head of one's own", gt=0)
    training: HeadTraining = Field(default=HeadTraining(), description="of a head of one's own")
    max_tokens: int = Field(default=512, description="how much of a document is read", gt=0)


class QuRater(Settings):
    """One QuRating criterion (arXiv 2402.09739): by a head that learns from a teacher's choices between two texts, or published."""

    kind: Literal["qurater"] = "qurater"
    name: Name
    criterion: Literal["writing_style", "required_expertise", "facts_and_trivia", "educational_value"]
    model: str | None = Field(
        default=None, description="null: a head of one's own; or the published scorer: princeton-nlp/QuRater-1.3B, a directory"
    )
    pairs: int = Field(default=2_000, description="pairs that the teacher judges, each in both orders", gt=0)
    confidence: float = Field(default=0.5, description="pairs are learnt from where |2p − 1| is at least this", ge=0, lt=1)
    training: HeadTraining = Field(default=HeadTraining(), description="of a head of one's own")
    max_tokens: int = Field(default=512, description="window of the published scorer", gt=0)


class PerplexityRater(Settings):
    """Perplexity of the text under a reference model: lower is more like what that model has read."""

    kind: Literal["perplexity"] = "perplexity"
    name: Name = "perplexity"
    model: str = Field(description="directory or hub name of a causal language model; packaged: SmolLM2-135M-Instruct")
    max_tokens: int = Field(default=512, description="how much of a document is read", gt=1)


class DsirRater(Settings):
    """Log importance weight of a document for a target distribution over hashed n-grams (arXiv 2302.03169)."""

    kind: Literal["dsir"] = "dsir"
    name: Name = "dsir"
    target: Examples = Field(description="what the weights pull towards")
    raw: Examples = Field(description="what they pull away from: a fair sample of all that is rated")
    buckets: int = Field(default=10_000, description="hash buckets of unigrams and bigrams", gt=0)
    min_words: int = Field(default=100, description="shorter documents are not rated", ge=1)


class ClassifierRater(Settings):
    """Any sequence classifier of Hugging Face transformers."""

    kind: Literal["classifier"] = "classifier"
    name: Name
    model: str = Field(description="directory or hub name")
    label: str | None = Field(
        default=None, description="whose probability is the score; null: the only output, or the second of two"
    )
    max_tokens: int = Field(default=512, description="how much of a document is read", gt=0)


Rater = Annotated[
    FastTextRater | EduRater | QuRater | PerplexityRater | DsirRater | ClassifierRater, Field(discriminator="kind")
]
"""One entry of a project file's `raters:` list."""


def low_is_good(rater: Rater) -> bool:
    """Whether a low score is the better one."""
    return isinstance(rater, PerplexityRater)


Learning = FastTextRater | DsirRater | EduRater | QuRater
"""Those that may have to learn first."""


def learns(rater: Rater) -> TypeGuard[Learning]:
    """Whether a rater is trained on documents before it can rate any."""
    return isinstance(rater, DsirRater) or (isinstance(rater, FastTextRater | EduRater | QuRater) and rater.model is None)
