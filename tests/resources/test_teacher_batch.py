"""The batch API: handed in once whatever is killed, read whole, charged once."""

import json

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.teacher import Parameters, Request, ask
from resources.teacher import teacher
from resources.teacher_batch import BatchTeacher
from resources.teacher_server import Manners, serving


def settings(url, **more):
    values = {"kind": "openai", "model": "m", "base_url": url, "api_key_env": None, "batch": True, "batch_poll": 0.01}
    return TeacherSettings(**{**values, **more})


def requests(number):
    return [Request(({"role": "user", "content": f"question {i}"},), Parameters()) for i in range(number)]


def test_replies_come_in_batches_and_are_kept(tmp_path):
    with serving(Manners()) as server:
        first = ask(teacher(settings(server.url, batch_requests=10), tmp_path / "c.sqlite"), requests(25))
        again = ask(teacher(settings(server.url, batch_requests=10), tmp_path / "c.sqlite"), requests(26))
    assert [reply.text for reply in first] == [f"An answer to question {i}" for i in range(25)]
    assert [reply.cached for reply in again] == [True] * 25 + [False]
    assert len(server.batches) == 4
    assert list((tmp_path / "c.batches").iterdir()) == []


def test_a_failed_line_is_an_error_reply_and_asked_again_by_the_next_run(tmp_path):
    with serving(Manners(fails=0.4)) as server:
        first = ask(teacher(settings(server.url), tmp_path / "c.sqlite"), requests(20))
        failed = [reply.error for reply in first if reply.error]
        assert set(failed) == {"status 500"}
        again = ask(teacher(settings(server.url), tmp_path / "c.sqlite"), requests(20))
    assert sum(not reply.cached for reply in again) == len(failed)


@pytest.mark.parametrize("moment", ["before it was handed in", "before its id was noted", "while waiting"])
def test_a_killed_run_finds_its_batch_again(tmp_path, moment, monkeypatch):
    with serving(Manners()) as server:
        asking = BatchTeacher(settings(server.url), tmp_path)
        client = asking._client()
        made = client.batches.create

        def killed(**values):
            if moment == "before its id was noted":
                made(**values)
            raise KeyboardInterrupt

        if moment == "while waiting":
            monkeypatch.setattr(asking, "_results", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            monkeypatch.setattr(client.batches, "create", killed)
        monkeypatch.setattr(asking, "_client", lambda: client)
        with pytest.raises(KeyboardInterrupt):
            ask(asking, requests(5))
        (noted,) = tmp_path.glob("*.json")
        assert len(json.loads(noted.read_text())["keys"]) == 5
        replies = ask(BatchTeacher(settings(server.url), tmp_path), requests(5))
    assert [reply.text for reply in replies] == [f"An answer to question {i}" for i in range(5)]
    assert len(server.batches) == 1
    assert set(server.answered.values()) == {1}


def test_only_endpoints_have_batches():
    with pytest.raises(MidtrainError, match="no batch API"):
        TeacherSettings.check({"kind": "local", "model": "m", "batch": True}, "teacher")
