"""The store in front of every teacher: nothing paid twice, no budget passed, kills survived."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from midtrain_dagster.project.teacher import Prices
from midtrain_dagster.synthesize.teacher import Parameters, Reply, Request, ask
from resources.teacher import CachedTeacher, FakeTeacher
from resources.teacher_server import Manners, serving

PRICES = Prices(prompt=0.0, completion=1e6)  # one token, one unit


def request(words, tokens=10, account="g/s"):
    return Request(({"role": "user", "content": words},), Parameters(max_tokens=tokens), account)


def echo(asked):
    return f"said {asked.messages[-1]['content']}"


def test_a_reply_is_asked_for_once(tmp_path):
    fake = FakeTeacher(echo)
    first = ask(CachedTeacher(fake, tmp_path / "c.sqlite"), [request("a"), request("b"), request("a")])
    again = ask(CachedTeacher(fake, tmp_path / "c.sqlite"), [request("b"), request("a", account="other/s")])
    assert [reply.text for reply in first] == ["said a", "said b", "said a"]
    assert [reply.cached for reply in first] == [False, False, True]
    assert [(reply.text, reply.cached, reply.cost) for reply in again] == [("said b", True, 0.0), ("said a", True, 0.0)]
    assert len(fake.asked) == 2


def test_model_messages_and_parameters_make_the_key():
    base = request("a")
    others = [request("b"), request("a", 11), Request(({"role": "system", "content": "a"},), Parameters(max_tokens=10))]
    assert len({base.key("m"), base.key("n"), *(other.key("m") for other in others)}) == 5
    assert base.key("m") == request("a", account="x/y").key("m")


def test_errors_are_not_remembered(tmp_path):
    bad, good = FakeTeacher(lambda asked: Reply(error="status 500")), FakeTeacher(echo)
    assert ask(CachedTeacher(bad, tmp_path / "c.sqlite"), [request("a")])[0].error == "status 500"
    assert ask(CachedTeacher(good, tmp_path / "c.sqlite"), [request("a")])[0].text == "said a"


@pytest.mark.parametrize("budget", [0.0, 9.0, 10.0, 25.0, 57.0])
def test_the_budget_is_never_passed(tmp_path, budget):
    teacher = CachedTeacher(FakeTeacher(lambda asked: "one two three"), tmp_path / "c.sqlite", PRICES, budget)
    replies = ask(teacher, [request(str(i)) for i in range(50)])
    bought = [reply for reply in replies if not reply.error]
    assert teacher.spent() == 3 * len(bought) <= budget
    assert {reply.error for reply in replies if reply.error} == {"budget"}
    assert len(bought) == max(0, (int(budget) - 10) // 3 + 1)  # as long as one more, at full length, fits


def test_a_raised_budget_goes_on_where_it_stopped(tmp_path):
    fake = FakeTeacher(lambda asked: "one two three")
    asked = [request(str(i)) for i in range(20)]
    ask(CachedTeacher(fake, tmp_path / "c.sqlite", PRICES, 30.0), asked)
    replies = ask(CachedTeacher(fake, tmp_path / "c.sqlite", PRICES, 1000.0), asked)
    assert not [reply for reply in replies if reply.error]
    assert len(fake.asked) == 20


def test_accounts_by_generator_and_source(tmp_path):
    teacher = CachedTeacher(FakeTeacher(echo), tmp_path / "c.sqlite", PRICES)
    ask(teacher, [request("a", account="qa/web"), request("b", account="qa/web"), request("c", account="qa/books")])
    assert teacher.accounts().rows() == [("qa/books", 1, 1, 2, 2.0), ("qa/web", 2, 2, 4, 4.0)]


SCRIPT = """
    import sys
    from pathlib import Path
    from midtrain_dagster.project.teacher import TeacherSettings
    from midtrain_dagster.synthesize.teacher import Parameters, Request, ask
    from resources.teacher import teacher
    settings = TeacherSettings(kind="openai", model="m", base_url=sys.argv[1], api_key_env=None, concurrency=8)
    asked = [Request(({"role": "user", "content": f"q {i}"},), Parameters()) for i in range(120)]
    replies = ask(teacher(settings, Path(sys.argv[2])), asked)
    assert [reply.text for reply in replies] == [f"An answer to q {i}" for i in range(120)]
"""


def start(url, path):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), url, str(path)], env={**os.environ, "PYTHONPATH": "."}
    )


def test_sigkill_loses_only_requests_in_flight(tmp_path):
    with serving(Manners(seconds=0.05)) as server:
        process = start(server.url, tmp_path / "c.sqlite")
        while sum(server.answered.values()) < 40:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert start(server.url, tmp_path / "c.sqlite").wait() == 0
        twice = sum(count - 1 for count in server.answered.values())
    assert len(server.answered) == 120
    assert twice <= 8


def test_concurrent_processes_share_their_replies(tmp_path):
    with serving(Manners(seconds=0.05)) as server:
        processes = [start(server.url, tmp_path / "c.sqlite") for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == 120
