"""The driver: every parent and request accounted for, documents that say how they came about, resuming."""

import json

import polars as pl
import pytest

from midtrain_dagster.documents import SCHEMA, documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.generators import GENERATOR, Questions, Rewrite
from midtrain_dagster.synthesize.driver import OUTCOMES, choose, estimate, summary, synthesize
from midtrain_dagster.synthesize.kinds import KINDS, make
from midtrain_dagster.synthesize.prompts import prompt_hash
from midtrain_dagster.synthesize.teacher import Reply
from resources.teacher import CachedTeacher, FakeTeacher

RIVER = (
    "The Volga is the longest river in Europe. It rises in the Valdai Hills northwest of Moscow and flows 3,531 km"
    " to the Caspian Sea. Eleven of the twenty largest cities of Russia lie in its basin."
)
GOOD = "Question: How long is the Volga?\nAnswer: The Volga flows 3,531 km to the Caspian Sea."


def parents(number, text=RIVER):
    rows = (
        {"id": f"p{i}", "text": f"{text} Part {i}.", "source": "web", "domain": "prose", "license": "CC0-1.0"}
        for i in range(number)
    )
    return documents(rows)


def answer(request):
    """Good for p0, refused for p1, cut for p2, lost for p3, foreign matter for p4, no form for p5, empty for p6."""
    asked = request.messages[-1]["content"]
    replies = {
        "Part 0.": GOOD,
        "Part 1.": "I'm sorry, but I cannot help with that.",
        "Part 2.": Reply("Question: How long is", finish_reason="length"),
        "Part 3.": Reply(error="timeout"),
        "Part 4.": "Question: How long is the Volga?\nAnswer: Bananas ripen under tropical sunshine quickly.",
        "Part 5.": "The Volga is long.",
        "Part 6.": "  ",
    }
    return next(reply for words, reply in replies.items() if words in asked)


def test_every_parent_is_accounted_for_with_its_reason():
    result = synthesize(parents(7), make(Questions(name="qa")), FakeTeacher(answer))
    assert result.outcomes.schema == OUTCOMES
    told = dict(result.outcomes.select("parent_id", "reason").iter_rows())
    assert told == {
        "p0": None,
        "p1": "refusal",
        "p2": "no pair",
        "p3": "failed: timeout",
        "p4": "answer not grounded",
        "p5": "no pair",
        "p6": "empty",
    }
    assert summary(result)["rejected"] == {
        "no pair": 2,
        "answer not grounded": 1,
        "empty": 1,
        "failed: timeout": 1,
        "refusal": 1,
    }


def test_a_document_says_what_it_is_and_how_it_came_about():
    result = synthesize(parents(1), make(Questions(name="qa")), FakeTeacher(answer))
    assert result.documents.schema == SCHEMA
    (row,) = result.documents.to_dicts()
    assert (row["text"], row["format"], row["source"]) == (GOOD, "qa", "qa")
    assert (row["domain"], row["license"], row["parent_ids"]) == ("prose", "CC0-1.0", ["p0"])
    account = json.loads(row["generator"])
    assert (account["model"], account["kind"]) == ("fake", "questions")
    assert account["prompts"]["questions.txt"] == prompt_hash("questions")
    assert account["parameters"]["temperature"] == 0.0
    assert result.outcomes["document_id"][0] == row["id"]


def test_equal_runs_give_equal_bytes_whatever_the_batches():
    frames = [synthesize(parents(7), make(Questions(name="qa")), FakeTeacher(answer), batch=n).documents for n in (1, 3, 2048)]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


def test_a_second_run_asks_for_nothing(tmp_path):
    fake = FakeTeacher(answer)
    first = synthesize(parents(3), make(Questions(name="qa")), CachedTeacher(fake, tmp_path / "c.sqlite"))
    asked = len(fake.asked)
    again = synthesize(parents(3), make(Questions(name="qa")), CachedTeacher(fake, tmp_path / "c.sqlite"))
    assert len(fake.asked) == asked
    assert again.documents.equals(first.documents)
    assert again.outcomes["cached"].all()


def test_a_short_parent_is_a_rejected_parent_without_a_request():
    result = synthesize(parents(1, "Too short."), make(Questions(name="qa")), FakeTeacher(answer))
    (row,) = result.outcomes.to_dicts()
    assert (row["request"], row["accepted"], row["reason"]) == (None, False, "parent too short")


def test_parents_are_chosen_by_sql_and_a_stable_draw():
    frame = parents(30).with_columns(quality=pl.int_range(30))
    chosen = choose(frame, make(Questions(name="qa", where="quality >= 10", limit=5)))
    assert len(chosen) == 5
    assert chosen["quality"].min() >= 10
    assert chosen.equals(choose(frame.reverse(), make(Questions(name="qa", where="quality >= 10", limit=5))))


def test_a_wrong_condition_is_told():
    with pytest.raises(MidtrainError, match="no_such_column"):
        choose(parents(2), make(Questions(name="qa", where="no_such_column > 1")))


def test_without_a_teacher_a_generator_that_needs_one_fails():
    with pytest.raises(MidtrainError, match="needs a teacher"):
        synthesize(parents(1), make(Questions(name="qa")), None)


def test_an_estimate_is_in_proportion():
    sample = synthesize(
        parents(2), make(Rewrite(name="r", minimum_words=1)), FakeTeacher(lambda request: "The Volga flows far.")
    )
    told = estimate(sample, 200)
    assert told["requests"] == 200
    assert told["completion_tokens"] == 100 * sample.outcomes["completion_tokens"].sum()


def test_every_kind_of_settings_has_its_generator():
    kinds = set(GENERATOR.json_schema()["discriminator"]["mapping"])
    assert kinds == {kind.model_fields["kind"].default for kind in KINDS}
