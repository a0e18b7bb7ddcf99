"""Averages of models: soups over seeds (2203.05482; OLMo 2, 2501.00656) and of the last checkpoints (Polyak)."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from midtrain_dagster.errors import MidtrainError


def soup(models: Sequence[Path], out: Path, weights: Sequence[float] | None = None) -> str:
    """Write the weighted mean of model directories of one shape; returns the digest of its weights.

    The sum is taken in float64 and stored in the first model's type. `weights` default to equal ones and are divided by their
    sum. Configuration and tokenizer are the first model's; optimizer moments are not averaged, a next stage starts from zero. Raises MidtrainError when tensors differ in name or shape.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from midtrain_dagster.train.checkpoint import digest
    from midtrain_dagster.train.models import copy_tokenizer, require_safetensors, weight_files

    if not models or (weights is not None and (len(weights) != len(models) or sum(weights) <= 0)):
        raise MidtrainError("a soup needs models, and as many weights (with a positive sum) as models, or none")
    shares = [w / sum(weights) for w in weights] if weights else [1 / len(models)] * len(models)
    total: dict[str, torch.Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for path, share in zip(models, shares, strict=True):
        require_safetensors(path)
        tensors = {name: t for file in weight_files(path) for name, t in load_file(file).items()}
        if total and {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in total.items()}:
            raise MidtrainError(
                f"{path}: its tensors differ in name or shape from those of {models[0]}; they cannot be averaged"
            )
        for name, tensor in tensors.items():
            types.setdefault(name, tensor.dtype)
            total[name] = total[name].add_(tensor.double(), alpha=share) if name in total else tensor.double() * share
    out.mkdir(parents=True, exist_ok=True)
    mean = {name: tensor.to(types[name]) for name, tensor in total.items()}
    save_file(mean, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(models[0] / "config.json", out / "config.json")
    copy_tokenizer(models[0], out)
    return digest(mean)
