"""Training in which the weights of the domains move with their losses (DoReMi). Imported only inside functions (it imports torch)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from midtrain_dagster.train.models import CausalLM, core, load_model
from midtrain_dagster.train.objective import Objective
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.prepare import automatic_attention
from midtrain_dagster.train.proxy import ProxyShape, finished, training

Update = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Weights now and the excess loss of each domain, (m) each → weights of the next step, (m)."""


class Reweighted(Objective):
    """Σ weight·(mean loss of the domain's targets in the batch), the weights updated before every step by the excess over a
    reference model: mean over the domain's tokens of max(loss − reference loss, 0) (arXiv 2305.10429, algorithm 1)."""

    def __init__(self, model: CausalLM, components: int, reference: CausalLM, update: Update):
        super().__init__(model, components)
        self._reference = [reference.requires_grad_(False).eval()]  # in a list: neither trained nor saved
        self._update = update
        self.weights = np.full(components, 1 / components)
        self.history: list[np.ndarray] = []

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """As `Objective.forward`; the first value is weighted, and scaled so that dividing it by all targets gives the sum."""
        if not torch.is_grad_enabled():
            return super().forward(batch)
        target = batch["target"][:, 1:]
        wanted, component = batch["tokens"][:, 1:][target], batch["component"][:, 1:][target].long()
        losses = self._losses(self.model, batch, target, wanted)
        with torch.no_grad():
            excess = (losses - self._losses(self._reference[0], batch, target, wanted)).clamp_min(0)
        counts = torch.bincount(component, minlength=self.components)
        sums = torch.zeros(self.components, 2, dtype=torch.float64, device=losses.device)
        sums.index_add_(0, component, torch.stack([losses.detach().double(), torch.ones_like(losses).double()], dim=1))
        over = torch.zeros(self.components, device=losses.device).index_add_(0, component, excess) / counts.clamp_min(1)
        self.weights = self._update(self.weights, over.double().cpu().numpy())
        self.history.append(self.weights)
        each = torch.as_tensor(self.weights, dtype=losses.dtype, device=losses.device) / counts.clamp_min(1)
        return (losses * each[component]).sum() * len(losses), sums, losses.detach()

    def _losses(self, model: CausalLM, batch: Mapping[str, Tensor], target: Tensor, wanted: Tensor) -> Tensor:
        hidden = self.hidden_states(model, batch)[:, :-1][target]
        return nn.functional.cross_entropy(model.get_output_embeddings()(hidden).float(), wanted, reduction="none")


def train_reweighted(
    sequences: Path, validation: dict[str, Path], shape: ProxyShape, plan: TrainingPlan, reference: Path, update: Update
) -> dict[str, Any]:
    """What `train_proxy` returns, and `weights`: component → its weight, averaged over all steps, which is what DoReMi
    recommends as shares. `reference` is a trained model directory."""
    with training(sequences, validation, shape, plan) as run:
        judge = load_model(reference, automatic_attention(run.plan, run.ranks), run.ranks.device)
        objective = Reweighted(core(run.model), len(run.data.components), judge, update)
        run.objective = objective
        summary = finished(run)
        mean = np.mean(objective.history, axis=0)
    return {**summary, "weights": {name: float(w) for name, w in zip(run.data.components, mean / mean.sum(), strict=True)}}
