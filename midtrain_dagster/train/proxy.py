"""Small models from scratch, trained in this process in seconds to minutes: what mixtures are compared on."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.environment import torch_for
from midtrain_dagster.train.plan import TrainingPlan


@dataclass(frozen=True)
class ProxyShape:
    """A small Llama. The vocabulary is the packed data's, so 4,096 tokens or fewer keep it fast."""

    layers: int = 4
    hidden: int = 256
    heads: int = 4


def train_proxy(
    sequences: Path, validation: dict[str, Path], shape: ProxyShape = ProxyShape(), plan: TrainingPlan | None = None
) -> dict[str, Any]:
    """Train a model of `shape` on packed `sequences`; `plan` says how (its paths are not used), its seed also draws the weights.

    Returns steps, tokens, parameters, loss_start, loss_end, and `validation`: set → {before, after}, each with loss and
    components in nats per token. Nothing is kept on disk; torch's threads, determinism and random state are then as before.
    """
    from midtrain_dagster.train import loop
    from midtrain_dagster.train.base import make_model
    from midtrain_dagster.train.ranks import Ranks
    from midtrain_dagster.train.run import refuse_broken, summarize

    data = Sequences.open(sequences)
    given = plan or TrainingPlan("", "", "", peak_learning_rate=3e-3, batch_sequences=16, micro_batch=16)
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        model = Path(folder) / "model"
        make_model(model, data.vocab_size, shape.layers, shape.hidden, shape.heads, data.length, given.seed)
        mine = replace(given, model=str(model), sequences=str(sequences), out=folder, checkpoint_every=0,
                       validation={name: str(path) for name, path in validation.items()})  # fmt: skip
        with torch_for(mine):
            training = loop.prepare(mine, Ranks.alone())
            records = list(loop.steps(training))
            refuse_broken(training)
        summary = summarize(training, records, "", 0.0)
    kept = ("steps", "tokens", "parameters", "loss_start", "loss_end", "validation", "guards", "tokens_per_second")
    return {name: summary[name] for name in kept}
