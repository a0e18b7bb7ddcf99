"""From a project file's entry to a rater that is ready to score."""

from pathlib import Path

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import (
    ClassifierRater,
    DsirRater,
    EduRater,
    FastTextRater,
    PerplexityRater,
    QuRater,
    learns,
)
from midtrain_dagster.project.raters import Rater as RaterSettings
from midtrain_dagster.rate.heads import Encoder
from midtrain_dagster.rate.rate import Rater


def make(rater: RaterSettings, encoder: Encoder | None = None, learnt: Path | None = None, device: str = "cpu") -> Rater:
    """The rater that an entry describes. `learnt` is the file of what it was trained to (see `learn`); heads need `encoder`.

    Raises MidtrainError when one that is needed was not given.
    """
    if learns(rater):
        if learnt is None:
            raise MidtrainError(f"rater {rater.name}: it is not trained yet")
        return _trained(rater, learnt, encoder)
    match rater:
        case FastTextRater():
            from midtrain_dagster.rate.fasttext import FastText

            assert rater.model is not None
            return FastText(rater.name, rater.model, rater.label)
        case EduRater():
            from midtrain_dagster.rate.published import fineweb_edu

            assert rater.model is not None
            return fineweb_edu(rater.name, rater.model, rater.max_tokens, device)
        case QuRater():
            from midtrain_dagster.rate.published import PublishedQuRater

            assert rater.model is not None
            return PublishedQuRater(rater.name, rater.criterion, rater.model, rater.max_tokens, device)
        case PerplexityRater():
            from midtrain_dagster.rate.perplexity import Perplexity

            return Perplexity(rater.name, rater.model, rater.max_tokens, device)
        case ClassifierRater():
            from midtrain_dagster.rate.classifier import Classifier

            return Classifier(rater.name, rater.model, rater.label, rater.max_tokens, device)
    raise MidtrainError(f"rater {rater.name}: nothing makes one of kind {rater.kind}")


def _trained(rater: RaterSettings, learnt: Path, encoder: Encoder | None) -> Rater:
    """What learning has left in a file, as a rater."""
    if isinstance(rater, FastTextRater):
        from midtrain_dagster.rate.fasttext import POSITIVE, FastText

        return FastText(rater.name, learnt, POSITIVE)
    if isinstance(rater, DsirRater):
        from midtrain_dagster.rate.dsir import Dsir

        return Dsir.load(rater.name, learnt, rater.min_words)
    if encoder is None:
        raise MidtrainError(f"rater {rater.name}: a head needs the encoder that it was trained over")
    from midtrain_dagster.rate.heads import Head, HeadRater

    return HeadRater(rater.name, encoder, Head.load(learnt))
