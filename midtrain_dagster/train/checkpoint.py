"""Checkpoints of a running training: safetensors and JSON, complete or absent.

    OUT/state/step-00000120/weights.safetensors     trainable weights in fp32, whole
                            optimizer.safetensors   exp_avg.NAME, exp_avg_sq.NAME
                            average.safetensors     the moving average of the weights, where one is kept
                            state.json              step, fingerprint, optimizer steps, guards, validations

Tensors are stored whole, so a run resumes on any number of ranks. Imported only inside functions (it imports torch).
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor  # noqa: TID253

from midtrain_dagster.errors import MidtrainError


@dataclass(frozen=True)
class Checkpoint:
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor]
    state: dict[str, Any]


def place(out: Path, step: int) -> Path:
    return out / "state" / f"step-{step:08d}"


def save(out: Path, step: int, checkpoint: Checkpoint, keep: int, anchor: int | None = None) -> Path:
    """Write `OUT/state/step-N` beside its place and rename it there; then remove all but the newest `keep` and the anchor."""
    final, partial = place(out, step), out / "state" / f".partial-{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in (
        ("weights", checkpoint.weights),
        ("optimizer", checkpoint.optimizer),
        ("average", checkpoint.average),
    ):
        if tensors:
            save_file(tensors, partial / f"{name}.safetensors")
    (partial / "state.json").write_text(json.dumps(checkpoint.state))
    for file in partial.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in complete(out)[: -max(keep, 1)]:
        if anchor is None or old != place(out, anchor):
            shutil.rmtree(old)
    return final


def complete(out: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first. A half-written one has another name and is not among them."""
    return sorted((out / "state").glob("step-*"))


def load(path: Path) -> Checkpoint:
    tensors = {
        name: load_file(file) if (file := path / f"{name}.safetensors").exists() else {}
        for name in ("weights", "optimizer", "average")
    }
    return Checkpoint(**tensors, state=state(path))


def state(path: Path) -> dict[str, Any]:
    """A checkpoint's state.json."""
    try:
        found: dict[str, Any] = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise MidtrainError(f"{path}: not a checkpoint of ours: {error}") from None
    return found


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes: equal weights, equal digest."""
    import torch

    total = blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Of a file, or of the configuration, safetensors and distributed checkpoint in a directory."""
    kinds = ("*.safetensors", "config.json", "*.distcp", ".metadata")
    files = [path] if path.is_file() else sorted(file for kind in kinds for file in path.glob(kind))
    total = blake2b(digest_size=16)
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 24):
                total.update(block)
    return total.hexdigest()
