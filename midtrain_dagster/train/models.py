"""Models on their way in and out of training: safetensors only. Imported only inside functions (it imports torch)."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from safetensors.torch import save_file
from torch import Tensor  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train.attention import DOCUMENTS, register
from midtrain_dagster.train.plan import OPTIMIZER, Adapter

CausalLM = Any
"""A transformers model with a language-model head: its attributes differ by family."""
ATTENTION = {"documents": DOCUMENTS, "sdpa": "sdpa", "flex": "flex_attention", "eager": "eager"}


def load_model(path: Path, attention: str = "sdpa", device: torch.device | None = None) -> CausalLM:
    """A causal language model in fp32 from a directory with config.json and safetensors.

    Raises MidtrainError where there are no weights, or only pickled ones.
    """
    from transformers import AutoModelForCausalLM

    require_safetensors(path)
    register()
    model: CausalLM = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=ATTENTION[attention], use_safetensors=True, local_files_only=True
    )
    model.config.use_cache = False
    return model.to(device or "cpu")


def require_safetensors(path: Path) -> None:
    """Raise MidtrainError unless `path` is a model directory whose weights are safetensors."""
    if not (path / "config.json").exists():
        raise MidtrainError(f"{path}: not a model directory (config.json is missing)")
    if weight_files(path):
        return
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in path.glob(pattern))
    if pickled:
        raise MidtrainError(
            f"{path}: its weights are pickles ({', '.join(pickled)}), which can run code when they are read; "
            "convert them to safetensors where they came from"
        )
    raise MidtrainError(f"{path}: a model directory without weights (no *.safetensors)")


def weight_files(path: Path) -> list[Path]:
    """A model directory's safetensors with weights, in order."""
    return sorted(file for file in path.glob("*.safetensors") if file.name != OPTIMIZER)


def stored_dtype(path: Path) -> torch.dtype:
    """The type in which a model directory keeps its weights."""
    from safetensors import safe_open

    with safe_open(weight_files(path)[0], framework="pt") as file:
        return file.get_tensor(next(iter(file.keys()))).dtype


def with_adapter(model: CausalLM, adapter: Adapter) -> CausalLM:
    """The model with low-rank updates injected and all else frozen; without an adapter, the model itself."""
    if adapter.kind == "none":
        return model
    from peft import LoraConfig, get_peft_model

    kinds = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        target_modules=list(adapter.targets),
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.kind == "rslora",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, kinds)


def core(model: CausalLM) -> CausalLM:
    """The transformers model inside a possible adapter wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def save_model(
    model: CausalLM, tensors: Mapping[str, Tensor], source: Path, out: Path, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Write a model directory that plain transformers loads: config, one safetensors file, and the source's tokenizer.

    `tensors` holds the trained weights by parameter name of `model`; the rest is taken from it. Adapters are merged in fp32,
    W + scale·BA, so the merged model computes what base and adapter computed. Returns what was written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.data = tensors[name].clone() if name in tensors else parameter.data.float()
    plain = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    written = {name: p.detach().to(dtype).contiguous() for name, p in plain.named_parameters()}
    written |= {name: b.detach().contiguous() for name, b in plain.named_buffers() if name in plain.state_dict()}
    plain.config.dtype = str(dtype).removeprefix("torch.")
    plain.config.use_cache = True
    plain.config.save_pretrained(out)
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
    copy_tokenizer(source, out)
    return written


def copy_tokenizer(source: Path, out: Path) -> None:
    """Everything beside the weights and the configuration: tokenizer, chat template, generation settings."""
    weights = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".gguf", ".partial")
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name != "config.json" and not file.name.endswith(weights):
            shutil.copyfile(file, out / file.name)
