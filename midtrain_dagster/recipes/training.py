"""How a recipe trains: schedule, batch, optimizer, precision, adapters, guards, context extension.

The section becomes plain values (`plan_values`) that `midtrain_dagster.train.plan.TrainingPlan` reads, so that training itself
needs no pydantic. Rates inside the schedule are in units of `peak_learning_rate`.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from midtrain_dagster.settings import Settings


class Phase(Settings):
    """One stretch of the learning-rate schedule, on a half-open interval of steps."""

    shape: Literal["warmup", "constant", "linear", "cosine", "exponential", "half_life", "sqrt", "power"] = Field(
        description="curve from the rate where the previous phase ended to `end`; `sqrt` is 1-sqrt, `power` 1 - p^exponent, "
        "`exponential` falls to `end` by equal factors, `half_life` halves every so many steps"
    )
    share: float | None = Field(
        default=None, ge=0, le=1, description="length as a share of all steps; one phase may leave its length open"
    )
    steps: int | None = Field(default=None, ge=0, description="length in steps, in place of `share`")
    start: float | None = Field(default=None, ge=0, description="rate at its beginning; null: where the previous phase ended")
    end: float | None = Field(
        default=None, ge=0, description="rate at its end; null: 1 for warmup, unchanged for constant, 0 for a decay"
    )
    exponent: float = Field(default=0.5, gt=0, description="a of 1 - p^a (`power`)")
    half_life: float | None = Field(default=None, gt=0, description="steps (`half_life`)")
    until: str | None = Field(
        default=None, description="stage of the mixture with which the phase ends, in place of `share` and `steps`"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Phase":
        if self.share is not None and self.steps is not None:
            raise ValueError("give `share` or `steps`, not both")
        if self.until is not None and (self.share is not None or self.steps is not None):
            raise ValueError("a phase that lasts `until` a stage's end has neither `share` nor `steps`")
        if self.shape == "half_life" and self.half_life is None:
            raise ValueError("a half_life phase needs `half_life`")
        if self.shape == "exponential" and not self.end:
            raise ValueError("an exponential phase needs `end` above 0; it never reaches 0")
        return self


class BatchStage(Settings):
    """A larger (or smaller) batch from some point of the data on."""

    after: float = Field(ge=0, lt=1, description="share of the data already read")
    sequences: int = Field(ge=1, description="sequences a step reads from there on")


class Adapter(Settings):
    """Low-rank updates in place of all weights; merged back when the run ends."""

    kind: Literal["none", "lora", "dora", "rslora"] = Field(
        default="none", description="arXiv 2106.09685, 2402.09353, 2312.03732"
    )
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha/rank (rslora: alpha/√rank)")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="linear layers",
    )


class Distillation(Settings):
    """KL divergence to the base model's predictions, so that what the base knew stays."""

    weight: float = Field(default=0.0, ge=0, description="of the divergence beside the cross-entropy; 0: off")
    components: tuple[str, ...] = Field(
        default=("general",), min_length=1, description="components of the mixture on which it is taken"
    )
    temperature: float = Field(default=1.0, gt=0)


class Guards(Settings):
    """When a step is not applied, and when a run ends early."""

    spike_deviations: float = Field(default=6.0, ge=0, description="loss above the window's mean that is a spike; 0: guard off")
    spike_window: int = Field(default=50, ge=2, description="steps that the mean and deviation are taken over")
    spike_minimum: int = Field(default=20, ge=2, description="steps in the window before anything is a spike")
    spike_action: Literal["skip", "rollback", "stop"] = Field(
        default="skip",
        description="skip the step, return to the last regular checkpoint and go on with the data after it, or end the run",
    )
    max_skipped_in_a_row: int = Field(default=5, ge=0, description="more skipped steps in a row end the run as broken")
    general_validation: str = Field(default="general", description="validation set that guards what the base knew")
    general_tolerance: float | None = Field(
        default=None, ge=0, description="rise of its loss that is accepted, nats per token; null: any"
    )
    general_action: Literal["stop", "rollback"] = Field(
        default="stop", description="end there, or with the last weights within tolerance"
    )
    handover_tolerance: float = Field(
        default=0.2,
        ge=0,
        description="rise of a component's loss over the first steps, nats per token, above which a check warns",
    )


