"""Questions about one part of a long context (as in the long-context stage of LongAlign, arXiv:2401.18058)."""

from collections.abc import Iterator, Sequence

from midtrain_dagster.project.generators import LongQuestions
from midtrain_dagster.synthesize.generator import Conversation, Draft, Parent, Verdict, WritingGenerator, usable
from midtrain_dagster.synthesize.passages import passages
from midtrain_dagster.synthesize.prompts import fill, prompt
from midtrain_dagster.synthesize.questions import bad_pair, pair_text, pairs
from midtrain_dagster.synthesize.rules import gathered
from midtrain_dagster.synthesize.teacher import Message


class LongAsking(WritingGenerator):
    """Parents in one long context; the teacher is asked about a passage of one of them, drawn anywhere, and sees only that.

    The document is the whole context, then the pair. An answer that other parts of the context also hold is rejected,
    so that the passage is needed.
    """

    format, prompts = "qa", ("questions", "questions_example")
    settings: LongQuestions

    def arrange(self, parents: Sequence[Parent]) -> Iterator[tuple[Parent, ...]]:
        yield from gathered(parents, self.settings.words)

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        dice = self.dice(*(parent.id for parent in parents))
        chosen = dice.randrange(len(parents))
        passage = dice.choice(passages(parents[chosen].text, self.settings.parent_words) or [""])
        shown, answered = prompt("questions_example").split("\n---\n")
        messages: list[Message] = [
            {"role": "user", "content": shown},
            {"role": "assistant", "content": answered},
            {"role": "user", "content": fill("questions", passage=passage, pairs=2)},
        ]
        (reply,) = yield [self.request(parents[chosen], chosen, messages)]
        context = "\n\n".join(parent.text.strip() for parent in parents)
        reason, sample = "no pair", reply.text
        for question, answer in pairs(usable(reply, may_be_cut=True)):
            sample = pair_text(question, answer)
            found = bad_pair(question, answer, passage, self.settings.grounding)
            elsewhere = context.replace(passage, "")
            if found is None and bad_pair(question, answer, elsewhere, 0.95) is None:
                found = "answered elsewhere"
            if found is None:
                told = {
                    "parts": len(parents),
                    "asked_about": parents[chosen].id,
                    "at": round(context.find(passage) / len(context), 3),
                }
                return [Verdict(0, Draft(f"{context}\n\n{sample}", "qa", parents[0].language, told), None, sample)]
            reason = found
        return [Verdict(0, None, reason, sample)]
