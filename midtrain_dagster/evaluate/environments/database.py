"""AgentBench's DB-Bench (2308.03688): questions that a real database answers, in several turns.

Each episode has a SQLite database of its own in a temporary file. A row that changes the table (INSERT, UPDATE, DELETE) is
judged by the table afterwards, against what the labelled statement makes of the same table; every other by the final answer.
AgentBench runs MySQL: back quotes become double quotes here, and functions that only MySQL has are errors which the model reads.
"""

import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midtrain_dagster.evaluate.environments.play import Kind, Turn

ROUNDS = 6  # turns at most; AgentBench allows 15, which models with short contexts have no room for
SQL_STEPS = 200_000  # virtual machine instructions of SQLite in a statement
SHOWN = 400  # characters of a result that the model reads
CHANGING = ("INSERT", "UPDATE", "DELETE")
INSTRUCTIONS = """You answer questions with the help of a database. Each turn is one action. To run one SQL statement:
Action: Operation
```sql
SELECT 1;
```
The result follows. When you are done:
Action: Answer
Final Answer: ["the answer"]

"""


class Database:
    """One episode."""

    def __init__(self, doc: Mapping[str, Any]):
        self._doc = doc
        self._directory = tempfile.TemporaryDirectory(prefix="midtrain-dbbench-")
        self._path = Path(self._directory.name) / "table.sqlite"
        _fill(self._path, doc["table"])
        description = f"{doc['description']} {doc.get('add_description') or ''}".strip()
        self._transcript = f"{INSTRUCTIONS}Question: {description}\n"
        self._answer: list[str] | None = None
        self._rounds, self._over = 0, False
        self._wanted = self._right() if doc["type"][0] in CHANGING else None

    def _right(self) -> Counter[tuple[str, ...]] | None:
        """The table as the labelled statement leaves it. Raises ValueError where that does not run."""
        path, table = self._path.with_name("right.sqlite"), self._doc["table"]
        _fill(path, table)
        failed = run(path, right_statement(self._doc), table["table_name"])
        if isinstance(failed, str):
            self.close()
            raise ValueError(f"the labelled statement does not run: {failed}")
        return _table(path, table["table_name"])

    def turn(self) -> Turn | None:
        """The transcript so far."""
        if self._over or self._rounds >= ROUNDS:
            return None
        return Turn(self._transcript + "Action:", ("\nResult:", "\nQuestion:", "```\n\n", "\nAction:"), 160)

    def act(self, answer: str) -> None:
        """Run the statement, or take the final answer. Anything else is told that it is no action."""
        self._rounds += 1
        action = f"Action:{answer}"
        if "Action: Answer" in action or "Final Answer:" in action:
            self._answer, self._over = final_answer(action), True
            return
        sql = statement(answer)
        result = (
            "There is no SQL in this action." if sql is None else _shown(run(self._path, sql, self._doc["table"]["table_name"]))
        )
        self._transcript += f"{action.rstrip()}\nResult: {result}\n"

    def scores(self) -> dict[str, float]:
        """`success`: 0 or 1."""
        if self._doc["type"][0] in CHANGING:
            return {"success": float(_table(self._path, self._doc["table"]["table_name"]) == self._wanted)}
        wanted = Counter(_plain(value) for value in self._doc["label"])
        return {"success": float(self._answer is not None and Counter(map(_plain, self._answer)) == wanted)}

    def close(self) -> None:
        """The database goes."""
        self._directory.cleanup()


def right_statement(doc: Mapping[str, Any]) -> str:
    """The labelled SQL of a row; for a question without any, the answers."""
    sql = doc.get("sql")
    if isinstance(sql, Mapping) and sql.get("query"):
        return str(sql["query"])
    return str(doc["label"][0])


def right_action(doc: Mapping[str, Any]) -> str:
    """The right first answer: the labelled statement as an operation, or the labelled answer where there is none."""
    sql = doc.get("sql")
    if doc["type"][0] in CHANGING or (isinstance(sql, Mapping) and sql.get("query")):
        return f" Operation\n```sql\n{right_statement(doc)}\n```"
    return f" Answer\nFinal Answer: {list(doc['label'])}"


def statement(text: str) -> str | None:
    """The SQL in an answer: a fenced block (also an unfinished one), or what follows the word Operation."""
    fenced = re.search(r"```(?:sql)?\s*(.*?)(?:```|$)", text, re.DOTALL | re.IGNORECASE)
    found = fenced.group(1) if fenced else text.partition("Operation")[2]
    return found.strip().rstrip(";").strip() or None


def final_answer(text: str) -> list[str]:
    """The values of `Final Answer: [...]`; a bare text is one value."""
    import ast

    given = text.partition("Final Answer:")[2].strip()
    try:
        value = ast.literal_eval(given.split("\n")[0])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [given.split("\n")[0].strip()]
    return [str(some) for some in value] if isinstance(value, list | tuple | set) else [str(value)]


def run(path: Path, sql: str, table: str) -> list[tuple[Any, ...]] | str:
    """The rows that one statement returns, or the database's error in words. Endless ones are stopped; no file can be attached.

    The table's name may stand without quotes where MySQL allows that and SQLite does not (2012_results).
    """
    sql = sql.replace("`", '"')
    if re.fullmatch(r"\d\w*", table):
        sql = re.sub(rf'(?<!["\w]){table}(?!["\w])', _quoted(table), sql)
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA synchronous = OFF")
        steps = iter(range(SQL_STEPS // 1000))
        database.set_progress_handler(lambda: next(steps, None) is None, 1000)
        database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
        rows = database.execute(sql).fetchmany(1000)
        database.commit()
        return rows
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, UnicodeError) as error:
        return f"Error: {error}"
    finally:
        database.close()


def _fill(path: Path, table: Mapping[str, Any]) -> None:
    name, about = _quoted(table["table_name"]), table["table_info"]
    columns = ", ".join(f"{_quoted(column['name'])} {_kind(column.get('type'))}" for column in about["columns"])
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"CREATE TABLE {name} ({columns})")
        marks = ", ".join("?" * len(about["columns"]))
        database.executemany(f"INSERT INTO {name} VALUES ({marks})", about["rows"])
        database.commit()
    finally:
        database.close()


def _kind(declared: str | None) -> str:
    return "INTEGER" if str(declared).upper() in ("INT", "INTEGER", "BIGINT") else "TEXT"


def _table(path: Path, name: str) -> Counter[tuple[str, ...]] | None:
    """All rows as plain values, in any order; None where the table is gone."""
    database = sqlite3.connect(path)
    try:
        rows = database.execute(f"SELECT * FROM {_quoted(name)}").fetchall()
    except sqlite3.Error:
        return None
    finally:
        database.close()
    return Counter(tuple(_plain(value) for value in row) for row in rows)


def _shown(rows: list[tuple[Any, ...]] | str) -> str:
    return (rows if isinstance(rows, str) else str(rows))[:SHOWN]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(value: Any) -> str:
    try:
        return f"{float(str(value).replace(',', '')):g}"
    except ValueError:
        return str(value).strip().lower()


KIND = Kind(open=Database, gold=right_action)
