"""What a rater learns before it can rate, and the file that it is kept in. `make` turns the file into a rater."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from midtrain_dagster.project.raters import DsirRater, EduRater, Examples, FastTextRater, QuRater
from midtrain_dagster.rate.heads import Encoder
from midtrain_dagster.rate.teach import Ask, head_of_scores, scale_of_choices

FILE = {"fasttext": "model.bin", "dsir": "weights.npy", "edu": "head.safetensors", "qurater": "head.safetensors"}
"""By kind: the file, in a rater's own directory, that scoring needs. What stands beside it is for people."""

Texts = Callable[[Examples], list[str]]
"""Finds the texts of examples: a stage cannot read a project's tables, its caller can."""


class Learnt(NamedTuple):
    """What was learnt."""

    version: str  # hash of it
    about: dict[str, Any]  # how it does on what was kept from it


def from_documents(rater: FastTextRater | DsirRater, texts: Texts, out: Path) -> Learnt:
    """Learn from documents alone into directory `out`. Raises MidtrainError where there are too few."""
    return _classifier(rater, texts, out) if isinstance(rater, FastTextRater) else _weights(rater, texts, out)


def from_teacher(rater: EduRater | QuRater, texts: Sequence[str], ask: Ask, encoder: Encoder, out: Path) -> Learnt:
    """Learn a head over the encoder from what a teacher says of `texts`, into directory `out`.

    Raises MidtrainError where too few texts got an answer.
    """
    if isinstance(rater, EduRater):
        learnt, asked = head_of_scores(texts, ask, encoder, rater.training)
        head = learnt.head
        about = {"trained on": learnt.trained_on, "unanswered": asked.unanswered, **learnt.held_out._asdict()}
    else:
        scale, drawn, judgements = scale_of_choices(texts, rater, ask, encoder)
        judgements.write_parquet(out / "judgements.parquet")
        head = scale.head
        about = {"unanswered": drawn - len(judgements), **{k: v for k, v in scale._asdict().items() if k != "head"}}
    head.save(out / FILE[rater.kind])
    return Learnt(head.version, about)


def _classifier(rater: FastTextRater, texts: Texts, out: Path) -> Learnt:
    from midtrain_dagster.rate import fasttext

    assert rater.positives is not None
    assert rater.negatives is not None
    model = fasttext.train(texts(rater.positives), texts(rater.negatives), rater.training, out / FILE[rater.kind])
    held = model.held_out
    held.curve.write_parquet(out / "curve.parquet")
    held.calibration.write_parquet(out / "calibration.parquet")
    return Learnt(
        model.version,
        {
            "trained on": model.trained_on,
            "held-out examples": held.examples,
            "average precision": held.average_precision,
            "expected calibration error": held.expected_calibration_error,
        },
    )


def _weights(rater: DsirRater, texts: Texts, out: Path) -> Learnt:
    from midtrain_dagster.rate import dsir

    target, raw = texts(rater.target), texts(rater.raw)
    found = dsir.fit(rater.name, target, raw, rater.buckets, rater.min_words)
    found.save(out / FILE[rater.kind])
    return Learnt(found.version, {"target documents": len(target), "raw documents": len(raw)})
