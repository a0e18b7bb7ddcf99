"""Training speed of our loop, a bare torch loop and Hugging Face's Trainer: one model, tokens and precision, in one process.

    python benchmarks/training.py [--rounds 3] [--steps 6] [--layers 4] [--hidden 256] [--vocabulary 4096] [--length 256]
        [--documents 2] [--precision fp32] [--model DIR] [--clock cpu] [--checkpoint-every N]
    python benchmarks/training.py --gpu [135M 360M 1.7B] [--lengths 2048 8192 32768]

In each round the three take turns, beginning with another one. Each trains `steps` steps from the same weights on the same
sequences; its speed is tokens a second of the median step, the first of a round left out. Prints one JSON object: the median over
rounds, and the median over rounds of our ratio to each. The peers see whole sequences; ours keeps the `documents` of a sequence
apart and logs losses by component, and on a CPU it runs torch's deterministic kernels. In bf16 all three keep weights and moments
in fp32: the peers by autocast. With `--checkpoint-every` a last run of ours writes checkpoints, and the shares of its time that
training waited for them and for its input are printed too. On a machine that others use, `--clock cpu` counts the processor's
seconds of this process in place of the wall's: compare it with one thread.

With `--gpu`: model FLOPs utilisation by model size and sequence length, compiled, in bf16, with the largest batch that fits; and at
the first shape and length our ratio to Trainer. One JSON line a configuration, each in a process of its own.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
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

PRECISION = "bf16" if "bf16" in sys.argv or "--gpu" in sys.argv or "--one" in sys.argv else "fp32"
CUDA = "--gpu" in sys.argv or "--one" in sys.argv


def CLOCK() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.process_time() if "cpu" in sys.argv else time.perf_counter()


SHAPES = {  # layers, hidden, heads, key heads, feed-forward: SmolLM2's
    "135M": (30, 576, 9, 3, 1536),
    "360M": (32, 960, 15, 5, 2560),
    "1.7B": (24, 2048, 32, 32, 8192),
}


def data(path: Path, count: int, length: int, vocabulary: int, documents: int) -> Sequences:
    random = np.random.default_rng(0)
    each = length // documents
    with SequenceWriter(path, length, vocabulary, ("general",)) as writer:
        spans = [(i, n * each, each, 0, 0, 0) for i in range(count) for n in range(documents)]
        writer.append(random.integers(vocabulary, size=(count, length)), np.array(spans))
    return Sequences.open(path)


def ours(model: Path, packed: Sequences, batch: int, out: Path) -> list[float]:
    plan = TrainingPlan(
        str(model), str(packed.path), str(out), batch_sequences=batch, micro_batch=batch, precision=PRECISION, checkpoint_every=0,
        compile=CUDA,
    )  # fmt: skip
    with torch_for(plan):
        training = loop.prepare(plan, Ranks.join())
        moments = [CLOCK(), *(CLOCK() for _ in loop.steps(training))]
    return list(np.diff(moments))


def waits(model: Path, packed: Sequences, batch: int, out: Path, every: int) -> dict[str, float]:
    """Shares of our time that training waited for its input and for checkpoints."""
    plan = TrainingPlan(
        str(model), str(packed.path), str(out), batch_sequences=batch, micro_batch=batch, precision=PRECISION,
        checkpoint_every=every,
    )  # fmt: skip
    with torch_for(plan):
        training = loop.prepare(plan, Ranks.join())
        for _ in loop.steps(training):
            pass
        training.writer.wait()
    shares = {"input_share": training.reading / training.stepping, "checkpoint_share": training.stalled / training.stepping}
    return {name: round(share, 5) for name, share in shares.items()}


def bare(model: Path, packed: Sequences, batch: int, out: Path) -> list[float]:
    device = torch.device("cuda" if CUDA else "cpu")
    net: Any = load_model(model, "sdpa", device).train()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    moments = [CLOCK()]
    for begin in range(0, packed.count, batch):
        tokens = torch.from_numpy(packed.tokens[begin : begin + batch].astype(np.int64)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=PRECISION == "bf16"):
            loss = net(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
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
        str(out), per_device_train_batch_size=batch, num_train_epochs=1, save_strategy="no", report_to=[], use_cpu=not CUDA,
        bf16=PRECISION == "bf16", disable_tqdm=True, logging_steps=1000,
    )  # fmt: skip
    clock = Clock()
    Trainer(load_model(model), arguments, train_dataset=rows, callbacks=[clock]).train()
    return list(np.diff(clock.moments))


LOOPS: dict[str, Callable[[Path, Sequences, int, Path], list[float]]] = {"ours": ours, "bare": bare, "trainer": trainer}


def shaped(path: Path, name: str, length: int) -> None:
    """A model of one of SHAPES with random weights and SmolLM2's vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, hidden, heads, key_heads, feed_forward = SHAPES[name]
    config = LlamaConfig(
        vocab_size=49152, hidden_size=hidden, intermediate_size=feed_forward, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=key_heads, max_position_embeddings=length, tie_word_embeddings=True, dtype="float32",
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)


