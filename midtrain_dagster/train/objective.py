"""The loss of a micro-batch of packed documents: next-token cross-entropy that never looks across a document's border.

Imported only inside functions, because it imports torch.
"""

from collections.abc import Mapping
from typing import Any

import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train.models import CausalLM

CHUNK = 1024
"""Target positions whose logits exist at one time: 1,024 × 49,152 × 4 bytes are 200 MB."""


def document_mask(segment: Tensor) -> Tensor:
    """(batch, 1, length, length) bool: position i may look at j ≤ i of the same segment.

    Padding is segment 0 and looks at padding, so that no row of the softmax is empty.
    """
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    return (segment[:, None, :, None] == segment[:, None, None, :]) & causal


def document_block_mask(segment: Tensor) -> Any:
    """The same as a BlockMask for flex-attention, which skips the blocks that are wholly masked."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) & (segment[b, i] == segment[b, j])

    batch, length = segment.shape
    return create_block_mask(visible, batch, None, length, length, device=str(segment.device))


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
        weight_grad = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if ctx.needs_input_grad[1] else None
        for begin in range(0, len(hidden), CHUNK):
            rows = slice(begin, begin + CHUNK)
            part, wanted_tokens = hidden[rows], targets[rows, None]
            logits = (part @ weight.T).float()
            normalizer = logits.logsumexp(dim=1, keepdim=True)
            losses[rows] = (normalizer - logits.gather(1, wanted_tokens)).squeeze(1)
            if hidden_grad is None:
                continue
            slope = logits.sub_(normalizer).exp_()
            slope.scatter_add_(1, wanted_tokens, torch.full_like(wanted_tokens, -1, dtype=slope.dtype))
            slope = slope.to(weight.dtype)
            hidden_grad[rows] = slope @ weight
            if weight_grad is not None:
                weight_grad += slope.T @ part
        ctx.save_for_backward(hidden_grad, None if weight_grad is None else weight_grad.to(weight.dtype))
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        scale = grads[0]
        return (
            None if hidden_grad is None else hidden_grad * scale.to(hidden_grad.dtype),
            None if weight_grad is None else weight_grad * scale.to(weight_grad.dtype),
            None,
        )


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
        total, losses = LinearCrossEntropy.apply(
            hidden, self.model.get_output_embeddings().weight, batch["tokens"][:, 1:][target]
        )
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
        kind = model.config._attn_implementation
        mask = document_block_mask(batch["segment"]) if kind == "flex_attention" else document_mask(batch["segment"])
        if kind == "eager":  # adds its mask to the scores, where sdpa chooses by it
            dtype = next(model.parameters()).dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
        positions = batch["position"].long()
        return model.base_model(input_ids=batch["tokens"], attention_mask=mask, position_ids=positions, use_cache=False)[0]


def refuse_unusual_heads(config: Any) -> None:
    """Raise where a model does more to its logits than multiply by the output embedding."""
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise MidtrainError(f"{config.model_type}: models with `{name}` are not trained here; choose a Llama-like model")
