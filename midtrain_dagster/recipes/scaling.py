"""How laws are fitted to small runs, and what a plan must achieve."""

from typing import Literal

from pydantic import Field

from midtrain_dagster.settings import Settings

FormName = Literal["auto", "d_cpt", "cmr", "chinchilla_start", "annealing", "exponential", "adaptation"]


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


class Scaling(Settings):
    """Proxy runs, laws and the plan."""

    law: LawFit = Field(default_factory=LawFit, description="How laws are fitted.")
    goal: Goal = Field(default_factory=Goal, description="What the plan must achieve.")
    proxy_mixtures: int = Field(default=8, description="Mixtures tried by proxy runs.", ge=1)
    held_out: int = Field(default=2, description="Further mixtures that no fit sees.", ge=0)
    repeats: int = Field(
        default=2, description="Runs of the natural mixture with other seeds: their spread is the noise.", ge=0
    )
    concentration: tuple[float, float] = Field(
        default=(0.1, 5.0), description="Range of the Dirichlet strength, drawn log-uniformly (2407.01492)."
    )
    seed: int = Field(default=0, description="Of the design.", ge=0)
