"""Training speed of our loop, a bare torch loop and Hugging Face's Trainer: one model, tokens and precision, in one process.

    python benchmarks/training.py [--steps 10] [--layers 4] [--hidden 256] [--vocabulary 4096] [--length 256]

Prints one JSON object: tokens a second of each (median step of ours and the bare loop, whole run of Trainer) and our ratio to them.
The peers see whole sequences; ours also keeps documents apart and logs losses by component.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from midtrain_dagster.sequences import Sequences, SequenceWriter
from midtrain_dagster.train.base import make_model
from midtrain_dagster.train.models import load_model
from midtrain_dagster.train.plan import TrainingPlan
from midtrain_dagster.train.run import run

BATCH = 8


def data(path: Path, count: int, length: int, vocabulary: int) -> Sequences:
    random = np.random.default_rng(0)
    with SequenceWriter(path, length, vocabulary, ("general",)) as writer:
        spans = [(i, start, length // 2, 0, 0, 0) for i in range(count) for start in (0, length // 2)]
        writer.append(random.integers(vocabulary, size=(count, length)), np.array(spans))
    return Sequences.open(path)


def ours(model: Path, packed: Sequences, out: Path) -> float:
    plan = TrainingPlan(
        str(model), str(packed.path), str(out), batch_sequences=BATCH, micro_batch=BATCH, precision="fp32", checkpoint_every=0
    )
    return float(run(plan, lambda line: None)["tokens_per_second"])


def bare(model: Path, packed: Sequences) -> float:
    net: Any = load_model(model).train()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    speeds = []
    for begin in range(0, packed.count, BATCH):
        started = time.perf_counter()
        tokens = torch.from_numpy(packed.tokens[begin : begin + BATCH].astype(np.int64))
        net(tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        speeds.append(tokens.numel() / (time.perf_counter() - started))
    return statistics.median(speeds)


def trainer(model: Path, packed: Sequences, out: Path) -> float:
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(packed.tokens.astype(np.int64))]
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=BATCH, num_train_epochs=1, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, logging_steps=1000,
    )  # fmt: skip
    started = time.perf_counter()
    Trainer(load_model(model), arguments, train_dataset=rows).train()
    return packed.count * packed.length / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("steps", 10), ("layers", 4), ("hidden", 256), ("vocabulary", 4096), ("length", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        packed = data(root / "data", given.steps * BATCH, given.length, given.vocabulary)
        make_model(root / "model", given.vocabulary, given.layers, given.hidden, 4, given.length)
        speeds = {
            "ours": ours(root / "model", packed, root / "ours"),
            "bare": bare(root / "model", packed),
            "trainer": trainer(root / "model", packed, root / "trainer"),
        }
    ratios = {f"ours/{name}": round(speeds["ours"] / speeds[name], 2) for name in ("bare", "trainer")}
    shape = {**vars(given), "threads": torch.get_num_threads()}
    print(json.dumps({**shape, **{name: round(speed, 1) for name, speed in speeds.items()}, **ratios}))


if __name__ == "__main__":
    main()
