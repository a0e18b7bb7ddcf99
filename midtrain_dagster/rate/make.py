"""From a project file's entry to a rater that is ready to score."""

from collections.abc import Callable
from pathlib import Path

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import ClassifierRater, DsirRater, EduRater, Examples, FastTextRater, PerplexityRater
from midtrain_dagster.project.raters import Rater as RaterSettings
from midtrain_dagster.rate.heads import Encoder, Head, HeadRater
from midtrain_dagster.rate.rate import Rater

Texts = Callable[[Examples], list[str]]
"""Finds the texts of examples: a stage cannot read a project's tables, its caller can."""


def make(
    rater: RaterSettings,
    texts: Texts | None = None,
    encoder: Encoder | None = None,
    trained: Path | None = None,
    device: str = "cpu",
) -> Rater:
    """The rater that an entry describes. `trained` is the file of what was learnt for it: a fastText model, importance weights, a head.

    DSIR needs `texts` where it has no `trained`; QuRating and an educational head of one's own need `encoder` and `trained`.
    Raises MidtrainError when one that is needed was not given.
    """
    if isinstance(rater, FastTextRater):
        from midtrain_dagster.rate.fasttext import POSITIVE, FastText

        if rater.model is not None:
            return FastText(rater.name, rater.model, rater.label)
        if trained is None:
            raise MidtrainError(f"rater {rater.name}: it is not trained yet")
        return FastText(rater.name, trained, POSITIVE)
    if isinstance(rater, PerplexityRater):
        from midtrain_dagster.rate.perplexity import Perplexity

        return Perplexity(rater.name, rater.model, rater.max_tokens, device)
    if isinstance(rater, ClassifierRater):
        from midtrain_dagster.rate.classifier import Classifier

        return Classifier(rater.name, rater.model, rater.label, rater.max_tokens, device)
    if isinstance(rater, DsirRater):
        return _dsir(rater, texts, trained)
    if isinstance(rater, EduRater) and rater.model is not None:
        from midtrain_dagster.rate.edu import published

        return published(rater.name, rater.model, rater.max_tokens, device)
    if encoder is None or trained is None:
        raise MidtrainError(f"rater {rater.name}: a trained head needs an encoder, and to be trained first")
    return HeadRater(rater.name, encoder, Head.load(trained))


def _dsir(rater: DsirRater, texts: Texts | None, trained: Path | None) -> Rater:
    from midtrain_dagster.rate.dsir import Dsir, fit

    if trained is not None:
        return Dsir.load(rater.name, trained, rater.min_words)
    if texts is None:
        raise MidtrainError(f"rater {rater.name}: DSIR needs the texts of its target and of `raw`")
    return fit(rater.name, texts(rater.target), texts(rater.raw), rater.buckets, rater.min_words)
