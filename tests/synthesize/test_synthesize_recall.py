"""Recall of pages that hold questions: the model learns, the hosts are judged."""

import polars as pl
import pytest

from midtrain_dagster.documents import documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.synthesize.recall import recall_scores, train_recall, useful_hosts
from resources.teacher import FakeTeacher

QUIZ = [f"Question {i}: what is {i} plus {i + 1}? Answer: the sum is {2 * i + 1}." for i in range(40)]
NEWS = [f"On day {i} the council met in the town hall and spoke about roads and parks." for i in range(40)]


def model():
    return train_recall(QUIZ[:30], NEWS[:30], minCount=1, epoch=50, dim=16)


def pages():
    rows = [{"id": f"q{i}", "text": QUIZ[i], "url": "https://quiz.example/x"} for i in range(30, 40)]
    return documents(rows + [{"id": f"n{i}", "text": NEWS[i], "url": "https://news.example/x"} for i in range(30, 40)])


def test_pages_like_the_seeds_are_recalled():
    scores = recall_scores(model(), pages())
    quiz = pl.col("id").str.starts_with("q")
    assert scores.filter(quiz)["recall_score"].min() > 0.5 > scores.filter(~quiz)["recall_score"].max()
    assert scores["id"].to_list() == pages()["id"].to_list()


def test_equal_training_gives_equal_scores():
    assert recall_scores(model(), pages()).equals(recall_scores(model(), pages()))


def test_only_large_hosts_are_judged_and_by_the_teacher():
    scores = recall_scores(model(), pages())
    assert useful_hosts(scores, FakeTeacher({"quiz.example": "Yes."}), minimum=5).rows() == [("quiz.example", 10, True)]
    assert useful_hosts(scores, FakeTeacher({}), minimum=5)["useful"].to_list() == [None]
    assert useful_hosts(scores, FakeTeacher({}), minimum=11).is_empty()


def test_recall_needs_both_sides():
    with pytest.raises(MidtrainError, match="seed pages"):
        train_recall([], NEWS)
