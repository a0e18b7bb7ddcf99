"""The endpoint teacher against a fake server on loopback that fails, dawdles, garbles and refuses."""

import pickle

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.teacher import Parameters, Request, ask
from resources.teacher import OpenAITeacher
from resources.teacher_openai import Failure, Pace
from resources.teacher_server import Manners, serving

SECRET = "sk-do-not-tell-0123456789"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", SECRET)


def teacher(url, **settings):
    values = {"backoff": 0.01, "concurrency": 16, "timeout": 5.0, "api_key_env": "TEACHER_KEY"}
    return OpenAITeacher(TeacherSettings(kind="openai", model="m", base_url=url, **{**values, **settings}))


def requests(number, **parameters):
    return [Request(({"role": "user", "content": f"question {i}"},), Parameters(**parameters)) for i in range(number)]


def test_every_request_of_a_bad_server_is_answered_once():
    manners = Manners(fails=0.10, slow=0.05, garbles=0.02, slow_seconds=0.05, key=SECRET)
    with serving(manners) as server:
        replies = ask(teacher(server.url, retries=8, paid_retries=6), requests(300))
    assert [reply.text for reply in replies] == [f"An answer to question {i}" for i in range(300)]
    assert server.served["failed"] > 10
    assert server.served["garbled"] > 0
    assert set(server.answered.values()) == {1}


def test_a_garbled_answer_is_charged():
    with serving(Manners(garbles=1.0)) as server:
        (reply,) = ask(teacher(server.url, paid_retries=1), requests(1, max_tokens=10))
    assert reply.error == "garbled"
    assert server.served["garbled"] == 2
    assert reply.completion_tokens == 20


def test_failure_after_retries_is_an_error_reply():
    with serving(Manners(fails=1.0)) as server:
        replies = ask(teacher(server.url, retries=2), requests(3))
    assert [reply.error for reply in replies] == ["status 500"] * 3
    assert server.served["failed"] == 9


def test_a_timeout_is_given_up_and_charged():
    with serving(Manners(slow=1.0, slow_seconds=2.0)) as server:
        (reply,) = ask(teacher(server.url, timeout=0.1, paid_retries=0), requests(1, max_tokens=7))
    assert (reply.error, reply.completion_tokens) == ("timeout", 7)


def test_concurrency_gives_way_to_rate_limits_and_all_are_answered():
    with serving(Manners(busy_above=4, seconds=0.01)) as server:
        replies = ask(teacher(server.url, concurrency=32, retries=40), requests(150))
    assert not [reply.error for reply in replies if reply.error]
    assert server.most_flying <= 4
    assert server.served["busy"] < 300


def test_concurrency_is_used_and_bounded():
    with serving(Manners(seconds=0.03)) as server:
        ask(teacher(server.url, concurrency=8), requests(60))
    assert server.most_flying == 8


def test_requests_are_taken_only_when_there_is_room():
    taken = []

    def lazily():
        for request in requests(40):
            taken.append(request)
            yield request

    with serving(Manners(seconds=0.01)) as server:
        replies = teacher(server.url, concurrency=4).complete(lazily())
        next(replies)
        assert len(taken) <= 8
        assert len(list(replies)) == 39


def test_schema_that_a_server_ignores_is_verified():
    with serving(Manners(answer=lambda prompt: '{"n": 3}' if prompt == "question 0" else "three")) as server:
        good, bad = ask(teacher(server.url, paid_retries=1), requests(2, json_schema=SCHEMA))
    assert good.text == '{"n": 3}'
    assert bad.error == "not JSON"


def test_json_among_words_counts_where_a_server_ignores_the_schema():
    said = 'Sure! Here it is:\n```json\n{"n": 4}\n```\nAnything else?'
    with serving(Manners(answer=lambda prompt: said)) as server:
        (reply,) = ask(teacher(server.url), requests(1, json_schema=SCHEMA))
    assert reply.text == '{"n": 4}'


def test_a_reply_that_is_not_of_the_schema_is_sampled_anew():
    asked = []

    class Watching(OpenAITeacher):
        def body(self, request):
            asked.append((request.parameters.seed, request.parameters.temperature))
            return super().body(request)

    with serving(Manners(answer=lambda prompt: '{"m": 1}')) as server:
        settings = TeacherSettings(
            kind="openai", model="m", base_url=server.url, api_key_env=None, paid_retries=2, backoff=0.01
        )
        (reply,) = ask(Watching(settings), requests(1, json_schema=SCHEMA, max_tokens=5))
    assert reply.error == "not of the schema"
    assert len(set(asked)) == 3
    assert asked[0] == (0, 0.0)


def test_stop_that_a_server_ignores_is_applied():
    with serving(Manners(answer=lambda prompt: "one\nSTOP two")) as server:
        (reply,) = ask(teacher(server.url), requests(1, stop=("STOP",)))
    assert reply.text == "one\n"


def test_the_key_never_leaks():
    with serving(Manners(key="another")) as server:
        asking = teacher(server.url)
        (reply,) = ask(asking, requests(1))
    assert reply.error == "status 401"
    assert "***" in reply.detail
    told = repr(reply) + repr(asking) + repr(asking.__dict__) + str(pickle.dumps(asking)) + asking.settings.model_dump_json()
    assert SECRET not in told


def test_a_missing_key_is_named_not_shown(monkeypatch):
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(MidtrainError, match="TEACHER_KEY"):
        ask(teacher("http://127.0.0.1:9/v1"), requests(1))


def test_a_url_with_a_key_is_refused():
    with pytest.raises(MidtrainError, match="api_key_env"):
        TeacherSettings.check({"kind": "openai", "model": "m", "base_url": "https://u:p@host/v1"}, "teacher")


def test_a_dead_endpoint_is_a_connection_error():
    (reply,) = ask(teacher("http://127.0.0.1:9/v1", retries=1), requests(1))
    assert reply.error == "connection"


def test_waits_double_only_while_nothing_succeeds():
    pace, waits = Pace(16), []
    for attempt in range(6):  # a request that fails while others are answered
        pace.learn(None)
        pace.learn(Failure("status 500", again=True))
        waits.append(max(pace.backoff(0.5, attempt) for _ in range(200)))
    assert max(waits) <= 0.5 < 10 * min(waits)

    for _ in range(6):
        pace.learn(Failure("status 500", again=True))
    assert 8 < max(pace.backoff(0.5, 5) for _ in range(200)) <= 16


def test_a_proxy_that_the_environment_names_is_used(monkeypatch):
    with serving(Manners(key=SECRET)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "localhost")
        (reply,) = ask(teacher("http://nowhere.invalid/v1", retries=0), requests(1))
        assert reply.text == "An answer to question 0"
        monkeypatch.setenv("no_proxy", "nowhere.invalid")
        (reply,) = ask(teacher("http://nowhere.invalid/v1", retries=0), requests(1))
        assert reply.error == "connection"
