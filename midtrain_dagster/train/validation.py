"""Loss on held-out packed documents. Imported only inside functions (it imports torch)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # noqa: TID253
from torch import nn  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.batches import micro_batches
from midtrain_dagster.train.ranks import Ranks


@torch.no_grad()
def validate(
    objective: nn.Module, data: Sequences, ranks: Ranks, micro: int, limit: int | None = None,
    heed: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Mean cross-entropy in nats per token: over all targets, by component, and by position in the document.

    `heed` is called before every micro-batch; it ends the validation by raising. Positions go in bins [1, 2), [2, 4), [4, 8) …, keyed by their lower bound: a model that uses long context has a loss that
    still falls in the last of them. Components are numbered as the validation data numbers them.
    """
    rows = np.arange(data.count if limit is None else min(limit, data.count))
    if not len(rows):
        raise MidtrainError(f"{data.path}: holds no sequences to validate on")
    bins = int(np.log2(max(data.length - 1, 1))) + 1
    by_component = torch.zeros(len(data.components), 2, dtype=torch.float64, device=ranks.device)
    by_position = torch.zeros(bins, 2, dtype=torch.float64, device=ranks.device)
    for batch in micro_batches(data, rows, micro, ranks.rank, ranks.world, ranks.device):
        heed()
        target = batch["target"][:, 1:]
        component, position = batch["component"][:, 1:][target].long(), batch["position"][:, 1:][target]
        batch["component"] = torch.zeros_like(batch["component"])  # the objective counts the training data's components
        losses = objective(batch)[2].double()
        pairs = torch.stack([losses, torch.ones_like(losses)], dim=1)
        by_component.index_add_(0, component, pairs)
        by_position.index_add_(0, position.log2().floor().long(), pairs)
    by_component, by_position = ranks.total(by_component).cpu(), ranks.total(by_position).cpu()
    total, count = by_component.sum(dim=0).tolist()
    if not count:
        raise MidtrainError(f"{data.path}: not one token of its sequences is a target")
    return {
        "loss": total / count,
        "tokens": int(count),
        "components": {
            name: total / count for name, (total, count) in zip(data.components, by_component.tolist(), strict=True) if count
        },
        "positions": {str(1 << i): total / count for i, (total, count) in enumerate(by_position.tolist()) if count},
    }
