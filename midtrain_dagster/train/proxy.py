"""Small models from scratch, trained in this process in seconds to minutes: what mixtures are compared on."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.environment import torch_for
from midtrain_dagster.train.plan import TrainingPlan

if TYPE_CHECKING:
    from midtrain_dagster.train.loop import Training


@dataclass(frozen=True)
class ProxyShape:
    """A small Llama. The vocabulary is the packed data's, so 4,096 tokens or fewer keep it fast."""

    layers: int = 4
    hidden: int = 256
    heads: int = 4


def train_proxy(
    sequences: Path,
    validation: dict[str, Path],
    shape: ProxyShape = ProxyShape(),
    plan: TrainingPlan | None = None,
    start: Path | None = None,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Train a model of `shape` on packed `sequences`; `plan` says how (its paths are not used), its seed also draws the weights.

    `start` is a model directory to go on from in place of random weights; `keep` is where the trained model goes.
    Returns steps, tokens, parameters, loss_start, loss_end, and `validation`: set → {before, after}, each with loss and
    components in nats per token. Unless `keep`, nothing stays on disk; torch's threads, determinism and random state are then
    as before.
    """
    with training(sequences, validation, shape, plan, start) as run:
        return finished(run, keep)


@contextmanager
def training(
    sequences: Path, validation: dict[str, Path], shape: ProxyShape, plan: TrainingPlan | None, start: Path | None = None
) -> Iterator["Training"]:
    """A proxy run, ready to train, and torch's switches set for it; its scratch directory goes with it."""
    from midtrain_dagster.train import loop
    from midtrain_dagster.train.base import make_model
    from midtrain_dagster.train.ranks import Ranks

    data = Sequences.open(sequences)
    given = plan or TrainingPlan("", "", "", peak_learning_rate=3e-3, batch_sequences=16, micro_batch=16)
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        model = start or Path(folder) / "start"
        mine = replace(given, model=str(model), sequences=str(sequences), out=folder, checkpoint_every=0,
                       validation={name: str(path) for name, path in validation.items()})  # fmt: skip
        with torch_for(mine):
            if start is None:
                make_model(model, data.vocab_size, shape.layers, shape.hidden, shape.heads, data.length, given.seed)
            yield loop.prepare(mine, Ranks.alone())


def finished(run: "Training", keep: Path | None = None) -> dict[str, Any]:
    """Train to the end; what `train_proxy` returns."""
    from midtrain_dagster.train import loop
    from midtrain_dagster.train.run import refuse_broken, summarize

    records = list(loop.steps(run))
    refuse_broken(run)
    summary = summarize(run, records, "", 0.0)
    if keep:
        loop.finish(run)
        shutil.rmtree(keep, ignore_errors=True)
        shutil.move(Path(run.plan.out) / "model", keep)
    kept = ("steps", "tokens", "parameters", "loss_start", "loss_end", "validation", "guards", "tokens_per_second")
    return {name: summary[name] for name in kept}
