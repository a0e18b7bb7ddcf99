"""How our task files judge an answer: each function takes a row and the harness's results, and returns metric → score."""

import json
import re
import sqlite3
import string
from collections import Counter
from typing import Any

from midtrain_dagster.evaluate.code import passes

SQL_STEPS = 200_000  # virtual machine instructions of SQLite in a query, in thousands of which it is asked whether to go on


def _answer(results: list[Any]) -> str:
    return results[0] if isinstance(results[0], str) else results[0][0]


# code


def fixed(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """HumanEvalFix (2308.07124): the repaired function passes the problem's tests."""
    program = f"{doc['prompt']}{_answer(results)}\n{doc['test']}\n"
    return {"pass@1": float(passes(_checked(program, doc["entry_point"])))}


def _checked(program: str, entry_point: str) -> str:
    called = re.search(r"^check\(", program, re.MULTILINE)
    return program if called else f"{program}\ncheck({entry_point})\n"


def output_predicted(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """CRUXEval-O (2401.03065): the predicted literal equals what the function returns, which running it decides."""
    return {"exact_match": float(passes(f"{doc['code']}\nassert f({doc['input']}) == ({_answer(results).strip()})"))}


def input_predicted(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """CRUXEval-I (2401.03065): any input counts that gives the output."""
    return {"pass@1": float(passes(f"{doc['code']}\nassert f({_answer(results).strip()}) == ({doc['output']})"))}


# agents


def exact_call(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The call is JSON with the right name, and name and arguments equal the right one's (in the manner of 2305.15334)."""
    right = json.loads(doc["answer"])
    call = first_json(_answer(results))
    named = isinstance(call, dict) and call.get("name") == right["name"]
    return {"exact_call": float(named and call == right), "right_name": float(named)}


def first_json(text: str) -> Any:
    """The first JSON object in a text; None where there is none."""
    for match in re.finditer(r"\{", text):
        try:
            return json.JSONDecoder().raw_decode(text[match.start() :])[0]
        except ValueError:
            continue
    return None


def queried(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """AgentBench's DB-Bench (2308.03688), one query on a real database: its rows hold exactly the labelled answers.

    A row whose task changes the table (label by hash) is judged by the table afterwards, against the labelled query's.
    """
    given = _query(doc, statement(_answer(results)))
    if given is None:
        return {"success": 0.0}
    return {"success": float(Counter(given) == Counter(_plain(value) for value in doc["label"]))}


def statement(text: str) -> str:
    """The SQL in an answer: a fenced block, or all up to the first semicolon."""
    fenced = re.search(r"```(?:sql)?\s*(.*?)```", text, re.DOTALL | re.IGNORECASE)
    return (fenced.group(1) if fenced else text).split(";")[0].strip()


def _query(doc: dict[str, Any], sql: str) -> list[str] | None:
    """All values that `sql` returns on the row's table, in a database of its own in memory; None for an error."""
    table = doc["table"]
    columns = [column["name"] for column in table["table_info"]["columns"]]
    database = sqlite3.connect(":memory:")
    try:
        names = ", ".join(_quoted(name) for name in columns)
        database.execute(f"CREATE TABLE {_quoted(table['table_name'])} ({names})")
        marks = ", ".join("?" * len(columns))
        database.executemany(f"INSERT INTO {_quoted(table['table_name'])} VALUES ({marks})", table["table_info"]["rows"])
        steps = iter(range(SQL_STEPS // 1000))
        database.set_progress_handler(lambda: next(steps, None) is None, 1000)
        database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        database.execute("PRAGMA case_sensitive_like = OFF")
        return [_plain(value) for row in database.execute(sql.replace("`", '"')) for value in row]
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None
    finally:
        database.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(value: Any) -> str:
    try:
        return f"{float(str(value).replace(',', '')):g}"
    except ValueError:
        return str(value).strip().lower()


# reading


def best_f1(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Word F1 with the closest reference, as SCROLLS scores NarrativeQA (2201.03533, 1606.05250)."""
    answers = doc["answers"]
    references = [answer["text"] if isinstance(answer, dict) else answer for answer in answers]
    return {"f1": max((_f1(_words(_answer(results)), _words(reference)) for reference in references), default=0.0)}


def _words(text: str) -> list[str]:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def _f1(given: list[str], wanted: list[str]) -> float:
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def found(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The needle's value stands in the answer (RULER, 2404.06654)."""
    return {"exact_match": float(str(doc["answer"]).lower() in _answer(results).lower())}


def reasoned(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """reasoning-gym's own scorer (2505.24760) on the answer's first line: 0 to 1."""
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(doc["task"], seed=doc["seed"], size=doc["size"])
    answer = _answer(results).strip().split("\n")[0].strip()
    return {"score": float(dataset.score_answer(answer=answer, entry=dataset[doc["index"]]))}


def completed(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The generated body equals the real one, line by line without trailing space, over the real one's lines."""
    wanted = [line.rstrip() for line in doc["completion"].splitlines()]
    given = [line.rstrip() for line in _answer(results).splitlines()]
    return {"exact_match": float(given[: len(wanted)] == wanted)}
