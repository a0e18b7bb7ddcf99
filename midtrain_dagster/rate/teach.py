"""What a teacher is asked about documents, and what its words mean: scores for a head, choices between two texts.

A teacher here is anything that answers prompts; which model, what it costs and what is remembered is its caller's affair.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import polars as pl

from midtrain_dagster.project.raters import HeadTraining, QuRater
from midtrain_dagster.rate import edu, qurater
from midtrain_dagster.rate.heads import Encoder

Ask = Callable[[Sequence[str]], Sequence[str | None]]
"""The answers to prompts, in their order; None where none came."""

READ = 2_000  # characters of a document that a teacher reads
SCORE = """Below is a text from a collection of documents. Judge how useful it would be for teaching, in primary school to university.
Start at 0 and add one point for each of these that holds:
1. it says something about a subject that is taught;
2. it keeps to that subject, and its parts belong together;
3. it explains, so that a learner could follow it, with little that distracts;
4. it is clear and complete enough to be a lesson, a textbook section or a worked exercise;
5. it is excellent teaching: exact, well ordered, with reasons, examples or answers.

Text:
{text}

Answer with the number of points alone, from 0 to 5."""
CHOICE = """Here are two texts.

Text A:
{first}

Text B:
{second}

Which of them {criterion}? Answer with the one letter A or B."""
POINTS = re.compile(r"(?<![\d.])[0-5](?:\.\d+)?(?![\d/.]*\d)")
LETTER = re.compile(r"\b([AB])\b")


class Asked(NamedTuple):
    """Texts with the teacher's scores; texts it gave none for are counted."""

    texts: list[str]
    scores: list[float]
    unanswered: int


def scored(texts: Sequence[str], ask: Ask) -> Asked:
    """A teacher's scores of texts, 0 to 5."""
    answers = [points(reply) for reply in ask([SCORE.format(text=text[:READ]) for text in texts])]
    known = [(text, score) for text, score in zip(texts, answers, strict=True) if score is not None]
    return Asked([t for t, _ in known], [s for _, s in known], len(texts) - len(known))


def points(reply: str | None) -> float | None:
    """The first number from 0 to 5 in a reply; None where there is none."""
    found = POINTS.search(reply or "")
    return min(float(found.group()), edu.HIGHEST) if found else None


class TeacherJudge:
    """Chooses between two texts by asking a teacher (`qurater.Judge`)."""

    def __init__(self, ask: Ask):
        self.ask = ask

    def prefer(self, pairs: Sequence[tuple[str, str]], criterion: str) -> list[float | None]:
        """1 for the first text, 0 for the second, None where the reply names neither."""
        wanted = qurater.CRITERIA[criterion]
        prompts = [CHOICE.format(first=a[:READ], second=b[:READ], criterion=wanted) for a, b in pairs]
        letters = [LETTER.search(reply or "") for reply in self.ask(prompts)]
        return [None if found is None else float(found.group(1) == "A") for found in letters]


def head_of_scores(texts: Sequence[str], ask: Ask, encoder: Encoder, training: HeadTraining) -> tuple[edu.TrainedHead, Asked]:
    """An educational head (FineWeb-Edu's architecture) on a teacher's scores. Raises MidtrainError where too few were answered."""
    asked = scored(texts, ask)
    return edu.train(asked.texts, asked.scores, encoder, training), asked


def scale_of_choices(
    texts: Sequence[str], rater: QuRater, ask: Ask, encoder: Encoder
) -> tuple[qurater.LearntScale, int, pl.DataFrame]:
    """One QuRating criterion learnt from a teacher's choices, each pair asked for in both orders: the scale, how many pairs were
    asked about, and the judgements that came.
    """
    drawn = qurater.pairs_apart(texts, rater.pairs, rater.training)
    judgements = qurater.judged(texts, drawn, rater.criterion, TeacherJudge(ask))
    return qurater.train(texts, judgements, encoder, rater.training, rater.confidence), len(drawn), judgements
