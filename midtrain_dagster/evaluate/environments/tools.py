"""Tool use in several steps against simulated APIs, with a pass rate (in the manner of ToolBench, 2307.16789).

A row holds `query`, `apis` (name, description, parameters), `responses` (what a call with given arguments returns; any other
call returns an error that the model reads), `needed` (the calls without which the answer cannot be known) and `answer`. ToolBench asks real services
and lets a language model judge; here services are tables and the judge is equality, so that a score says the same tomorrow.
"""

import json
from collections.abc import Mapping
from typing import Any

from midtrain_dagster.evaluate.environments.play import Kind, Turn

ROUNDS = 8
FINISH = "Finish"


class Tools:
    """One episode."""

    def __init__(self, doc: Mapping[str, Any]):
        apis = "\n".join(json.dumps(api, ensure_ascii=False) for api in doc["apis"])
        self._responses = {_call(some): json.dumps(some["result"], ensure_ascii=False) for some in doc["responses"]}
        self._needed = {_call(some) for some in doc["needed"]}
        self._names = {api["name"] for api in doc["apis"]}
        self._wanted = str(doc["answer"]).strip().lower()
        self._transcript = (
            f"You can call these APIs:\n{apis}\n\nEach step is an action and its input as JSON; the observation follows. "
            f'The last step is the action {FINISH} with {{"final_answer": "..."}}.\n\nQuery: {doc["query"]}\n'
        )
        self._called: set[str] = set()
        self._answer: str | None = None
        self._rounds, self._over = 0, False

    def turn(self) -> Turn | None:
        """The transcript so far."""
        if self._over or self._rounds >= ROUNDS:
            return None
        return Turn(self._transcript + "Action:", ("\nObservation:", "\nAction:", "\nQuery:", "\n\n"), 96)

    def act(self, answer: str) -> None:
        """Call what the step names."""
        self._rounds += 1
        name, _, rest = answer.strip().partition("\n")
        given = _first_json(rest)
        self._transcript += f"Action: {answer.strip()}\n"
        if name.strip() == FINISH:
            self._answer = str(given.get("final_answer", "")) if isinstance(given, dict) else ""
            self._over = True
            return
        self._transcript += f"Observation: {self._respond(name.strip(), given)}\n"

    def _respond(self, name: str, given: Any) -> str:
        if name not in self._names:
            return json.dumps({"error": f"there is no API called {name[:40]}"})
        if not isinstance(given, dict):
            return json.dumps({"error": "the action input is not a JSON object"})
        call = _call({"name": name, "arguments": given})
        self._called.add(call)
        return self._responses.get(call, json.dumps({"error": "nothing found for these arguments"}))

    def scores(self) -> dict[str, float]:
        """`pass_rate`: the final answer is the right one; `needed_calls`: the share of the needed calls that were made."""
        right = self._answer is not None and self._answer.strip().lower() == self._wanted
        return {"pass_rate": float(right), "needed_calls": len(self._needed & self._called) / max(len(self._needed), 1)}

    def close(self) -> None:
        """Nothing is held."""


def _call(some: Mapping[str, Any]) -> str:
    return json.dumps([some["name"], some["arguments"]], sort_keys=True, ensure_ascii=False)


def _first_json(text: str) -> Any:
    at = text.find("{")
    try:
        return json.JSONDecoder().raw_decode(text[at:])[0] if at >= 0 else None
    except (ValueError, RecursionError):
        return None


def right_action(doc: Mapping[str, Any]) -> str:
    """The first needed call."""
    first = doc["needed"][0]
    return f" {first['name']}\nAction Input: {json.dumps(first['arguments'], ensure_ascii=False)}"


KIND = Kind(open=Tools, gold=right_action)
