"""The driver: every parent and request accounted for, documents that say how they came about, resuming."""

import json

import polars as pl
import pytest

from midtrain_dagster.documents import SCHEMA, documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.generators import GENERATOR, Questions, Rewrite, Translation
from midtrain_dagster.project.teacher import Prices, TeacherSettings
from midtrain_dagster.synthesize.driver import OUTCOMES, check_answered, choose, estimate, summary, synthesize, unfinished
from midtrain_dagster.synthesize.generator import Tools
from midtrain_dagster.synthesize.kinds import KINDS, make
from midtrain_dagster.synthesize.prompts import prompt_hash
from midtrain_dagster.synthesize.teacher import Reply, taken
from resources.teacher import CachedTeacher, FakeTeacher, teacher
from resources.teacher_server import Manners, serving

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


def test_a_slow_conversation_holds_up_no_other():
    """The follow-ups of one parent are asked while another's first reply is still out."""
    asked: list[str] = []

    class Slow:
        model = "slow"

        def complete(self, requests, progress=None, keep=None):
            source, held = iter(requests), None
            position = -1
            while (request := next(source, None)) is not None:
                position += 1
                asked.append(request.messages[-1]["content"])
                if held is None:
                    held = position  # the first one is answered last
                else:
                    yield position, Reply("Die Wolga ist ein sehr langer Fluss in Europa und fließt weit.")
            if held is not None:
                yield held, Reply("Die Wolga ist ein sehr langer Fluss in Europa und fließt weit.")

    chosen = Translation(name="t", to="de", language_name="German", agreement=0.0)
    tools = Tools(identify_language=lambda text: "de" if "Fluss" in text else "en")
    result = synthesize(parents(3), make(chosen, tools), Slow(), batch=2)
    assert result.outcomes["parent_id"].n_unique() == 3
    assert len(result.requests) == 6
    back = [place for place, text in enumerate(asked) if "into English" in text]
    forth = [place for place, text in enumerate(asked) if "into German" in text]
    assert min(back) < max(forth)
    assert result.outcomes["parent_id"].to_list() == sorted(result.outcomes["parent_id"])


def test_a_teacher_that_forgets_a_request_is_no_hole():
    class Forgetful:
        model = "forgetful"

        def complete(self, requests, progress=None, keep=None):
            for position, _ in enumerate(taken(iter(requests))):
                if position != 1:
                    yield position, Reply(GOOD)

    result = synthesize(parents(3), make(Questions(name="qa")), Forgetful())
    assert result.outcomes["reason"].to_list() == [None, "failed: no reply", None]
    assert unfinished(result.outcomes) == 1


def test_every_parent_of_a_bad_endpoint_is_accounted_for(tmp_path):
    """Failures, slow answers and garbled ones, with little patience: some parents fail, none is lost, none twice."""
    manners = Manners(fails=0.2, slow=0.05, garbles=0.1, slow_seconds=0.05, answer=lambda prompt: GOOD)
    with serving(manners) as server:
        settings = TeacherSettings(
            kind="openai", model="m", base_url=server.url, api_key_env=None, retries=1, paid_retries=1, backoff=0.01
        )
        result = synthesize(parents(300), make(Questions(name="qa")), teacher(settings, tmp_path / "c.sqlite"))
        told = summary(result)
        assert told["parents"] == 300
        assert len(result.documents) + sum(told["rejected"].values()) == 300
        assert set(told["rejected"]) <= {"failed: status 500", "failed: garbled"}
        assert 0 < unfinished(result.outcomes) < 60
        more = synthesize(parents(300), make(Questions(name="qa")), teacher(settings, tmp_path / "c.sqlite"))
    assert len(more.documents) > len(result.documents)
    assert set(server.answered.values()) == {1}


def test_an_outage_is_an_error_and_not_a_result():
    dead = synthesize(parents(2), make(Questions(name="qa")), FakeTeacher(lambda request: Reply(error="connection")))
    with pytest.raises(MidtrainError, match=r"answered none of 2 requests \(2 times: connection\)"):
        check_answered(dead)
    check_answered(synthesize(parents(1), make(Questions(name="qa")), FakeTeacher(lambda request: Reply(error="budget"))))


def test_what_was_asked_is_kept_with_its_reply():
    result = synthesize(parents(2), make(Questions(name="qa")), FakeTeacher(answer))
    (good, bad) = result.requests.to_dicts()
    assert json.loads(good["messages"])[-1]["content"].startswith("Text: The Volga")
    assert json.loads(good["parameters"])["max_tokens"] == 96
    assert (good["reply"], good["error"]) == (GOOD, None)
    assert bad["reply"].startswith("I'm sorry")


def test_an_estimate_says_whether_the_budget_will_do():
    sample = synthesize(parents(2), make(Questions(name="qa")), FakeTeacher(lambda request: GOOD))
    told = estimate(sample, 100, Prices(prompt=1e6, completion=0.0), 3.0)
    assert told["cost"] == 50 * sample.outcomes["prompt_tokens"].sum()
    assert "NOT enough" in told["said"]
    assert "NOT" not in estimate(sample, 100, Prices(), 3.0)["said"]
