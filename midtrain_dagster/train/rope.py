"""Longer context by other rotary frequencies: PI, NTK-aware, dynamic NTK, NTK-by-parts, YaRN, LongRoPE, llama3, a raised base.

Rotary embedding turns pair i of D dimensions at position m by the angle m·θ_i, θ_i = b^(-2i/D) (RoFormer, 2104.09864). Each
method is one change of θ, written as `rope_parameters` into the model's configuration, so that plain transformers computes it;
the functions here compute the same frequencies in float64, to be looked at and tested.
"""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midtrain_dagster.errors import MidtrainError

METHODS = ("linear", "ntk", "ntk-by-parts", "dynamic", "yarn", "longrope", "llama3", "base")


def frequencies(dim: int, base: float) -> np.ndarray:
    """θ_i = base^(-2i/dim), (dim/2,) float64, in radians a position."""
    return float(base) ** (-np.arange(0, dim, 2) / dim)


def linear(theta: np.ndarray, factor: float) -> np.ndarray:
    """Position interpolation (2306.15595): position m becomes m/factor, which is θ/factor."""
    return theta / factor


def ntk_base(base: float, factor: float, dim: int) -> float:
    """NTK-aware base b·s^(D/(D-2)) (2309.00071 §3.1): the lowest frequency is divided by s, the highest stays."""
    return base * factor ** (dim / (dim - 2))


def dynamic_base(base: float, factor: float, dim: int, length: int, original: int) -> float:
    """Dynamic NTK as transformers has it: b·(s·l/L - (s - 1))^(D/(D-2)) for a sequence of l > L tokens, else b."""
    return base * (factor * max(length, original) / original - (factor - 1)) ** (dim / (dim - 2))


def by_parts(theta: np.ndarray, factor: float, original: int, alpha: float = 1.0, beta: float = 32.0) -> np.ndarray:
    """NTK-by-parts (2309.00071 §3.2): by the turns r = L·θ/2π that a pair makes within the original length L.

    Fewer than α turns: interpolated like PI; more than β: kept; a linear blend between. Llama 3.1's scaling ("llama3",
    2407.21783) is the same with α = low_freq_factor and β = high_freq_factor.
    """
    kept = np.clip((original * theta / (2 * math.pi) - alpha) / (beta - alpha), 0, 1)
    return (1 - kept) * theta / factor + kept * theta


