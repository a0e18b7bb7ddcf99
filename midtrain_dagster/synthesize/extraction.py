"""WebInstruct: questions that people asked and answered, extracted from pages and refined (MAmmoTH2, arXiv:2405.03548)."""

import re

from midtrain_dagster.project.generators import Extraction
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.answers import final_answer, same_answer
from midtrain_dagster.synthesize.generator import Conversation, Draft, Parent, Rejected, Verdict, WritingGenerator, usable
from midtrain_dagster.synthesize.prompts import fill
from midtrain_dagster.synthesize.questions import pair_text, pairs
from midtrain_dagster.synthesize.teacher import Request

NONE = re.compile(r"^\W*(?:none|void|no (?:question|pair)s?\b.*)\W*$", re.IGNORECASE)


class Extracting(WritingGenerator):
    """Extract, which may find none; then refine, which adds steps and never changes the final answer."""

    format, prompts = "qa", ("extract", "refine")
    settings: Extraction

    def requests(self, parent: Parent) -> list[Request]:
        return [
            self.request(parent, n, fill("extract", passage=p), temperature=0.0) for n, p in enumerate(self.passages(parent))
        ]

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        parent = parents[0]
        asked = self.requests(parent)
        replies = yield asked
        verdicts: list[Verdict] = []
        found: list[tuple[int, str, str]] = []
        for number, reply in enumerate(replies):
            try:
                good = self._pairs(usable(reply), parent)
                found += [(number, question, answer) for question, answer in good]
            except Rejected as rejected:
                verdicts.append(Verdict(number, None, str(rejected), reply.text))
        if not self.settings.refine or not found:
            return verdicts + [self._verdict(n, question, answer, False, parent) for n, question, answer in found]
        refined = yield [
            self.request(parent, 1000 + n, fill("refine", question=question, answer=answer))
            for n, (_, question, answer) in enumerate(found)
        ]
        for number, ((_, question, answer), reply) in enumerate(zip(found, refined, strict=True), start=len(asked)):
            try:
                better = self._refined(usable(reply), answer)
                verdicts.append(self._verdict(number, question, better, True, parent))
            except Rejected as rejected:
                verdicts.append(Verdict(number, None, str(rejected), reply.text))
        return verdicts

    def _pairs(self, text: str, parent: Parent) -> list[tuple[str, str]]:
        if NONE.match(text):
            raise Rejected("none")
        found = pairs(acceptance.strip(text))
        if not found:
            raise Rejected("not in the form asked for")
        limit = self.settings.grounding
        good = [
            pair
            for pair in found
            if acceptance.grounded(pair[0], parent.text) >= limit and _stands_in(pair[1], parent.text, limit)
        ]
        if not good:
            raise Rejected("not on the page")
        return good

    def _refined(self, reply: str, answer: str) -> str:
        """The refined answer. Raises Rejected where the final answer is another one."""
        text = acceptance.strip(reply)
        if not same_answer(final_answer(text), final_answer(answer)):
            raise Rejected("final answer changed")
        return text

    def _verdict(self, number: int, question: str, answer: str, refined: bool, parent: Parent) -> Verdict:
        text = pair_text(question, answer)
        reason = acceptance.repetitive(text)
        return Verdict(number, None if reason else Draft(text, "qa", parent.language, {"refined": refined}), reason, text)


def _stands_in(answer: str, page: str, share: float) -> bool:
    """Whether an answer was on the page; one of digits or a letter has no content words to compare."""
    return answer.strip(" .").lower() in page.lower() or acceptance.grounded(answer, page) >= share
