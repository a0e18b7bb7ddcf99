"""Training speed of our loop, a bare torch loop and Hugging Face's Trainer: one model, tokens and precision, in one process.

    python benchmarks/training.py [--rounds 3] [--steps 6] [--layers 4] [--hidden 256] [--vocabulary 4096] [--length 256]
        [--documents 2] [--model DIR] [--clock cpu]

In each round the three take turns, beginning with another one. Each trains `steps` steps from the same weights on the same
sequences; its speed is tokens a second of the median step, the first of a round left out. Prints one JSON object: the median over
rounds, and the median over rounds of our ratio to each. The peers see whole sequences; ours keeps the `documents` of a sequence
apart and logs losses by component, and on a CPU it runs torch's deterministic kernels. On a machine that others use, `--clock cpu`
counts the processor's seconds of this process in place of the wall's: compare it with one thread.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from midtrain_dagster.sequences import Sequences, SequenceWriter
from midtrain_dagster.train import loop
from midtrain_dagster.train.base import make_model
from midtrain_dagster.train.environment import torch_for
from midtrain_dagster.train.models import load_model
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.ranks import Ranks

CLOCK = time.process_time if "cpu" in sys.argv else time.perf_counter


def data(path: Path, count: int, length: int, vocabulary: int, documents: int) -> Sequences:
    random = np.random.default_rng(0)
    each = length // documents
    with SequenceWriter(path, length, vocabulary, ("general",)) as writer:
        spans = [(i, n * each, each, 0, 0, 0) for i in range(count) for n in range(documents)]
        writer.append(random.integers(vocabulary, size=(count, length)), np.array(spans))
    return Sequences.open(path)


def ours(model: Path, packed: Sequences, batch: int, out: Path) -> list[float]:
    plan = TrainingPlan(
        str(model), str(packed.path), str(out), batch_sequences=batch, micro_batch=batch, precision="fp32", checkpoint_every=0
    )
    with torch_for(plan):
        training = loop.prepare(plan, Ranks.join())
        moments = [CLOCK(), *(CLOCK() for _ in loop.steps(training))]
    return list(np.diff(moments))


def bare(model: Path, packed: Sequences, batch: int, out: Path) -> list[float]:
    net: Any = load_model(model).train()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    moments = [CLOCK()]
    for begin in range(0, packed.count, batch):
        tokens = torch.from_numpy(packed.tokens[begin : begin + batch].astype(np.int64))
        net(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        moments.append(CLOCK())
    return list(np.diff(moments))


def trainer(model: Path, packed: Sequences, batch: int, out: Path) -> list[float]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.moments: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.moments.append(CLOCK())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            self.moments.append(CLOCK())

    rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(packed.tokens.astype(np.int64))]
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=batch, num_train_epochs=1, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, logging_steps=1000,
    )  # fmt: skip
    clock = Clock()
    Trainer(load_model(model), arguments, train_dataset=rows, callbacks=[clock]).train()
    return list(np.diff(clock.moments))


LOOPS: dict[str, Callable[[Path, Sequences, int, Path], list[float]]] = {"ours": ours, "bare": bare, "trainer": trainer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {
        "rounds": 3,
        "steps": 6,
        "batch": 8,
        "layers": 4,
        "hidden": 256,
        "vocabulary": 4096,
        "length": 256,
        "documents": 2,
    }
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", type=Path, help="a model directory in place of one made from the shape")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", nargs="*", default=list(LOOPS), choices=list(LOOPS))
    given = parser.parse_args()
    speeds: dict[str, list[float]] = {name: [] for name in given.only}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = given.model or root / "model"
        if given.model is None:
            make_model(model, given.vocabulary, given.layers, given.hidden, 4, given.length)
        packed = data(root / "data", given.steps * given.batch, given.length, given.vocabulary, given.documents)
        for turn in range(given.rounds):
            for place in range(len(given.only)):
                name = given.only[(turn + place) % len(given.only)]
                seconds = LOOPS[name](model, packed, given.batch, root / f"{name}-{turn}")
                speeds[name].append(given.batch * given.length / statistics.median(seconds[1:]))
    ratios = {
        f"ours/{name}": round(statistics.median(a / b for a, b in zip(speeds["ours"], of, strict=True)), 3)
        for name, of in speeds.items()
        if name != "ours" and "ours" in speeds
    }
    shape = {**vars(given), "model": str(given.model or "made"), "threads": torch.get_num_threads()}
    print(json.dumps({**shape, **{name: round(statistics.median(found), 1) for name, found in speeds.items()}, **ratios}))


if __name__ == "__main__":
    main()
