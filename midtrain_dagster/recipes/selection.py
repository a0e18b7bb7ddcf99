"""Which documents a recipe trains on: rules over what was measured, sampling, quotas, repetition.

Order of the steps, the same as the order of the fields below: sources, contamination, named quality rulesets, rules, rating
thresholds (each a verdict on one document alone, blind to the rest of the table), then duplicates among those that passed,
down-sampling, temperature sampling, quotas, and repetitions of what is kept. The first step that a document fails is its
reason.

**Conditions** are DuckDB expressions over one document, without subqueries, aggregates or anything that leaves the row:

    document.X or X     a column of the documents: source, domain, format, language, url, license, characters, tokens, …
    signal.X or X       a quality signal: words, symbol_ratio, …
    rate.X              a rater's score: rate.edu >= 2.5
    cluster.X           a duplicate cluster's name
    match.score         the highest contamination score of the document over all questions (0 where nothing matched)
    match.questions     how many questions matched

A bare name is the document's own column where there is one, else the one attribute that has it; two that have it is an error. A
condition over something that was not measured on this very text is neither true nor false: the rule's `unmeasured` decides, and
the reason says so.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from midtrain_dagster.settings import Settings

Survivor = Literal["preferred_source", "best_rated", "longest"]
Unit = Literal["documents", "tokens", "characters"]
Passage = Literal["lines", "paragraphs"]


class Rule(Settings):
    """Documents that do not meet a condition are left out, under the rule's name."""

    name: str = Field(description="the reason that a left-out document carries", min_length=1)
    keep: str = Field(description="condition that a document must meet", min_length=1)
    where: str | None = Field(default=None, description="the rule concerns only documents that surely meet this; null: all")
    unmeasured: Literal["drop", "keep"] = Field(
        default="drop", description="what becomes of a document on which `keep` has no answer"
    )


class Threshold(Settings):
    """Bounds on one rater's score, both included."""

    at_least: float | None = Field(default=None, description="lowest score kept")
    at_most: float | None = Field(default=None, description="highest score kept")
    unmeasured: Literal["drop", "keep"] = Field(default="drop", description="what becomes of a document without this rating")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        return self


class Sources(Settings):
    """Whose documents are considered at all."""

    include: tuple[str, ...] | None = Field(default=None, description="only these sources; null: every source")
    exclude: tuple[str, ...] = Field(default=(), description="never these sources")


class Contamination(Settings):
    """Documents that hold a benchmark question are left out."""

    score: float = Field(default=0.5, description="leave out at this matching score or above; lower is stricter", gt=0)


class Deduplication(Settings):
    """One document of each duplicate cluster survives, among those that passed everything before; repeated passages may be cut."""

    by: tuple[str, ...] = Field(
        default=("exact", "near"), description="columns of clusters; a null there: no duplicate", min_length=1
    )
    survivor: tuple[Survivor, ...] = Field(default=("longest",), description="what counts, most important first; ties go by id")
    rater: str | None = Field(default=None, description="the rating that best_rated goes by")
    preferred_sources: tuple[str, ...] = Field(
        default=(), description="order of sources for preferred_source; unnamed ones come last"
    )
    cut: tuple[Passage, ...] = Field(
        default=(),
        description="what a source repeats (`deduplication.repeated` of the project) goes out of its documents, all but the first "
        "occurrence; code is left as it is",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if "best_rated" in self.survivor and self.rater is None:
            raise ValueError("survivor best_rated needs rater")
        if "preferred_source" in self.survivor and not self.preferred_sources:
            raise ValueError("survivor preferred_source needs preferred_sources")
        return self


class DownSample(Settings):
    """A fixed share of some documents, chosen by a hash of seed, name and id: no other document changes who is chosen."""

    name: str = Field(default="down_sample", description="the reason that a left-out document carries")
    where: str | None = Field(default=None, description="which documents; null: all")
    fraction: float = Field(description="share kept", ge=0, le=1)


class Temperature(Settings):
    """Sampling without replacement with probability ∝ exp(z/τ), z the standardised rating: QuRating (arXiv 2402.09739).

    Done as Gumbel top-k: the highest z/τ + g are kept, g = −ln(−ln u), u a hash of seed and id (Kool et al., arXiv 1903.06059).
    """

    rater: str = Field(description="the rating to go by")
    temperature: float = Field(default=2.0, description="τ: 0 takes the best, large ignores the rating", ge=0)
    mean: float | None = Field(default=None, description="of the rating; null: of the candidates' (new sources then shift it)")
    deviation: float | None = Field(default=None, description="of the rating; null: of the candidates'", gt=0)
    by: str | None = Field(
        default=None, description="expression; the budget holds for each of its values, e.g. document.domain"
    )
    tokens: int | None = Field(default=None, description="budget in tokens", gt=0)
    documents: int | None = Field(default=None, description="budget in documents", gt=0)
    fraction: float | None = Field(default=None, description="budget as a share of the candidates", gt=0, le=1)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if sum(budget is not None for budget in (self.tokens, self.documents, self.fraction)) != 1:
            raise ValueError("give exactly one of tokens, documents, fraction")
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("give mean and deviation together")
        return self


class Quota(Settings):
    """At most so much per value of an expression: a domain, a language, a source, a cluster."""

    name: str = Field(default="quota", description="the reason that a left-out document carries")
    by: str = Field(description="expression whose values have a quota each, e.g. document.domain")
    unit: Unit = Field(default="documents", description="what is counted")
    limits: dict[str, int] = Field(default={}, description="quota of a value; overrides limit")
    limit: int | None = Field(default=None, description="quota of every other value; null: none", ge=0)
    best: str | None = Field(default=None, description="expression: highest first, e.g. rate.edu; null: by hash of seed and id")

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.limit is None and not self.limits:
            raise ValueError("give limit, limits or both")
        return self


class UpSample(Settings):
    """Some documents are seen more than once."""

    where: str = Field(description="which documents")
    repetitions: float = Field(description="how often on average: 2.5 is twice or thrice, by hash of seed and id", ge=1)


class Selection(Settings):
    """What a recipe keeps of the documents that were collected, and how often it shows them."""

    sources: Sources = Field(default=Sources(), description="whose documents")
    contamination: Contamination | None = Field(default=None, description="benchmark questions; null: not looked at")
    quality: tuple[str, ...] = Field(default=(), description="names of quality rulesets, such as gopher or c4")
    rules: tuple[Rule, ...] = Field(default=(), description="conditions, in order")
    ratings: dict[str, Threshold] = Field(default={}, description="thresholds by rater; the reason is rate.<rater>")
    deduplication: Deduplication | None = Field(default=None, description="duplicates; null: all are kept")
    down_sample: tuple[DownSample, ...] = Field(default=(), description="shares of some documents")
    temperature: Temperature | None = Field(default=None, description="sampling by rating; null: none")
    quotas: tuple[Quota, ...] = Field(default=(), description="caps per value, in order")
    up_sample: tuple[UpSample, ...] = Field(default=(), description="repetitions; where several apply, the largest")
    max_repetition: int = Field(
        default=4, description="cap on repetitions; up to four epochs cost little (arXiv 2305.16264)", ge=1
    )

    @model_validator(mode="after")
    def _distinct_reasons(self) -> Self:
        names = [rule.name for rule in self.rules] + [s.name for s in self.down_sample] + [quota.name for quota in self.quotas]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two steps share the name {', '.join(twice)}; a reason must tell which step it was")
        return self
