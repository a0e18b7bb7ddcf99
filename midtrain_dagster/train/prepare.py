"""A run in memory before its first step: data, model, precision, ranks, optimizer. Imported only inside functions (it imports torch)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train import checkpoint as checkpoints
from midtrain_dagster.train.guards import Watch
from midtrain_dagster.train.models import CausalLM, core, load_model, with_adapter
from midtrain_dagster.train.objective import Objective
from midtrain_dagster.train.optimizer_state import load_moments
from midtrain_dagster.train.plan import TrainingPlan, starting_state
from midtrain_dagster.train.ranks import Ranks
from midtrain_dagster.train.schedule import Timetable, stage_borders, timetable
from midtrain_dagster.train.weights import Weights, optimizer, set_moments


class Halt(Exception):
    """Raised between two micro-batches when the run is to stop: what the step has done so far is given up."""


@dataclass
class Training:
    """A run in memory: made by `prepare`, advanced by `steps`, written by `finish`."""

    plan: TrainingPlan
    ranks: Ranks
    data: Sequences
    validation: dict[str, Sequences]
    model: CausalLM
    objective: nn.Module
    weights: Weights
    adam: torch.optim.AdamW
    times: Timetable
    watch: Watch
    fingerprint: str = ""
    average: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    tokens: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None
    stalled: float = 0.0
    """Seconds that training has waited for checkpoints."""
    reading: float = 0.0
    """Seconds that it has waited for its input, out of `stepping`."""
    stepping: float = 0.0
    anchor: int | None = None
    """Step of the checkpoint that a rollback returns to."""
    carried_from: str | None = None
    """Where the optimizer's first moments came from; None: they started at zero."""
    stop: Callable[[], bool] = lambda: False

    @property
    def borders(self) -> tuple[int, ...]:
        """Where the stages of the data end, in sequences: a random order stays inside them."""
        return tuple(stage_borders(self.plan.data_stages, self.data.count))

    def __post_init__(self) -> None:
        self.writer = checkpoints.Writer(self.ranks.rank, self.ranks.world)

    def heed(self) -> None:
        """Raise Halt if any rank was told to stop. Every rank calls it between micro-batches."""
        if self.ranks.any(self.stop()):
            raise Halt


def prepare(plan: TrainingPlan, ranks: Ranks, model: CausalLM | None = None, fingerprint: str = "") -> Training:
    """Load data and model, wrap them for adapters, precision and ranks. `model` replaces the one in `plan.model`."""
    if plan.keep_optimizer and plan.adapter.kind != "none":
        raise MidtrainError("keep_optimizer: an adapter is merged when the run ends, and its moments end with it")
    torch.manual_seed(plan.seed)
    data = Sequences.open(Path(plan.sequences))
    attention = plan.attention if plan.attention != "auto" else automatic_attention(plan, ranks)
    model = model if model is not None else load_model(Path(plan.model), attention, ranks.device)
    if data.vocab_size > model.config.vocab_size:
        raise MidtrainError(f"{plan.sequences}: packed for {data.vocab_size} tokens, the model knows {model.config.vocab_size}")
    teacher = _teacher(plan, data, attention, ranks)
    model = with_adapter(model, plan.adapter)
    model.train()
    if plan.activation_checkpointing:
        core(model).gradient_checkpointing_enable({"use_reentrant": False})
    dtype = compute_dtype(plan.precision, ranks.device)
    chosen = tuple(i for i, name in enumerate(data.components) if name in plan.distillation.components)
    objective: nn.Module = Objective(
        core(model), len(data.components), teacher, chosen, plan.distillation.weight, plan.distillation.temperature
    )
    if ranks.sharded:
        shard(objective, core(model), dtype)
    weights = Weights(model, dtype, ranks.sharded)
    if plan.compile:
        objective.compile()
    adam = optimizer(weights, plan.betas, plan.epsilon, plan.weight_decay)
    validation = {name: Sequences.open(Path(path)) for name, path in plan.validation.items()}
    times = timetable(plan, data.count)
    training = Training(plan, ranks, data, validation, model, objective, weights, adam, times, Watch(plan.guards), fingerprint)
    if plan.ema_decay is not None:
        training.average = {name: master.detach().clone() for name, master in weights.masters.items()}
    carried = starting_state(plan)
    if carried is not None:
        set_moments(weights, adam, *load_moments(carried, model))
        training.carried_from = str(carried)
    return training


def automatic_attention(plan: TrainingPlan, ranks: Ranks) -> str:
    """The fastest that keeps documents apart; compiled, lengths that change with every batch would compile again and again."""
    if ranks.device.type == "cuda":
        return "flex"
    return "sdpa" if plan.compile else "documents"


def _teacher(plan: TrainingPlan, data: Sequences, attention: str, ranks: Ranks) -> CausalLM | None:
    if not plan.distillation.weight:
        return None
    if not set(plan.distillation.components) & set(data.components):
        raise MidtrainError(f"distillation: none of {plan.distillation.components} is a component of {plan.sequences}")
    teacher = load_model(Path(plan.model), attention, ranks.device).requires_grad_(False)
    dtype = compute_dtype(plan.precision, ranks.device)
    for parameter in teacher.parameters():
        parameter.data = parameter.data.to(dtype)
    return teacher.eval()


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies it natively, unless the plan says otherwise.

    A CPU without AVX512-BF16 or AMX emulates bf16 at a quarter of its fp32 speed.
    """
    if precision == "auto":
        cpu = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if device.type == "cuda" or cpu else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def shard(objective: nn.Module, model: CausalLM, dtype: torch.dtype) -> None:
    """FSDP2: each block is one unit, the rest belongs to the objective, whose forward needs the output layer."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in model.base_model.layers:
        fully_shard(block, mp_policy=policy)
    fully_shard(objective, mp_policy=policy)
