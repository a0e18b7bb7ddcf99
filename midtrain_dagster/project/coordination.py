"""Several raters, one score: the `coordinated:` section of a project file. Conditions say rate.<name>, as of any rater."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from midtrain_dagster.project.raters import Name
from midtrain_dagster.settings import Settings

Raters = Annotated[tuple[str, ...], Field(description="names of raters of this project", min_length=1)]
Edition = Annotated[int, Field(description="a higher number fits it anew on what has been rated by then", ge=1)]


class BucketMaximum(Settings):
    """The highest percentile bucket that any of the raters gives, 0 to buckets − 1 (Nemotron-CC, arXiv 2412.02595)."""

    kind: Literal["bucket_maximum"]
    name: Name = "coordinated"
    raters: Raters
    buckets: int = Field(default=20, description="each holds the same share of all characters", ge=2)
    edition: Edition = 1


class RankAggregate(Settings):
    """The mean rank over the raters, 0 lowest to 1 highest (Borda count)."""

    kind: Literal["rank_aggregate"]
    name: Name = "coordinated"
    raters: Raters
    edition: Edition = 1


class Intersection(Settings):
    """1 where every rater gives at least its threshold, else 0."""

    kind: Literal["intersection"]
    name: Name = "coordinated"
    at_least: dict[str, float] = Field(description="rater → lowest score that it must give", min_length=1)

    @property
    def raters(self) -> tuple[str, ...]:
        """Who is asked."""
        return tuple(self.at_least)


class LearntFromRuns(Settings):
    """Proxy runs that weights are learnt from: each trains a small model on the documents that its weights put first."""

    target: str = Field(description="SQL condition over documents: those whose loss is to fall, such as domain = 'math'")
    runs: int = Field(default=30, description="proxy runs, each with weights drawn uniformly on the simplex", ge=10)
    documents: int = Field(default=4_000, description="rated documents that runs choose from, by hash of seed and id", gt=0)
    share: float = Field(default=0.3, description="share of their tokens that a run trains on, best first", gt=0, lt=1)
    held_out: int = Field(
        default=64, description="documents of the target that the loss is measured on, and no run reads", gt=0
    )
    characters: int = Field(default=4_000, description="of each document, from its beginning", gt=0)
    vocabulary: int = Field(default=1_024, description="of the tokenizer that is trained for the runs", ge=257)
    sequence_length: int = Field(default=256, ge=16)
    layers: int = Field(default=2, ge=1)
    hidden: int = Field(default=64, ge=8)
    heads: int = Field(default=2, ge=1)
    batch_sequences: int = Field(default=8, ge=1)
    peak_learning_rate: float = Field(default=5e-3, gt=0)
    seed: int = 0


class WeightedSum(Settings):
    """Σ weight · z-score over the raters, with given weights or with learnt ones (Meta-rater, arXiv 2504.14194)."""

    kind: Literal["weighted_sum"]
    name: Name = "coordinated"
    weights: dict[str, float] = Field(default={}, description="rater → weight; perplexity's is below 0, since low is good")
    learnt: LearntFromRuns | None = Field(default=None, description="learn the weights of `over` from proxy runs instead")
    over: tuple[str, ...] = Field(default=(), description="raters whose weights are learnt")
    edition: Edition = 1

    @model_validator(mode="after")
    def _given_or_learnt(self) -> "WeightedSum":
        if bool(self.weights) == (self.learnt is not None):
            raise ValueError("give either weights, or learnt with over")
        if (self.learnt is not None) != bool(self.over):
            raise ValueError("over names the raters whose weights are learnt; give it with learnt, and only then")
        return self

    @property
    def raters(self) -> tuple[str, ...]:
        """Whose scores are summed."""
        return tuple(self.weights) or self.over


Coordination = Annotated[BucketMaximum | RankAggregate | Intersection | WeightedSum, Field(discriminator="kind")]
"""One entry of a project file's `coordinated:` list."""
