"""AgentBench's OS interaction (2308.03688): a task, a shell, an answer; every command runs in the sandbox.

Rows have AgentBench's keys: `description`, `create.init.code`, `start`, `evaluation.match` (a text, or `answer` and `strip`) or
`evaluation.check` (bash code, the answer in $1; exit code 0 passes). A sandbox keeps nothing, so a turn starts a fresh one and runs what led
there again: commands whose result changes by itself (time, chance) are not judged alike, and a row that names a script
by file is refused. The directory starts empty, and there is no network and no root.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.environments.play import Kind, Turn
from midtrain_dagster.sandbox import Outcome, Sandbox

ROUNDS = 8
SHOWN = 400  # characters of a command's output that the model reads
TIMEOUT = 10.0
MARK = "=== the output of the last command ==="
INSTRUCTIONS = """You work in a bash shell. Each turn is one action. To run commands:
Act: bash
```bash
ls
```
The output follows. To give an answer:
Act: answer(the answer)
When the task asks for no answer and is done:
Act: finish

"""


class Shell:
    """One episode."""

    def __init__(self, doc: Mapping[str, Any]):
        self._doc = doc
        self._checks = _checks(doc)
        self._box = Sandbox.find()
        init = (doc.get("create") or {}).get("init") or {}
        self._before = [code for code in (_code(init), str(doc.get("start") or "")) if code]
        self._transcript = f"{INSTRUCTIONS}Task: {doc['description']}\n"
        self._answer: str | None = None
        self._rounds, self._over = 0, False

    def turn(self) -> Turn | None:
        """The transcript so far."""
        if self._over or self._rounds >= ROUNDS:
            return None
        return Turn(self._transcript + "Act:", ("\nOutput:", "\nTask:", "\nAct:", "```\n\n"), 128)

    def act(self, answer: str) -> None:
        """Run the commands, or end."""
        self._rounds += 1
        action = answer.strip()
        self._transcript += f"Act: {action}\n"
        if action.startswith("answer("):
            self._answer, self._over = action.removeprefix("answer(").rpartition(")")[0].strip(), True
        elif action.startswith("finish"):
            self._answer, self._over = "", True
        elif "```" in action:
            command = action.split("```")[1].removeprefix("bash").strip()
            outcome = self._run(command)
            parts = (outcome.stdout.partition(MARK)[2].strip(), outcome.stderr.rpartition(MARK)[2].strip())
            shown = "\n".join(part for part in parts if part)
            self._before.append(command)
            self._transcript += f"Output: {shown[:SHOWN] or outcome.status}\n"
        else:
            self._transcript += "Output: this is no action\n"

    def _run(self, command: str, answer: str = "") -> Outcome:
        """`command` after all that came before it, whose output is not shown. Each part is a shell of its own in the same directory."""
        quiet = "".join(f"bash -c {shlex.quote(code)} > /dev/null 2>&1 < /dev/null\n" for code in self._before)
        script = f"{quiet}echo {shlex.quote(MARK)}\necho {shlex.quote(MARK)} >&2\n"
        script += f"exec bash -c {shlex.quote(command)} check {shlex.quote(answer)}\n"
        return self._box.run(script, timeout=TIMEOUT, language="bash")

    def scores(self) -> dict[str, float]:
        """`success`: 0 or 1. An episode that never answered has not."""
        if self._answer is None:
            return {"success": 0.0}
        match = self._doc["evaluation"].get("match")
        if match is not None:
            wanted = match if isinstance(match, str) else str(match["answer"])
            return {"success": float(self._answer.strip() == wanted.strip())}
        return {"success": float(all(self._run(code, self._answer).status == "ok" for code in self._checks))}

    def close(self) -> None:
        """Nothing is held."""


def _checks(doc: Mapping[str, Any]) -> list[str]:
    judged = doc["evaluation"]
    if judged.get("match") is not None:
        return []
    checks = [_code(check) for check in judged.get("check") or [] if check]
    if not checks or not all(checks):
        raise MidtrainError(
            f"this row of OS interaction has neither `match` nor bash code to check it by: {str(doc['description'])[:80]}"
        )
    return checks


def _code(value: Any) -> str:
    return value if isinstance(value, str) else str(value.get("code") or "")


def right_action(doc: Mapping[str, Any]) -> str:
    """The example's commands where the row has one, else its answer."""
    example = doc["evaluation"].get("example")
    if example:
        return f" bash\n```bash\n{_code(example)}\n```"
    match = doc["evaluation"].get("match")
    if match is None:
        return ""
    return f" answer({match if isinstance(match, str) else match['answer']})"


KIND = Kind(open=Shell, gold=right_action)