class Context(Settings):
    """A longer context: rotary frequencies changed before training (`midtrain extend-context`)."""

    method: Literal["linear", "ntk", "ntk-by-parts", "dynamic", "yarn", "longrope", "llama3", "base"] = Field(
        default="yarn",
        description="arXiv 2306.15595 (linear), 2309.00071 (ntk, ntk-by-parts, yarn), 2402.13753 (longrope), base: raise theta",
    )
    factor: float = Field(default=4.0, ge=1, description="new length over old")
    base: float | None = Field(default=None, gt=0, description="new rope theta, for method `base`")
    original: int | None = Field(
        default=None, ge=1, description="length the base was trained at; null: what its configuration says"
    )
    short_factor: tuple[float, ...] | None = Field(
        default=None, description="longrope: one a frequency, for lengths up to the original"
    )
    long_factor: tuple[float, ...] | None = Field(default=None, description="longrope: one a frequency, for lengths beyond it")
    probe_lengths: tuple[int, ...] | None = Field(
        default=None,
        description="tokens of prompts in which base and trained model look for a hidden number; null: the sequence length, a half "
        "and a quarter of it",
    )

    def lengths(self, sequence_length: int) -> tuple[int, ...]:
        """Of the prompts, in tokens."""
        return self.probe_lengths or tuple(sequence_length // part for part in (4, 2, 1))


class Training(Settings):
    """How the model is trained on the packed sequences."""

    peak_learning_rate: float = Field(
        2e-4, gt=0, description="of AdamW; mid-training often starts far below the pre-training peak"
    )
    start_learning_rate: float | None = Field(
        default=None,
        ge=0,
        description="before the first step; null: 0 under a warmup, else the peak. The checkpoint's own, to go on from it",
    )
    schedule: tuple[Phase, ...] = Field(
        default=(Phase(shape="warmup", share=0.1), Phase(shape="linear")), min_length=1, description="phases in order"
    )
    batch_sequences: int = Field(
        default=8, ge=1, description="sequences a step; tokens a step are this times the sequence length"
    )
    batch_stages: tuple[BatchStage, ...] = Field(default=(), description="changes of the batch during the run")
    batch_rate_rule: Literal["none", "sqrt", "linear"] = Field(
        default="sqrt", description="how the rate follows a changed batch"
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="sequences in one forward pass, no change of the result beyond rounding; null: as many as are measured to fit",
    )
    steps: int | None = Field(default=None, ge=1, description="null: as many as `epochs` need")
    epochs: float = Field(default=1.0, gt=0, description="passes over the packed sequences")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="of AdamW")
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0, description="of matrices; norms do not decay")
    clip: float = Field(default=1.0, ge=0, description="norm that a gradient is clipped to; 0: not")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the processor multiplies it natively"
    )
    attention: Literal["auto", "documents", "sdpa", "flex", "eager"] = Field(
        "auto", description="auto: flex-attention on a GPU, elsewhere each document by itself"
    )
    compile: bool = Field(default=False, description="torch.compile; pays on a GPU")
    activation_checkpointing: bool = Field(default=False, description="recompute activations: less memory, a third more time")
    adapter: Adapter = Adapter()
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="save the moving average of the weights; null: the last ones"
    )
    average_last: int = Field(
        default=0, ge=0, description="save the mean of the weights at so many points up to the last step (Polyak); 0: off"
    )
    average_every: int = Field(default=1, ge=1, description="steps between those points")
    distillation: Distillation = Distillation()
    guards: Guards = Guards()
    optimizer_state: str | None = Field(
        default=None,
        description="AdamW state to begin with (a checkpoint, a distributed checkpoint, a Trainer's optimizer.pt); null: beside "
        "the base model, if it has one; none: start from zero",
    )
    keep_optimizer: bool = Field(
        default=False, description="keep AdamW's moments beside the trained model, for a next stage to go on from"
    )
    validations: int = Field(
        default=8, ge=0, description="losses on held-out text during the run, evenly spaced, besides those before and after it"
    )
    validation_every: int = Field(default=0, ge=0, description="steps between validations, in place of `validations`")
    validation_sequences: int | None = Field(
        default=None, ge=1, description="at most so many of each validation set; null: all"
    )
    checkpoint_every: int = Field(default=25, ge=0, description="steps between checkpoints; 0: only when interrupted")
    keep_checkpoints: int = Field(default=1, ge=1)
    snapshot_every: int = Field(
        default=0, ge=0, description="steps between models that are kept and evaluated along the run (learning curves); 0: none"
    )
    tensorboard: bool = Field(default=False, description="write TensorBoard files too (pip install tensorboard)")
    seed: int = 0
    order_seed: int | None = Field(
        default=None, description="null: read sequences as packed; else in a random order by this seed"
    )
    soup_seeds: tuple[int, ...] = Field(
        (), description="train once for each seed as `order_seed` and average the weights (OLMo 2)"
    )
    threads: int | None = Field(default=None, ge=1, description="null: one for each core")
    peak_flops: float | None = Field(
        default=None, gt=0, description="of the device, for MFU; null: known for common GPUs, else measured"
    )
    context: Context | None = Field(default=None, description="extend the context of the base before training; null: keep it")

    @model_validator(mode="after")
    def _one_average(self) -> "Training":
        if self.ema_decay is not None and self.average_last:
            raise ValueError("give `ema_decay` or `average_last`, not both")
        return self

    def plan_values(self) -> dict[str, Any]:
        """The fields of a TrainingPlan that a recipe decides; model, sequences, out and validation are to be added."""
        values = self.model_dump(mode="json", exclude={"context"})
        return {name: value for name, value in values.items() if value is not None}
