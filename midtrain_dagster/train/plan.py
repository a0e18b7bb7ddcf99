"""What one training run is, as plain data: written by a recipe, read by `python -m midtrain_dagster.train.run`.

Nothing but the standard library is needed, so that a plan travels as one JSON file to a machine that has torch and little else.
"""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from midtrain_dagster.errors import MidtrainError

OPTIMIZER = "optimizer.safetensors"
"""Beside a model's weights: the AdamW moments with which its training ended."""
Shape = Literal["warmup", "constant", "linear", "cosine", "exponential", "half_life", "sqrt", "power"]


@dataclass(frozen=True)
class Phase:
    """One stretch of the learning-rate schedule, from where the previous one ended to `end`."""

    shape: Shape
    share: float | None = None
    """Length as a share of all steps; a phase with neither share nor steps takes what is left."""
    steps: int | None = None
    start: float | None = None
    """Rate at its beginning, in units of the peak rate; None: where the previous phase ended."""
    end: float | None = None
    """Rate at its end, in units of the peak rate; None: 1 for warmup, unchanged for constant, 0 for the others."""
    exponent: float = 0.5
    """a of 1 - p^a (`power`)."""
    half_life: float | None = None
    """Steps in which the rate halves (`half_life`)."""
    until: str | None = None
    """Data stage with whose last sequence the phase ends, in place of share and steps."""


@dataclass(frozen=True)
class DataStage:
    """A part of the packed data with shares of its own, in packed order."""

    name: str
    fraction: float
    """Of the sequences; a stage whose shares move is several of one name."""


@dataclass(frozen=True)
class BatchStage:
    """From `after` (share of the data already read) on, a step reads `sequences` sequences."""

    after: float
    sequences: int


@dataclass(frozen=True)
class Adapter:
    """Train low-rank updates in place of all weights (LoRA 2106.09685, DoRA 2402.09353, rsLoRA 2312.03732)."""

    kind: Literal["none", "lora", "dora", "rslora"] = "none"
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Distillation:
    """KL divergence to the base model's distribution, added to the loss on the named components."""

    weight: float = 0.0
    components: tuple[str, ...] = ("general",)
    temperature: float = 1.0


