"""How laws are fitted to small runs, and what a plan must achieve."""

from typing import Literal

from pydantic import Field

from midtrain_dagster.settings import Settings

FormName = Literal["auto", "d_cpt", "cmr", "chinchilla_start", "annealing", "bimix", "exponential", "adaptation"]
MethodName = Literal[
    "natural", "temperature", "unimax", "microanneal", "regmix", "regmix_linear", "mixing_law", "bimix", "doremi", "olmix",
    "d_cpt", "cmr", "quadratic_sqrt", "stack",
]  # fmt: skip


class LawFit(Settings):
    """How a law is fitted."""

    form: FormName = Field(
        default="auto", description="Which law; `auto` takes the one that predicts left-out shares (or sizes) best."
    )
    huber_delta: float = Field(default=1e-3, description="Where the Huber loss on log loss turns linear (2203.15556).", gt=0)
    starts: int = Field(default=40, description="Random starts of L-BFGS.", ge=1)
    bootstrap: int = Field(default=100, description="Refits on resampled residuals, for intervals.", ge=0)
    interval: float = Field(default=0.9, description="Coverage of the intervals.", gt=0, lt=1)
    seed: int = Field(default=0, description="Of starts and resampling.", ge=0)


class Goal(Settings):
    """What a plan must achieve; `scaling_plan` finds the cheapest share, tokens and size that do."""

    maximum_domain_loss: float | None = Field(default=None, description="Domain loss at most this, in nats.")
    maximum_general_rise: float | None = Field(
        default=None, description="General loss above the start's by at most this, in nats."
    )
    maximum_tokens: float | None = Field(
        default=None, description="At most so many tokens (or steps, as the runs count).", gt=0
    )
    sizes: list[float] = Field(default_factory=list, description="Model sizes to consider; empty: those of the runs.")
    confidence: float = Field(
        default=0.5, description="Probability, by bootstrap, with which each bound must hold.", gt=0, lt=1
    )


class Shape(Settings):
    """A proxy model: a small Llama from random weights."""

    layers: int = Field(default=2, description="Blocks.", ge=1)
    hidden: int = Field(default=128, description="Width; a multiple of `heads`.", ge=8)
    heads: int = Field(default=4, description="Attention heads.", ge=1)


class Proxy(Settings):
    """How a proxy run is trained. What decides a mixture is compared at the most tokens and the first shape; fewer tokens and
    other shapes tell the law how loss depends on them."""

    tokens: list[int] = Field(
        default=[8192, 20480], description="Tokens that a run trains on; the largest for every mixture.", min_length=1
    )
    shapes: list[Shape] = Field(
        default_factory=lambda: [Shape()], description="Models; the first for every mixture.", min_length=1
    )
    ladder: int = Field(
        default=4, description="So many of the mixtures are also run at the other numbers of tokens and shapes.", ge=0
    )
    vocabulary: int = Field(
        default=2048,
        description="Of the tokenizer, trained on the recipe's own documents: small models are mostly output layer.",
        ge=257,
    )
    sequence_length: int = Field(default=128, description="Tokens in a sequence.", ge=16)
    batch_sequences: int = Field(default=4, description="Sequences in a step.", ge=1)
    peak_learning_rate: float = Field(
        default=3e-3, description="Warmed up over a tenth, decayed to 0 over the last half.", gt=0
    )
    documents: int = Field(default=2000, description="Most documents of each component that runs draw from, by hash.", ge=1)
    max_repetition: float = Field(
        default=4.0, description="Most passes over a component's documents in a run; larger shares are not tried.", gt=0
    )


class Microanneal(Settings):
    """A proxy is trained on the recipe's mixture at a constant rate; from there, short anneals try one ingredient each."""

    share: float = Field(
        default=0.35,
        description="Share of the tokens of an anneal that its ingredient takes from the recipe's mixture.",
        gt=0,
        lt=1,
    )
    tokens: int | None = Field(default=None, description="Tokens of an anneal; None: half of those of a proxy run.", gt=0)


class DoReMi(Settings):
    """A proxy whose domain weights rise where its loss is above that of a reference trained on the recipe's mixture."""

    step_size: float = Field(default=1.0, description="η: how far a step's excess loss moves the weights.", gt=0)
    smoothing: float = Field(default=1e-3, description="c: part of the uniform weights that is mixed in.", ge=0, lt=1)


class Scaling(Settings):
    """Proxy runs, laws and the plan."""

    law: LawFit = Field(default_factory=lambda: LawFit(starts=12, bootstrap=40), description="How laws are fitted.")
    goal: Goal = Field(default_factory=Goal, description="What the plan must achieve.")
    proxy: Proxy = Field(default_factory=Proxy, description="How proxy runs are trained.")
    proxy_mixtures: int = Field(default=8, description="Mixtures tried by proxy runs.", ge=4)
    held_out: int = Field(default=2, description="Further mixtures that no fit sees.", ge=0)
    repeats: int = Field(
        default=2,
        description="Runs of the recipe's own mixture, and of the proposal, with other seeds: their spread is the noise.",
        ge=2,
    )
    concentration: tuple[float, float] = Field(
        default=(0.5, 5.0), description="Range of the Dirichlet strength, drawn log-uniformly (2407.01492)."
    )
    method: MethodName = Field(
        default="olmix",
        description="How shares are found; whatever it proposes is then trained beside the recipe's own mixture. Without runs of "
        "its own: `natural`, `temperature`, `unimax`. A regression of losses on shares: `regmix` (2407.01492; boosted trees), "
        "`regmix_linear`, `mixing_law` (2403.16952), `bimix` (2405.14908), `olmix` (2602.12237), `quadratic_sqrt`, `stack`. "
        "A law of general against target share: `d_cpt` (2406.01375), `cmr` (2407.17467). With runs of its own: `microanneal` "
        "(2501.00656), `doremi` (2305.10429).",
    )
    kl: float = Field(
        default=0.05,
        description="Weight of the divergence from the recipe's mixture in the proposal of `olmix`, `quadratic_sqrt` and `stack`.",
        ge=0,
    )
    microanneal: Microanneal = Field(default_factory=Microanneal, description="Runs of method `microanneal`.")
    doremi: DoReMi = Field(default_factory=DoReMi, description="The run of method `doremi`.")
    target_weight: float = Field(
        default=0.5, description="Weight of the target domains' mean loss; the general domains' has the rest.", ge=0, le=1
    )
    use_plan: bool = Field(
        default=False,
        description="Mix what the plan recommends, where the data supports a change. False: the plan is shown, not taken.",
    )
    seed: int = Field(default=0, description="Of the design.", ge=0)
