"""What a person sees before setting a threshold."""

import polars as pl

from midtrain_dagster.decontaminate.match import MATCHES_SCHEMA
from midtrain_dagster.decontaminate.review import aligned, by_evidence, by_level, samples, side_by_side, touched

QUESTIONS = pl.DataFrame(
    {"question_id": ["q1", "q2", "q3"], "benchmark": ["gsm", "gsm", "mmlu"], "question": ["How many eggs?", "Why?", "Who?"]}
)


def matches(*rows: dict) -> pl.DataFrame:
    filled = [{**dict.fromkeys(MATCHES_SCHEMA), "start": 0, "end": 5, "longest_run": 3, **row} for row in rows]
    return pl.DataFrame(filled, schema={**MATCHES_SCHEMA, "source": pl.String})


FOUND = matches(
    {"id": "a", "question_id": "q1", "benchmark": "gsm", "source": "web", "score": 1.0, "verbatim": True},
    {"id": "a", "question_id": "q2", "benchmark": "gsm", "source": "web", "score": 0.55, "slots_changed": 2},
    {"id": "b", "question_id": "q1", "benchmark": "gsm", "source": "code", "score": 0.52, "cosine": 0.9},
    {"id": "c", "question_id": "q3", "benchmark": "mmlu", "source": "web", "score": 0.38, "longest_run": 9},
)


def test_what_is_touched_by_benchmark_source_and_evidence():
    assert touched(QUESTIONS, FOUND, 0.5).rows() == [
        ("gsm", 2, "code", 1, 1, 0.52),
        ("gsm", 2, "web", 2, 1, 1.0),
        ("mmlu", 1, None, 0, 0, None),
    ]
    assert by_evidence(FOUND, 0.3).select("found_in", "evidence", "questions_touched", "documents").rows() == [
        ("code", "alike as a whole", 1, 1),
        ("web", "numbers or names changed", 1, 1),
        ("web", "verbatim", 1, 1),
        ("web", "8 words and more in a row", 1, 1),
    ]


def test_each_level_says_what_a_threshold_there_would_take():
    assert by_level(FOUND, 0.5).rows() == [
        (1.0, True, 1, 1, 1, 1),
        (0.5, True, 2, 2, 2, 2),  # a is taken already
        (0.3, False, 1, 1, 1, 3),
    ]
    apart = by_level(FOUND, 0.54)
    assert apart.filter(level=0.5)["counts"].to_list() == [True, False]


def test_every_level_has_samples_and_benchmarks_take_turns():
    many = matches(
        *({"id": f"d{n}", "question_id": "q1", "benchmark": "gsm", "source": "s", "score": 0.7 - n / 1000} for n in range(9)),
        {"id": "z", "question_id": "q3", "benchmark": "mmlu", "source": "s", "score": 0.61},
        {"id": "low", "question_id": "q3", "benchmark": "mmlu", "source": "s", "score": 0.3},
    )
    chosen = samples(many, each=2)
    assert chosen.select("level", "id").rows() == [(0.7, "d0"), (0.6, "d1"), (0.6, "z"), (0.3, "low")]


def test_pairs_stand_side_by_side_with_their_common_words_marked():
    assert side_by_side("How many red eggs?", "so HOW many eggs* are there") == (
        "**How many** red **eggs**?",
        "so **HOW many** **eggs**\\* are there",
    )
    texts = pl.DataFrame({"id": ["a", "b", "c"], "text": ["eggs eggs", None, "who was it"]})
    shown = aligned(samples(FOUND), QUESTIONS, texts)
    assert shown["level"].to_list() == [1.0, 0.5, 0.5, 0.3]
    assert shown.filter(ids="c q3").select("question", "passage").rows() == [("**Who**?", "**who** was it")]
