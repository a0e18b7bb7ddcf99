"""What a run trains on, and in which order: components, shares of the token budget, stages, and how sequences are packed."""

from typing import Literal

from pydantic import Field, model_validator

from midtrain_dagster.settings import Settings


class Component(Settings):
    """One ingredient of the mixture: the documents that a condition selects."""

    name: str = Field(description="What the mixture calls it; unique.", min_length=1)
    where: str | None = Field(
        default=None,
        description="SQL condition over the columns of documents and attributes, e.g. `domain = 'math' and quality_score > 2`. "
        "The first component whose condition holds takes a document. None: its source, domain or format is called `name`.",
    )
    share: float | None = Field(
        default=None,
        description="Share of the token budget (method `fixed`). Components without one divide the rest by their tokens.",
        ge=0,
        le=1,
    )
    general: bool = Field(default=False, description="General text, that keeps what the base model knows.")
    max_repetition: float | None = Field(default=None, description="Most passes over its documents; None: the mixture's.", gt=0)


class Stage(Settings):
    """A part of the curriculum: it takes a fraction of the budget and may have shares of its own."""

    name: str = Field(description="What reports call it.", min_length=1)
    fraction: float = Field(description="Fraction of the token budget.", gt=0, le=1)
    shares: dict[str, float] = Field(
        default_factory=dict,
        description="Share of each component in this stage (missing: 0). Empty: the mixture's.",
    )
    transition: Literal["step", "linear"] = Field(
        default="step",
        description="`step`: these shares from its first sequence. `linear`: shares move in a straight line from those before "
        "to these, which hold at its end.",
    )

    document_length: int | None = Field(
        default=None,
        description="Tokens of the longest piece of a document in this stage; None: the sequence length. Documents of one sequence "
        "never see each other, so this is the context that the stage trains at.",
        ge=16,
    )

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> "Stage":
        if self.shares and (min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-6):
            raise ValueError(f"shares of stage {self.name} must be at least 0 and sum to 1, not {sum(self.shares.values()):g}")
        return self


class LanguageQuota(Settings):
    """Bounds on one language's share of the whole budget."""

    minimum: float = Field(default=0.0, description="Least share of the budget.", ge=0, le=1)
    maximum: float = Field(default=1.0, description="Largest share of the budget.", ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "LanguageQuota":
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} exceeds maximum {self.maximum:g}")
        return self


class Mixture(Settings):
    """How the token budget is divided."""

    method: Literal["fixed", "natural", "temperature", "unimax"] = Field(
        default="fixed",
        description="`fixed`: the components' shares. `natural`: by their tokens. `temperature`: by tokens^(1/temperature). "
        "`unimax`: equal budgets, none repeated more often than its cap (arXiv 2304.09151).",
    )
    budget_tokens: int | None = Field(
        default=None,
        description="Tokens, end-of-text tokens included. None: the most without repetition.",
        gt=0,
    )
    temperature: float = Field(default=2.0, description="Flattens natural shares; 1 leaves them, large makes them equal.", gt=0)
    components: list[Component] = Field(
        default_factory=list, description="The ingredients, first match wins. Empty: one for each value of `component_column`."
    )
    component_column: str = Field(default="source", description="Column that names the component where `components` is empty.")
    minimum_general_share: float = Field(default=0.0, description="Least share of the components marked `general`.", ge=0, le=1)
    max_repetition: float = Field(
        default=4.0,
        description="Most passes over a component's documents; to about four they are nearly as good as new (2305.16264).",
        gt=0,
    )
    language_quotas: dict[str, LanguageQuota] = Field(
        default_factory=dict, description="Bounds on languages' shares of the budget, by ISO 639-1 code."
    )
    stages: list[Stage] = Field(default_factory=list, description="Curriculum, in order; empty: one stage.")
    transition_steps: int = Field(default=8, description="In how many equal steps a linear transition is realised.", ge=1)
    seed: int = Field(default=0, description="Which documents are taken where not all are.", ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "Mixture":
        names = [c.name for c in self.components]
        if len(set(names)) < len(names):
            raise ValueError(f"component names must be unique: {', '.join(sorted(n for n in names if names.count(n) > 1))}")
        if self.stages and abs(sum(s.fraction for s in self.stages) - 1) > 1e-6:
            raise ValueError(f"fractions of the stages must sum to 1, not {sum(s.fraction for s in self.stages):g}")
        unknown = {name for stage in self.stages for name in stage.shares if names and name not in names}
        if unknown:
            raise ValueError(f"stages name components that do not exist: {', '.join(sorted(unknown))}")
        shares = [c.share for c in self.components if c.share is not None]
        if sum(shares) > 1 + 1e-6 or (shares and len(shares) == len(names) and abs(sum(shares) - 1) > 1e-6):
            raise ValueError(f"shares of the components must sum to 1, not {sum(shares):g}")
        return self


class Packing(Settings):
    """How documents become sequences of one length."""

    sequence_length: int = Field(default=4096, description="Tokens in a sequence.", ge=2)
    method: Literal["best_fit", "concatenate"] = Field(
        default="best_fit",
        description="`best_fit`: documents whole, in the sequence with the least room that holds them (arXiv 2404.10830). "
        "`concatenate`: one after another, cut where a sequence ends.",
    )
    max_padding: float = Field(
        default=0.005,
        description="best_fit cuts documents only where padding would exceed this share.",
        ge=0,
        le=1,
    )
    mask_prompts: bool = Field(
        default=False,
        description="Leave prompts out of the loss: the characters that a document's metadata names as `prompt_characters` "
        "(a count from its beginning, or a list of [start, end]).",
    )
    parse_special_tokens: bool = Field(
        default=False,
        description="Read `<|im_start|>` and the like in a text as the token of that name, not as text.",
    )
    seed: int = Field(default=0, description="Order of the sequences.", ge=0)