@dataclass(frozen=True)
class Guards:
    """When a step is not applied, and when a run ends early."""

    spike_deviations: float = 6.0
    """A loss this many standard deviations above the mean of the window is a spike; 0 switches the guard off."""
    spike_window: int = 50
    spike_minimum: int = 20
    """Steps that must be in the window before anything counts as a spike."""
    spike_action: Literal["skip", "rollback", "stop"] = "skip"
    """`rollback`: weights and moments of the last regular checkpoint, and on with the data after the spike (2204.02311, §5.1)."""
    max_skipped_in_a_row: int = 5
    general_validation: str = "general"
    """The validation set whose loss must not rise by more than `general_tolerance`."""
    general_tolerance: float | None = None
    """Nats per token above the loss before training."""
    general_action: Literal["stop", "rollback"] = "stop"
    handover_tolerance: float = 0.2
    """Nats per token by which a component's loss may rise over the first steps; a check warns above it."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights that come out, and where they go."""

    model: str
    sequences: str
    out: str
    validation: dict[str, str] = field(default_factory=dict)
    """Name of a validation set → its packed sequences."""
    peak_learning_rate: float = 1e-4
    start_learning_rate: float | None = None
    """Rate before the first step; None: 0 under a warm-up, else the peak. Mid-training often starts at the checkpoint's own."""
    schedule: tuple[Phase, ...] = (Phase("warmup", share=0.05), Phase("linear"))
    batch_sequences: int = 8
    batch_stages: tuple[BatchStage, ...] = ()
    batch_rate_rule: Literal["none", "sqrt", "linear"] = "sqrt"
    """How the rate follows the batch when `batch_stages` change it: times (B/B0)^0.5, (B/B0), or not at all."""
    data_stages: tuple[DataStage, ...] = ()
    """The curriculum of the packed data: phases may end with one (`until`), and `order_seed` shuffles inside each alone."""
    micro_batch: int = 4
    """Sequences in one forward pass on one rank; the rest of a step is gradient accumulation."""
    steps: int | None = None
    """None: as many as `epochs` over the data need."""
    epochs: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    attention: Literal["auto", "documents", "sdpa", "flex", "eager"] = "auto"
    compile: bool = False
    activation_checkpointing: bool = False
    adapter: Adapter = Adapter()
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights; it becomes the saved model."""
    average_last: int = 0
    """Save the plain mean of the weights at so many points, `average_every` steps apart, the last step among them; 0: off."""
    average_every: int = 1
    distillation: Distillation = Distillation()
    guards: Guards = Guards()
    optimizer_state: str | None = None
    """AdamW state to begin with: a checkpoint of ours, a PyTorch distributed checkpoint, or a Trainer's `optimizer.pt`. None:
    MODEL/optimizer.safetensors where the base model has one (`keep_optimizer` of the stage before), "none": start from zero."""
    keep_optimizer: bool = False
    """Write the moments to OUT/model/optimizer.safetensors, for a next stage to go on from; twice the model's size in fp32."""
    validation_every: int = 0
    """Steps between validations; 0: as `validations` says."""
    validations: int = 0
    """How many there are between the one before the first step and the one after the last, evenly spaced."""
    validation_sequences: int | None = None
    """At most so many sequences of each validation set."""
    checkpoint_every: int = 100
    keep_checkpoints: int = 1
    snapshot_every: int = 0
    """Steps between models that are kept as OUT/snapshots/step-N, to be evaluated along the run; 0: none."""
    probe_lengths: tuple[int, ...] = ()
    """Tokens of prompts in which the base and the trained model have to find a number, when the run is done."""
    tensorboard: bool = False
    """Write OUT/tensorboard too; needs the tensorboard package."""
    seed: int = 0
    order_seed: int | None = None
    """None: sequences are read as they were packed; else in a random order by this seed, another in each epoch."""
    soup_seeds: tuple[int, ...] = ()
    """Train once for each of these as `order_seed`, and average the weights (model soups 2203.05482; OLMo 2, 2501.00656)."""
    threads: int | None = None
    peak_flops: float | None = None
    """Of the device in the precision used, for MFU; None: known for common GPUs, elsewhere a matrix product is timed."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json())

    @classmethod
    def read(cls, path: Path) -> "TrainingPlan":
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise MidtrainError(f"{path}: not a training plan: {error}") from None
        return cls.from_values(values, where=str(path))

    @classmethod
    def from_values(cls, values: dict[str, Any], where: str = "training plan") -> "TrainingPlan":
        """Build from plain JSON values; an unknown or missing key is a MidtrainError."""
        return _build(cls, values, where)


def starting_state(plan: TrainingPlan) -> Path | None:
    """Where a plan's first moments are: where it says, else beside its base model; None: they start at zero.

    An adapter's weights are new, so a base model's moments do not belong to them.
    """
    if plan.optimizer_state == "none":
        return None
    if plan.optimizer_state is not None:
        return Path(plan.optimizer_state)
    return Path(plan.model) if plan.adapter.kind == "none" and (Path(plan.model) / OPTIMIZER).exists() else None


def _build(kind: Any, values: Any, where: str) -> Any:
    """A value of dataclass `kind` from JSON, its nested dataclasses and tuples included."""
    if not isinstance(values, dict):
        raise MidtrainError(f"{where}: expected an object, found {type(values).__name__}")
    names = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - names):
        raise MidtrainError(f"{where}: unknown keys: {', '.join(unknown)}")
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise MidtrainError(f"{where}: missing keys: {', '.join(missing)}")
    hints = get_type_hints(kind)
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if value is None:
        return None
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if is_dataclass(hint):
        return _build(hint, value, where)
    if get_origin(hint) is tuple:
        return tuple(_convert(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise MidtrainError(f"{where}: {value!r} is none of {', '.join(map(str, get_args(hint)))}")
    return float(value) if hint is float else value