def utilisation(name: str, length: int, ratio: bool) -> dict[str, Any]:
    """MFU, tokens a second and memory of one shape at one length on this GPU: medians of the steps after the first two."""
    from midtrain_dagster.train.fit import fitting

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shaped(root / "model", name, length)
        packed = data(root / "data", 128, length, 49152, 2)
        tokens = 1 << 19
        plan = TrainingPlan(
            str(root / "model"), str(packed.path), str(root / "out"), batch_sequences=max(tokens // length, 1), precision="bf16",
            compile=True, activation_checkpointing=length > 8192, checkpoint_every=0, steps=8,
        )  # fmt: skip
        found = fitting(plan)
        plan = dataclasses.replace(plan, micro_batch=found["micro_batch"])
        with torch_for(plan):
            records = list(loop.steps(loop.prepare(plan, Ranks.join())))[2:]
        middle = {key: statistics.median(r[key] for r in records) for key in ("mfu", "tokens_per_second", "memory_gb")}
        batch = found["micro_batch"]
        more: dict[str, Any] = {}
        if ratio:
            rows = data(root / "rows", 8 * batch, length, 49152, 2)
            speeds = {
                loop_name: batch
                * length
                / statistics.median(LOOPS[loop_name](root / "model", rows, batch, root / loop_name)[2:])
                for loop_name in ("ours", "trainer", "bare")
            }
            more = {f"ours/{other}": round(speeds["ours"] / speeds[other], 3) for other in ("trainer", "bare")}
    device = torch.cuda.get_device_name()
    return {"device": device, "shape": name, "length": length, "micro_batch": batch, **middle, **more}


def on_gpu(shapes: list[str], lengths: list[int]) -> None:
    """Every shape at every length, each in a process of its own, so that none inherits another's memory."""
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/training.py --gpu: this machine has no GPU")
    for name in shapes:
        for length in lengths:
            first = [name, length] == [shapes[0], lengths[0]]
            command = [sys.executable, __file__, "--one", name, str(length), *(["ratio"] if first else [])]
            done = subprocess.run(command, capture_output=True, text=True)
            failed = {"shape": name, "length": length, "failed": " ".join(done.stderr.strip().splitlines()[-1:])}
            print(done.stdout.strip().splitlines()[-1] if done.returncode == 0 else json.dumps(failed), flush=True)


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
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--checkpoint-every", type=int, default=0)
    parser.add_argument("--gpu", nargs="*", choices=list(SHAPES))
    parser.add_argument("--lengths", nargs="*", type=int, default=[2048, 8192, 32768])
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(utilisation(given.one[0], int(given.one[1]), ratio="ratio" in given.one)))
        return
    if given.gpu is not None:
        on_gpu(given.gpu or list(SHAPES), given.lengths)
        return
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
        waited = waits(model, packed, given.batch, root / "waits", given.checkpoint_every) if given.checkpoint_every else {}
    ratios = {
        f"ours/{name}": round(statistics.median(a / b for a, b in zip(speeds["ours"], of, strict=True)), 3)
        for name, of in speeds.items()
        if name != "ours" and "ours" in speeds
    }
    shape = {**vars(given), "model": str(given.model or "made"), "threads": torch.get_num_threads()}
    print(
        json.dumps(
            {**shape, **{name: round(statistics.median(found), 1) for name, found in speeds.items()}, **ratios, **waited}
        )
    )


if __name__ == "__main__":
    main()
