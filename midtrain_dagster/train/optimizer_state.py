"""AdamW moments of an earlier training, from three formats, none of which may run code while it is read.

Mid-training goes on from a state, not from weights alone: moments that start at zero take dozens of steps to fill, and the loss
jumps at the handover. A stage that keeps its moments writes MODEL/optimizer.safetensors (`exp_avg.NAME`, `exp_avg_sq.NAME` in
fp32, the optimizer's steps in the header), and the stage that starts from MODEL finds it there.
Imported only inside functions, because it imports torch.
"""

from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train import checkpoint
from midtrain_dagster.train.plan import OPTIMIZER


def keep_moments(model: Path, tensors: dict[str, Tensor], steps: float) -> None:
    """Write moments beside a trained model."""
    save_file(tensors, model / OPTIMIZER, metadata={"format": "pt", "steps": repr(steps)})


def load_moments(path: Path, model: Any) -> tuple[dict[str, Tensor], float]:
    """`exp_avg.NAME` and `exp_avg_sq.NAME` by parameter name of `model`, and the optimizer's steps.

    `path`: a model directory or a checkpoint of ours, a PyTorch distributed checkpoint, or a Trainer's `optimizer.pt`. Raises MidtrainError when it fits no parameter, or when
    a tensor has another shape.
    """
    if (path / OPTIMIZER).exists():
        found = load_file(path / OPTIMIZER), steps_of(path / OPTIMIZER)
    elif (path / "state.json").exists():
        saved = checkpoint.load(path)
        found = dict(saved.optimizer), float(saved.state["optimizer_steps"])
    elif path.is_file() and path.suffix == ".pt":
        found = from_trainer(path, model)
    elif (path / ".metadata").exists():
        from midtrain_dagster.train.distributed_state import distributed_moments

        found = distributed_moments(path, model)
    else:
        raise MidtrainError(
            f"{path}: no optimizer state (a model or checkpoint directory of ours, a distributed checkpoint, or an optimizer.pt)"
        )
    check_shapes(path, found[0], model)
    return found


def steps_of(file: Path) -> float:
    """Steps that the moments in a file of `keep_moments` have seen."""
    with safe_open(file, framework="pt") as tensors:
        return float((tensors.metadata() or {})["steps"])


def from_trainer(path: Path, model: Any) -> tuple[dict[str, Tensor], float]:
    """Moments in a Hugging Face Trainer's `optimizer.pt`, read with weights_only.

    It numbers parameters group by group: first those that decay, then biases and norms, each in the model's order.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds; whichever it is, the file is refused
        raise MidtrainError(f"{path}: not readable as plain tensors: {' '.join(str(error).split())[:200]}") from None
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    ordered = [name for name, p in named if p.ndim >= 2] + [name for name, p in named if p.ndim < 2]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    if len(numbers) != len(ordered):
        raise MidtrainError(f"{path}: holds {len(numbers)} parameters, the model has {len(ordered)}")
    tensors: dict[str, Tensor] = {}
    steps = 0.0
    for number, name in zip(numbers, ordered, strict=True):
        state = saved["state"].get(number)
        if state is not None:
            tensors[f"exp_avg.{name}"], tensors[f"exp_avg_sq.{name}"] = state["exp_avg"], state["exp_avg_sq"]
            steps = float(state["step"])
    return tensors, steps


def check_shapes(path: Path, tensors: dict[str, Tensor], model: Any) -> None:
    shapes = {name: p.shape for name, p in model.named_parameters()}
    known = {key: name for name in shapes for key in (f"exp_avg.{name}", f"exp_avg_sq.{name}")}
    if not set(tensors) & set(known):
        raise MidtrainError(f"{path}: none of its moments belongs to a parameter of this model")
    wrong = [key for key, tensor in tensors.items() if key in known and tensor.shape != shapes[known[key]]]
    if wrong:
        raise MidtrainError(f"{path}: {wrong[0]} has shape {tuple(tensors[wrong[0]].shape)}; the model's differs")