def yarn_range(dim: int, base: float, original: int, alpha: float = 1.0, beta: float = 32.0) -> tuple[int, int]:
    """Pair indices between which YaRN's code blends: where a pair makes β and α turns, rounded outwards."""

    def index(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    return max(math.floor(index(beta)), 0), min(math.ceil(index(alpha)), dim - 1)


def yarn(dim: int, base: float, factor: float, original: int, alpha: float = 1.0, beta: float = 32.0) -> np.ndarray:
    """YaRN (2309.00071). The paper blends linearly in turns; its code, and transformers, blend linearly in the pair's index.

    We follow the code: a saved checkpoint must mean the same everywhere.
    """
    low, high = yarn_range(dim, base, original, alpha, beta)
    blended = np.clip((np.arange(dim // 2) - low) / (high - low or 0.001), 0, 1)
    theta = frequencies(dim, base)
    return blended * theta / factor + (1 - blended) * theta


def yarn_attention_factor(factor: float) -> float:
    """0.1·ln s + 1: cos and sin are multiplied by it, so q·k by its square (2309.00071 §3.4)."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def longrope_attention_factor(factor: float, original: int) -> float:
    """√(1 + ln s / ln L) (2402.13753)."""
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def inv_freq(parameters: dict[str, Any], dim: int, max_positions: int, length: int | None = None) -> tuple[np.ndarray, float]:
    """Frequencies (dim/2,) and attention factor that `rope_parameters` of transformers stand for.

    `length`: tokens in the sequence, which `dynamic` and `longrope` depend on; None: not beyond the original.
    """
    base, factor = float(parameters["rope_theta"]), float(parameters.get("factor") or 1.0)
    original = int(parameters.get("original_max_position_embeddings", max_positions))
    theta = frequencies(dim, base)
    match parameters["rope_type"]:
        case "default":
            return theta, 1.0
        case "linear":
            return linear(theta, factor), 1.0
        case "dynamic":
            return frequencies(dim, dynamic_base(base, factor, dim, length or max_positions, max_positions)), 1.0
        case "yarn":
            return yarn(dim, base, factor, original), parameters.get("attention_factor") or yarn_attention_factor(factor)
        case "llama3":
            return by_parts(theta, factor, original, parameters["low_freq_factor"], parameters["high_freq_factor"]), 1.0
        case "longrope":
            divisors = parameters["long_factor" if length and length > original else "short_factor"]
            return theta / np.asarray(divisors, float), longrope_attention_factor(factor, original)
        case kind:
            raise MidtrainError(f"rope_type {kind} is not known here")


def rope_parameters(
    method: str, factor: float, theta: float, dim: int, original: int, *, base: float | None = None,
    short_factor: Sequence[float] | None = None, long_factor: Sequence[float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`rope_parameters` for transformers. `theta` is the base so far, `original` the length that was trained.

    NTK-aware and raised base are plain rope with another theta; NTK-by-parts is written as `llama3` with bounds 1 and 32.
    """
    extended: dict[str, Any] = {"rope_theta": theta, "factor": float(factor), "original_max_position_embeddings": original}
    match method:
        case "linear":
            return {"rope_type": "linear", "rope_theta": theta, "factor": float(factor)}
        case "ntk":
            return {"rope_type": "default", "rope_theta": ntk_base(theta, factor, dim)}
        case "base":
            if base is None or base < theta:
                raise MidtrainError(f"method base raises theta: give a base above the model's {theta:g}")
            return {"rope_type": "default", "rope_theta": float(base)}
        case "dynamic":
            return {"rope_type": "dynamic", **extended}
        case "yarn":
            return {"rope_type": "yarn", **extended, "beta_fast": 32.0, "beta_slow": 1.0}
        case "ntk-by-parts":
            return {"rope_type": "llama3", **extended, "low_freq_factor": 1.0, "high_freq_factor": 32.0}
        case "llama3":
            return {"rope_type": "llama3", **extended, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        case "longrope":
            lists = {"short_factor": _divisors(short_factor, dim), "long_factor": _divisors(long_factor, dim)}
            return {"rope_type": "longrope", **extended, **lists}
    raise MidtrainError(f"method {method} is not known; choose one of {', '.join(METHODS)}")


def _divisors(values: Sequence[float] | None, dim: int) -> list[float]:
    if values is None or len(values) != dim // 2:
        found = "none" if values is None else f"{len(values)}"
        raise MidtrainError(f"longrope: short_factor and long_factor need {dim // 2} numbers each, one a pair; found {found}")
    return [float(value) for value in values]


def extend_context(
    model: Path, method: str, factor: float, out: Path, *, base: float | None = None, original: int | None = None,
    short_factor: Sequence[float] | None = None, long_factor: Sequence[float] | None = None, configuration: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write `model` with a context `factor` times as long to `out`: configuration changed, weights and tokenizer copied.

    Where attention types have their own frequencies, only full attention is extended, as OLMo 3 did. Returns the
    lengths, the parameters written and the frequencies before and after. Raises MidtrainError for a model extended already; a
    further stage extends the `configuration` of the model before the first one, a directory, with the weights of the last.
    """
    from midtrain_dagster.train.models import require_safetensors

    require_safetensors(model)
    if out.resolve() == model.resolve():
        raise MidtrainError(f"{out}: the extended model needs a directory of its own")
    source = configuration or model
    config = json.loads((source / "config.json").read_text())
    before = _full_attention(config, source)
    dim = int(
        (config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
        * before.get("partial_rotary_factor", 1)
    )
    trained = original or config["max_position_embeddings"]
    lists = {"short_factor": short_factor, "long_factor": long_factor}
    after = rope_parameters(method, factor, float(before["rope_theta"]), dim, trained, base=base, **lists)
    if "partial_rotary_factor" in before:
        after["partial_rotary_factor"] = before["partial_rotary_factor"]
    # transformers measures `dynamic` against max_position_embeddings: it stays the trained length, and longer inputs adapt.
    length = trained if method == "dynamic" else round(trained * factor)
    nested = config.get("rope_parameters", {}).get("full_attention") is not None
    config["rope_parameters"] = {**config["rope_parameters"], "full_attention": after} if nested else after
    config["max_position_embeddings"] = length
    config.pop("rope_scaling", None)
    config.pop("rope_theta", None)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(model.iterdir()):
        if file.is_file() and file.name != "config.json":
            shutil.copyfile(file, out / file.name)
    (out / "config.json").write_text(json.dumps(config, indent=2))
    changed, attention = inv_freq(after, dim, length, round(trained * factor))
    return {
        "model": str(out), "method": method, "factor": factor, "original": trained, "context": round(trained * factor),
        "rope_parameters": after, "attention_factor": attention,
        "inv_freq_before": inv_freq(before, dim, trained)[0].tolist(), "inv_freq": changed.tolist(),
    }  # fmt: skip


def _full_attention(config: dict[str, Any], model: Path) -> dict[str, Any]:
    """The model's rope parameters so far, from new and old forms of the configuration; raises if they are scaled already."""
    stored = config.get("rope_parameters") or {**(config.get("rope_scaling") or {}), "rope_theta": config.get("rope_theta")}
    found = dict(stored.get("full_attention") or stored)
    found.setdefault("rope_type", found.pop("type", "default"))
    if found.get("rope_theta") is None:
        raise MidtrainError(f"{model}/config.json: no rope_theta; a model without rotary embedding cannot be extended")
    if found["rope_type"] != "default":
        raise MidtrainError(
            f"{model}: its context is extended already ({found['rope_type']}); extend the model it was made from"
        )
    return found
