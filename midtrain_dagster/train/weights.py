"""Trainable weights: fp32 masters that the optimizer steps, and the possibly narrower copy that computes.

In bf16 a step of 1e-5 of a weight's size is rounded away, so optimizer and gradient sums stay in fp32 (mixed precision with
master weights, 1710.03740) while every matrix product runs in bf16. Imported only inside functions, because it imports torch.
"""

from collections.abc import Mapping

import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253
from torch.distributed.tensor import DTensor  # noqa: TID253

from midtrain_dagster.train.checkpoint import Rows, Stored


class Weights:
    """`masters`: name → fp32 tensor with `.grad`, one for each trainable parameter (under FSDP, this rank's shard of it)."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, sharded: bool = False):
        """Casts the model's parameters to `dtype` in place; buffers such as rotary frequencies keep theirs.

        A sharded model computes in narrow precision by its own policy and keeps fp32 parameters: those are the masters.
        """
        self.computing = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.mixed = dtype != torch.float32 and not sharded
        if not self.mixed:
            self.masters: dict[str, Tensor] = dict(self.computing)
            return
        self.masters = {name: p.detach().float().clone() for name, p in self.computing.items()}
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)

    @torch.no_grad()
    def accumulate(self) -> None:
        """After a backward pass: add the narrow gradients to the fp32 ones and free them."""
        if not self.mixed:
            return
        for name, parameter in self.computing.items():
            if parameter.grad is None:
                continue
            master = self.masters[name]
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """After the optimizer's step: the computing copy follows the masters."""
        if self.mixed:
            for name, parameter in self.computing.items():
                parameter.copy_(self.masters[name])

    def zero_grad(self) -> None:
        for master in self.masters.values():
            master.grad = None

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set masters and computing copy from whole tensors, or from a checkpoint's."""
        for name, master in self.masters.items():
            put(master, tensors, name)
        self.publish()


def whole(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, gathered from all ranks if it is sharded. Every rank must call it."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def own(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's rows of a tensor, and the number of the first: FSDP deals rows out in equal parts, the last ranks' smaller."""
    if not isinstance(tensor, DTensor):
        return tensor.detach(), 0
    part = -(-len(tensor) // tensor.device_mesh.size())
    rows, begin = tensor.to_local().detach(), min(tensor.device_mesh.get_local_rank() * part, len(tensor))
    assert len(rows) == min(part, len(tensor) - begin), "sharded otherwise than by rows"
    return rows, begin


def put(destination: Tensor, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy the tensor called `name` into a possibly sharded one; of a checkpoint only the rows that belong here are read."""
    rows, begin = own(destination)
    end = begin + len(rows)
    values = tensors.rows(name, begin, end) if isinstance(tensors, Stored) else tensors[name][begin:end]
    rows.copy_(values)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Rows]:
    """This rank's rows on the CPU, owned (a later step does not change them)."""
    found = {}
    for name, tensor in tensors.items():
        rows, begin = own(tensor)
        found[name] = Rows(rows.to("cpu", copy=True).contiguous(), begin, len(tensor))
    return found


def gathered(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Whole tensors on the CPU, owned, on the ranks that `keep` them; the others take part and get none."""
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            found[name] = value.clone().contiguous()
    return found


def optimizer(weights: Weights, betas: tuple[float, float], epsilon: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (1711.05101); matrices decay, norms and biases do not."""
    matrices = [t for t in weights.masters.values() if t.ndim >= 2]
    vectors = [t for t in weights.masters.values() if t.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    plain = not any(isinstance(t, DTensor) for t in weights.masters.values())
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=betas, eps=epsilon, fused=plain or None)


def moments(weights: Weights, adam: torch.optim.AdamW) -> tuple[dict[str, Tensor], float]:
    """AdamW's state by parameter name, `exp_avg.NAME` and `exp_avg_sq.NAME`, and how many steps it has seen."""
    tensors: dict[str, Tensor] = {}
    steps = 0.0
    for name, master in weights.masters.items():
        state = adam.state.get(master)
        if state:
            tensors[f"exp_avg.{name}"], tensors[f"exp_avg_sq.{name}"] = state["exp_avg"], state["exp_avg_sq"]
            steps = float(state["step"])
    return tensors, steps


@torch.no_grad()
def set_moments(weights: Weights, adam: torch.optim.AdamW, tensors: Mapping[str, Tensor], steps: float) -> None:
    """The reverse of `moments`, from whole tensors or a checkpoint's. A parameter without a stored state starts from zero."""
    for name, master in weights.masters.items():
        if f"exp_avg.{name}" not in tensors:
            continue
        state = {key: torch.zeros_like(master) for key in ("exp_avg", "exp_avg_sq")}
        for key, tensor in state.items():
            put(tensor, tensors, f"{key}.{name}")
        device = master.device if adam.defaults["fused"] else torch.device("cpu")
        adam.state[master] = {"step": torch.tensor(steps, dtype=torch.float32, device=device), **state}


@torch.no_grad()
def follow(average: dict[str, Tensor], masters: Mapping[str, Tensor], decay: float) -> None:
    """Exponential moving average of the weights: a ← decay·a + (1 - decay)·w."""
    for name, tensor in average.items():
        tensor.lerp_(masters[name], 1 - decay)
