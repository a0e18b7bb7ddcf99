"""MathGenie (arXiv:2402.16352): solutions are augmented, turned back into questions, solved anew and verified."""

import re

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.generators import Evolution
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.answers import final_answer, majority, same_answer
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
from midtrain_dagster.synthesize.questions import pair_text, pairs

CHANGES = (
    "swap the objects and the verbs",
    "add one more step of calculation",
    "change the numbers",
    "change the numbers and what is asked for",
)
CODE = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)


class MathEvolution(WritingGenerator):
    """Seed: a worked problem as `Question: … Answer: …`, or a solution alone. A chain of `rounds` augmentations a seed."""

    format = "qa"
    prompts = ("genie_augment", "genie_question", "genie_solve", "genie_program")
    settings: Evolution

    def __init__(self, settings: Evolution, tools: Tools | None = None):
        super().__init__(settings, tools)
        if settings.run_code and self.tools.sandbox is None:
            raise MidtrainError(f"generator {settings.name}: run_code needs the sandbox; give it or set run_code: false")

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        parent = parents[0]
        found = pairs(parent.text)
        solution = found[0][1] if found else self.passages(parent)[0]
        verdicts: list[Verdict] = []
        number = 0
        for round_number in range(self.settings.rounds):
            change = self.dice(parent.id, round_number).choice(CHANGES)
            (reply,) = yield [self.request(parent, number, fill("genie_augment", solution=solution, change=change))]
            changed = self._step(verdicts, number, reply, solution)
            number += 1
            if changed is None:
                break
            (reply,) = yield [self.request(parent, number, fill("genie_question", solution=changed), temperature=0.0)]
            question = self._step(verdicts, number, reply, parent.text)
            number += 1
            solution = changed
            if question is None:
                continue
            asked = [
                self.request(parent, number + n, fill("genie_solve", question=question)) for n in range(self.settings.samples)
            ]
            if self.settings.run_code:
                asked.append(
                    self.request(parent, number + len(asked), fill("genie_program", question=question), temperature=0.0)
                )
            replies = yield asked
            verdicts.append(
                self._verify(parent, number, question, [reply.text for reply in replies if not reply.error], changed)
            )
            number += len(asked)
        return verdicts

    def _step(self, verdicts: list[Verdict], number: int, reply: object, before: str) -> str | None:
        """The text of an intermediate reply; where it is of no use, a verdict says why."""
        try:
            text = acceptance.strip(usable(reply))  # type: ignore[arg-type]
            text = re.sub(r"^\W*(?:new )?(?:problem|question|solution)\W*:\s*", "", text, flags=re.IGNORECASE)
            reason = acceptance.repetitive(text) or acceptance.copied(text, before, 0.9) or acceptance.too_short(text, 4)
        except Rejected as rejected:
            text, reason = "", str(rejected)
        if reason:
            verdicts.append(Verdict(number, None, reason, text))
            return None
        return text

    def _verify(self, parent: Parent, number: int, question: str, texts: list[str], changed: str) -> Verdict:
        """Agreement between the samples, then the same answer from a program that is run."""
        programs = [text for text in texts[-1:] if self.settings.run_code]
        solutions = texts[: self.settings.samples]
        if len(solutions) < self.settings.samples or (self.settings.run_code and len(texts) <= self.settings.samples):
            return Verdict(number, None, "failed: samples missing", question)
        answer, share = majority([final_answer(solution) for solution in solutions])
        if share < self.settings.agreement or (self.settings.samples > 1 and share * self.settings.samples < 2):
            return Verdict(number, None, "samples disagree", question)
        if self.settings.run_code and not same_answer(self._run(programs[0]), answer):
            return Verdict(number, None, "program disagrees", question)
        solution = next(text for text in solutions if same_answer(final_answer(text), answer))
        told = {"answer": answer, "agreement": round(share, 3), "program": bool(programs), "augmented_solution": changed}
        return Verdict(number, Draft(pair_text(question, solution.strip()), "qa", parent.language, told), None, question)

    def _run(self, reply: str) -> str:
        """What the program in a reply prints last; empty where it fails."""
        found = CODE.search(reply)
        if found is None or self.tools.sandbox is None:
            return ""
        outcome = self.tools.sandbox.run(found[1], timeout=10.0)
        lines = outcome.stdout.strip().splitlines() if outcome.exit_code == 0 else []
        return lines[-1] if lines else ""
