"""Which program answers: transformers in this process, or a server that speaks OpenAI's protocol."""

from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.responses import Responses
from midtrain_dagster.progress import Progress
from midtrain_dagster.recipes.evaluation import Evaluation

SERVER = "openai:"  # openai:http://host:8000/v1#name, as vLLM, SGLang and llama.cpp serve it; also without this word


def backend(model: Path | str, settings: Evaluation, responses: Responses, progress: Progress | None) -> Any:
    """A model for lm-evaluation-harness; `scores` says whether it gives log-likelihoods, `packs` whether prefixes are shared."""
    if served(model):
        from midtrain_dagster.evaluate.server import ServedModel

        url, name = address(str(model))
        return ServedModel(url, name, settings=settings, responses=responses, progress=progress)
    from midtrain_dagster.evaluate.language_model import LanguageModel

    return LanguageModel(
        model,
        precision=settings.precision,
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        max_gen_toks=settings.max_gen_toks,
        responses=responses,
        progress=progress,
    )


def served(model: Path | str) -> bool:
    """Whether a server answers for this model."""
    return str(model).startswith((SERVER, "http://", "https://"))


def address(model: str) -> tuple[str, str]:
    """(URL, the model's name there) of `openai:URL#name`. Raises MidtrainError where a part is missing."""
    url, _, name = model.removeprefix(SERVER).partition("#")
    if not url.startswith(("http://", "https://")) or not name:
        raise MidtrainError(
            f"{model}: a served model is written openai:URL#name, as in openai:http://localhost:8000/v1#my-model"
        )
    return url.rstrip("/"), name


def tokenizer_of(model: Path | str) -> Any:
    """The tokenizer of a model in a directory or on the hub. Raises MidtrainError where there is none, as for a served model."""
    from transformers import AutoTokenizer

    if served(model):
        raise MidtrainError(f"{model}: a server does not say how it tokenizes; give the probes as rows of `ruler` instead")
    try:
        return AutoTokenizer.from_pretrained(str(model))
    except (OSError, ValueError) as error:
        raise MidtrainError(f"{model}: no tokenizer can be loaded from here: {' '.join(str(error).split())[:300]}") from None
