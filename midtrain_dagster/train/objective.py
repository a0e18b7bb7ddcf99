"""The loss of a micro-batch of packed documents: next-token cross-entropy that never looks across a document's border.

Imported only inside functions, because it imports torch.
"""

from collections.abc import Mapping
from typing import Any

import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train import attention
from midtrain_dagster.train.models import CausalLM

LOGITS = 1 << 26
"""Logits that exist at one time, 256 MB in fp32: with a vocabulary of 49,152 those of 1,365 targets, with 4,096 of 16,384."""


class LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden @ weight.T` against `targets` in fp32, without ever holding all logits.

    The gradients are computed chunk by chunk in the forward pass, as Liger's fused kernel does (2410.10989): a third of the
    memory traffic of logits, log-softmax and their gradients, and nothing is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (n, d), weight (vocabulary, d), targets (n,) → sum of losses (scalar), losses (n,) without gradient, fp32."""
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        wanted = any(ctx.needs_input_grad)
        hidden_grad = torch.empty_like(hidden) if wanted else None
        weight_grad: Tensor | None = None
        chunk = max(LOGITS // len(weight), 1)
        for begin in range(0, len(hidden), chunk):
            rows = slice(begin, begin + chunk)
            part, wanted_tokens = hidden[rows], targets[rows, None]
            logits = (part @ weight.T).float()
            most, where = logits.max(dim=1, keepdim=True)
            right = logits.gather(1, wanted_tokens)
            slope = logits.softmax(dim=1)  # of the largest logit it is 1/Σexp(x - most), so one exponential gives the sum too
            losses[rows] = (most - slope.gather(1, where).log() - right).squeeze(1)
            if hidden_grad is None:
                continue
            slope.scatter_add_(1, wanted_tokens, torch.full_like(right, -1))
            slope = slope.to(weight.dtype)
            torch.mm(slope, weight, out=hidden_grad[rows])
            if not ctx.needs_input_grad[1]:
                continue
            weight_grad = slope.T @ part if chunk >= len(hidden) else added(weight_grad, slope, part)
        if ctx.needs_input_grad[1] and weight_grad is None:
            weight_grad = torch.zeros_like(weight)
        ctx.grads = hidden_grad, None if weight_grad is None else weight_grad.to(weight.dtype)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The stored gradients times the loss's, in place: a graph is walked once."""
        hidden_grad, weight_grad = ctx.grads
        ctx.grads = None
        scale = grads[0]
        return (
            None if hidden_grad is None else hidden_grad.mul_(scale.to(hidden_grad.dtype)),
            None if weight_grad is None else weight_grad.mul_(scale.to(weight_grad.dtype)),
            None,
        )


def added(total: Tensor | None, slope: Tensor, part: Tensor) -> Tensor:
    """total + slope.T @ part, summed in fp32, in place where there is a total."""
    if total is None:
        return (slope.T @ part).float()
    return total.addmm_(slope.T, part) if slope.dtype == torch.float32 else total.add_(slope.T @ part)


@torch.compiler.disable
def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """LinearCrossEntropy, left out of torch.compile: three matrix products a chunk, and how many targets changes by the batch."""
    total, losses = LinearCrossEntropy.apply(hidden, weight, targets)
    return total, losses


class Objective(nn.Module):
    """A causal language model with its loss, as one module, so that FSDP gathers its output layer like any other."""

    def __init__(
        self,
        model: CausalLM,
        components: int,
        teacher: CausalLM | None = None,
        distilled: tuple[int, ...] = (),
        weight: float = 0.0,
        temperature: float = 1.0,
    ):
        super().__init__()
        refuse_unusual_heads(model.config)
        self.model, self.components = model, components
        self._teacher = [teacher]  # in a list: not a submodule, neither trained nor saved
        self.distilled, self.weight, self.temperature = distilled, weight, temperature

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of losses over the targets (with gradient); (cross-entropy, targets) by component; the targets' losses.

        `batch` is Sequences.batch as tensors on the model's device. The targets' losses come in reading order.
        """
        target = batch["target"][:, 1:]
        hidden = self.hidden_states(self.model, batch)[:, :-1][target]
        total, losses = linear_cross_entropy(hidden, self.model.get_output_embeddings().weight, batch["tokens"][:, 1:][target])
        component = batch["component"][:, 1:][target].long()
        sums = torch.zeros(self.components, 2, dtype=torch.float64, device=losses.device)
        sums.index_add_(0, component, torch.stack([losses.double(), torch.ones_like(losses, dtype=torch.float64)], dim=1))
        if self._teacher[0] is not None and torch.is_grad_enabled():
            total = total + self.weight * self.divergence(batch, hidden, target, component)
        return total, sums, losses

    def divergence(self, batch: Mapping[str, Tensor], hidden: Tensor, target: Tensor, component: Tensor) -> Tensor:
        """Sum of T²·KL(teacher ‖ model) over the targets of the distilled components (Hinton et al., 1503.02531)."""
        teacher = self._teacher[0]
        assert teacher is not None
        chosen = torch.isin(component, torch.tensor(self.distilled, device=component.device))
        with torch.no_grad():
            expected = self.hidden_states(teacher, batch)[:, :-1][target][chosen]
            expected = (teacher.get_output_embeddings()(expected).float() / self.temperature).log_softmax(dim=1)
        found = (self.model.get_output_embeddings()(hidden[chosen]).float() / self.temperature).log_softmax(dim=1)
        return self.temperature**2 * nn.functional.kl_div(found, expected, reduction="sum", log_target=True)

    @staticmethod
    def hidden_states(model: CausalLM, batch: Mapping[str, Tensor]) -> Tensor:
        """(batch, length, d): the last layer's output, each document alone with positions from 0."""
        inside = attention.arguments(model.config, batch["segment"], next(model.parameters()).dtype)
        positions = batch["position"].long()
        return model.base_model(input_ids=batch["tokens"], position_ids=positions, use_cache=False, **inside)[0]


def refuse_unusual_heads(config: Any) -> None:
    """Raise where a model does more to its logits than multiply by the output embedding."""
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise MidtrainError(f"{config.model_type}: models with `{name}` are not trained here; choose a Llama-like model")
