"""Benchmarks of several turns, played by scripts whose right and wrong moves are known."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.environments.database import Database, final_answer, statement
from midtrain_dagster.evaluate.environments.explain import Explain
from midtrain_dagster.evaluate.environments.kinds import KINDS
from midtrain_dagster.evaluate.environments.play import Played, play
from midtrain_dagster.evaluate.environments.shell import Shell
from midtrain_dagster.evaluate.environments.tools import ROUNDS, Tools
from midtrain_dagster.evaluate.simulated import shell_rows, tool_step_rows
from midtrain_dagster.sandbox import Sandbox

TABLE = {
    "table_name": "2012 results",
    "table_info": {
        "columns": [{"name": "team name", "type": "TEXT"}, {"name": "points", "type": "INT"}],
        "rows": [["reds", "1,000"], ["blues", "7"]],
    },
}
ASKED = {"description": "How many points have the blues?", "label": ["7"], "type": ["other"], "table": TABLE}
CHANGED = {
    "description": "Add the greens with 3 points.",
    "label": ["INSERT INTO `2012 results` VALUES ('greens', 3)"],
    "type": ["INSERT"],
    "table": TABLE,
}


@pytest.fixture
def sandbox() -> Sandbox:
    try:
        return Sandbox.find()
    except MidtrainError as reason:
        pytest.skip(f"NOT CHECKED: {reason}")


class Scripted:
    """A model that says what its script says, for each row in turn."""

    def __init__(self, *scripts: Sequence[str]):
        self.scripts = {number: list(script) for number, script in enumerate(scripts)}
        self.read: list[str] = []

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        self.read += [request.args[0] for request in requests]
        return [self.scripts[request.doc["number"]].pop(0) for request in requests]


def _sql(text: str) -> str:
    return f" Operation\n```sql\n{text}\n```"


def _played(episode: Any, answers: Sequence[str]) -> Mapping[str, float]:
    for answer in answers:
        assert episode.turn() is not None
        episode.act(answer)
    scores = episode.scores()
    episode.close()
    return scores


def test_a_question_is_answered_from_a_real_database():
    look = _sql("SELECT points FROM `2012 results` WHERE `team name` = 'blues';")
    episode = Database(ASKED)
    episode.act(look)
    turn = episode.turn()
    assert turn is not None
    assert "Result: [(7,)]" in turn.prompt
    episode.act(' Answer\nFinal Answer: ["7.0"]')
    assert episode.turn() is None
    assert episode.scores() == {"success": 1.0}
    episode.close()
    assert _played(Database(ASKED), [look, ' Answer\nFinal Answer: ["8"]']) == {"success": 0.0}
    assert _played(Database(ASKED), [look] * 6) == {"success": 0.0}  # never answered
    many = Database(ASKED)
    assert _played(many, ["nonsense"] * 6) == {"success": 0.0}
    assert many.turn() is None


def test_a_row_that_changes_the_table_is_judged_by_the_table():
    insert = _sql("INSERT INTO '2012 results' (points, `team name`) VALUES ('3', 'Greens')")
    assert _played(Database(CHANGED), [insert, " Answer\nFinal Answer: done"]) == {"success": 1.0}
    assert _played(Database(CHANGED), [insert, insert]) == {"success": 0.0}  # twice is another table
    assert _played(Database(CHANGED), [_sql("DROP TABLE `2012 results`")]) == {"success": 0.0}
    assert _played(Database(CHANGED), [' Answer\nFinal Answer: ["greens"]']) == {"success": 0.0}
    with pytest.raises(MidtrainError, match="labelled statement does not run"):
        play(Played("dbbench", KINDS["dbbench"], [{**CHANGED, "label": ["INSERT nothing"]}]), Scripted())


def test_statements_are_found_stopped_and_kept_from_files(tmp_path: Any):
    assert statement(" Operation\n```sql\nSELECT 1;\n```") == statement(" Operation\nSELECT 1") == "SELECT 1"
    assert statement(" I think") is None
    assert final_answer("Final Answer: ['a', 2]\nmore") == ["a", "2"]
    assert final_answer("Final Answer: plainly this") == ["plainly this"]
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
    episode = Database(ASKED)
    episode.act(_sql(endless))
    episode.act(_sql(f"ATTACH '{tmp_path}/other.sqlite' AS other"))
    turn = episode.turn()
    assert turn is not None
    assert turn.prompt.count("Result: Error:") == 2
    assert not list(tmp_path.iterdir())
    episode.close()


def test_tools_answer_step_by_step_and_the_pass_rate_counts_final_answers():
    (row,) = tool_step_rows(3, 1)
    calls = [f" {c['name']}\nAction Input: {json.dumps(c['arguments'])}" for c in row["needed"]]
    finish = f' Finish\nAction Input: {{"final_answer": "{row["answer"]}"}}'
    assert _played(Tools(row), [*calls, finish]) == {"pass_rate": 1.0, "needed_calls": 1.0}
    assert _played(Tools(row), [calls[0], " Finish\nAction Input: {}"]) == {
        "pass_rate": 0.0,
        "needed_calls": 1 / len(calls),
    }
    episode = Tools(row)
    episode.act(" no_such\nAction Input: {}")
    episode.act(' find_customer\nAction Input: {"name": "Nobody"}')
    episode.act(" find_customer\nAction Input: none")
    turn = episode.turn()
    assert turn is not None
    for error in ("there is no API called no_such", "nothing found", "not a JSON object"):
        assert error in turn.prompt
    assert _played(episode, calls[:1] * (ROUNDS - 3))["pass_rate"] == 0.0
    assert episode.turn() is None
    assert tool_step_rows(3, 4) == tool_step_rows(3, 4) != tool_step_rows(4, 4)


def test_jobs_in_the_shell(sandbox: Sandbox):
    for row in shell_rows(0, 4):
        judged = row["evaluation"]
        last = f" answer({judged['match']})" if "match" in judged else " finish"
        right = KINDS["os_interaction"].gold(row)
        episode = Shell(row)
        assert _played(episode, [right, last]) == {"success": 1.0}
        if "match" in judged:
            assert judged["match"] in episode._transcript.split("Output:")[-1].split("Act:")[0]
            assert _played(Shell(row), [right, " answer(-1)"]) == {"success": 0.0}
        else:
            assert _played(Shell(row), [last]) == {"success": 0.0}
    with pytest.raises(MidtrainError, match="neither `match` nor bash code"):
        Shell({"description": "x", "evaluation": {"check": [{"file": "check.py"}]}})


def test_a_shell_remembers_its_files(sandbox: Sandbox):
    row = {"description": "x", "evaluation": {"match": {"answer": "2", "strip": True}}}
    episode = Shell(row)
    episode.act(" bash\n```bash\necho one > a; mkdir d; exit 3\n```")
    episode.act(" bash\n```bash\nls; cat /etc/passwd\n```")
    output = episode._transcript.split("Output:")[-1]
    assert output.split()[:2] == ["a", "d"]
    assert "root:" not in output
    assert _played(episode, [" answer(2)"]) == {"success": 1.0}


def test_an_explanation_is_all_that_the_second_reading_sees(sandbox: Sandbox):
    row = {
        "declaration": "def double(x):\n",
        "canonical_solution": "    return x * 2\n",
        "docstring": "Twice the given number.",
        "test": "def check(f):\n    assert f(4) == 8\n",
        "entry_point": "double",
    }
    episode = Explain(row)
    first = episode.turn()
    assert first is not None
    assert "return x * 2" in first.prompt
    episode.act(" return x * 2\nDoubles a number, and a great deal more")
    second = episode.turn()
    assert second is not None
    assert second.prompt.startswith("Doubles a number, and a\n\n")  # no code, and no longer than the docstring
    assert "x * 2" not in second.prompt
    assert _played(episode, ["    return x + x\n"]) == {"pass@1": 1.0}
    assert _played(Explain(row), ["a", "    return x\n"]) == {"pass@1": 0.0}


def test_episodes_take_turns_together_and_come_out_in_the_harness_s_shape():
    rows = [{**ASKED, "number": 0}, {**CHANGED, "number": 1}]
    lm = Scripted([_sql("SELECT 1"), " Answer\nFinal Answer: 7"], [" Answer\nFinal Answer: []"])
    results, samples = play(Played("dbbench", KINDS["dbbench"], rows), lm)
    assert results["results"]["dbbench"]["success,none"] == 0.5
    assert results["results"]["dbbench"]["success_stderr,none"] == pytest.approx(0.5)
    assert [len(sample["resps"][0]) for sample in samples] == [2, 1]
    assert len(lm.read) == 3
    assert samples[0]["success"] == 1.0
