"""Evol-Instruct for code (WizardCoder, arXiv:2306.08568): a harder task, and a solution that passes tests in the sandbox."""

import ast

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.generators import CodeEvolution
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.evolution import CODE
from midtrain_dagster.synthesize.generator import (
    Conversation,
    Draft,
    Parent,
    Rejected,
    Tools,
    Verdict,
    WritingGenerator,
    usable,
)
from midtrain_dagster.synthesize.prompts import fill

OPERATIONS = {
    "constraint": "add one new constraint of about ten words",
    "requirement": "replace a common requirement by a rarer, more specific one",
    "reasoning": "make it need one more step of reasoning",
    "erroneous": "give a piece of erroneous code that misleads, and ask for a correct one",
    "complexity": "ask for a better time or space complexity",
}


class CodeEvolving(WritingGenerator):
    """Evolve the parent's task, ask for a solution with tests, keep what passes tests that can fail."""

    format, prompts = "instruction", ("code_evolve", "code_solve")
    settings: CodeEvolution

    def __init__(self, settings: CodeEvolution, tools: Tools | None = None):
        super().__init__(settings, tools)
        if self.tools.sandbox is None:
            raise MidtrainError(f"generator {settings.name}: solutions are verified in the sandbox, and there is none")

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        parent = parents[0]
        task = self.passages(parent)[0]
        operation = self.dice(parent.id).choice(self.settings.operations)
        (reply,) = yield [self.request(parent, 0, fill("code_evolve", task=task, operation=OPERATIONS[operation]))]
        harder = acceptance.strip(usable(reply))
        if reason := acceptance.repetitive(harder) or acceptance.copied(harder, task, 0.95) or acceptance.too_short(harder, 6):
            return [Verdict(0, None, reason, harder)]
        (reply,) = yield [self.request(parent, 1, fill("code_solve", task=harder), temperature=0.0)]
        solution, tests = self._blocks(usable(reply))
        if reason := self._verify(solution, tests):
            return [Verdict(1, None, reason, reply.text)]
        text = f"Instruction: {harder}\n\nResponse:\n```python\n{solution.strip()}\n```"
        draft = Draft(text, "instruction", parent.language, {"operation": operation, "tests": tests.strip()})
        return [Verdict(1, draft, None, text)]

    def _blocks(self, reply: str) -> tuple[str, str]:
        """(solution, tests). Raises Rejected for a reply without both."""
        found = CODE.findall(reply)
        if len(found) < 2:
            raise Rejected("no code with tests")
        return found[0], found[1]

    def _verify(self, solution: str, tests: str) -> str | None:
        """Tests must be three assertions or more that call the solution, fail without it, and pass with it."""
        try:
            defined = {node.name for node in ast.parse(solution).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            checks = [node for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Assert)]
        except (SyntaxError, ValueError):
            return "no Python"
        used = [c for c in checks if any(isinstance(n, ast.Name) and n.id in defined for n in ast.walk(c))]
        if len(used) < 3:
            return "tests check too little"
        if self._passes("\n".join(f"def {name}(*a, **k): return None" for name in sorted(defined)), tests):
            return "tests pass without the solution"
        return None if self._passes(solution, tests) else "tests fail"

    def _passes(self, solution: str, tests: str) -> bool:
        if self.tools.sandbox is None:
            raise MidtrainError("no sandbox to run tests in")
        outcome = self.tools.sandbox.run(f"{solution}\n\n{tests}\nprint('all tests passed')\n", timeout=self.settings.timeout)
        return bool(outcome.exit_code == 0 and outcome.stdout.strip().endswith("all tests passed"))
