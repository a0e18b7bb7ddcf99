"""HumanEvalExplain (2308.07124): explain a function, then write it again from the explanation alone; its tests decide.

Rows are HumanEvalPack's. The first turn sees the solution without its docstring; the second sees only what the first said, never the code.
As there, an explanation may be no longer than the docstring it replaces, and one that copies the code gains nothing: of what it says,
lines that stand in the solution are taken out.
"""

from collections.abc import Mapping
from typing import Any

from midtrain_dagster.evaluate.code import passes
from midtrain_dagster.evaluate.environments.play import Kind, Turn


class Explain:
    """One episode: two turns."""

    def __init__(self, doc: Mapping[str, Any]):
        self._doc = doc
        self._explanation: str | None = None
        self._program: str | None = None
        self._room = max(len(str(doc["docstring"])), 1)

    def turn(self) -> Turn | None:
        """Explain, then write."""
        doc = self._doc
        if self._explanation is None:
            asked = f"Provide a concise natural language description of the function in at most {self._room} characters."
            return Turn(f"{doc['declaration']}{doc['canonical_solution']}\n\n{asked}\n\nDescription:", ("\n\n", "```"), 256)
        if self._program is None:
            asked = "Write functional code in Python according to the description."
            stops = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
            return Turn(f"{self._explanation}\n\n{asked}\n\n{doc['declaration']}", stops, 512)
        return None

    def act(self, answer: str) -> None:
        """Take the description, then the program."""
        if self._explanation is None:
            code = {line.strip() for line in self._doc["canonical_solution"].splitlines() if line.strip()}
            kept = [line for line in answer.strip().splitlines() if line.strip() not in code]
            self._explanation = "\n".join(kept)[: self._room]
        else:
            self._program = f"{self._doc['declaration']}{answer}"

    def scores(self) -> dict[str, float]:
        """`pass@1` of the second turn's program."""
        test = str(self._doc["test"])
        called = "" if "\ncheck(" in f"\n{test}" else f"\ncheck({self._doc['entry_point']})"
        return {"pass@1": float(passes(f"{self._program}\n{test}{called}\n"))}

    def close(self) -> None:
        """Nothing is held."""


def right_action(doc: Mapping[str, Any]) -> str:
    """The docstring that was taken out."""
    return f" {doc['docstring']}"


KIND = Kind(open=Explain, gold=right_action)
