"""Distillation by rewriting: the parent's matter in another style, form or voice."""

import re
from typing import ClassVar

from midtrain_dagster.project.generators import Conversation as ConversationSettings
from midtrain_dagster.project.generators import Instructions, Rewrite, Textbook
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.generator import Draft, Parent, Rejected, WritingGenerator
from midtrain_dagster.synthesize.prompts import fill
from midtrain_dagster.synthesize.questions import pair_text, pairs
from midtrain_dagster.synthesize.teacher import Request


class Rewriting(WritingGenerator):
    """The parent in another style: WRAP (arXiv:2401.16380), Nemotron-CC (arXiv:2412.02595)."""

    prompts: ClassVar = tuple(
        f"rewrite_{style}" for style in ("wikipedia", "easy", "hard", "qa", "distill", "knowledge", "list")
    )
    settings: Rewrite

    def requests(self, parent: Parent) -> list[Request]:
        name = f"rewrite_{self.settings.style}"
        return [self.request(parent, n, fill(name, passage=passage)) for n, passage in enumerate(self.passages(parent))]

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        text = acceptance.strip(reply)
        if self.settings.style == "qa":
            found = pairs(text)
            if not found:
                raise Rejected("no pair")
            return Draft("\n\n".join(pair_text(*pair) for pair in found), "qa", parent.language, {"style": "qa"})
        return Draft(text, "text", parent.language, {"style": self.settings.style})

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        style = self.settings.style
        return (
            acceptance.too_short(draft.text, self.settings.minimum_words)
            or (None if style == "list" else acceptance.copied(draft.text, parent.text, self.settings.most_copied))
            or ("not about the parent" if acceptance.grounded(draft.text, parent.text) < 0.2 else None)
            or acceptance.wrong_language(draft.text, parent.language, self.tools.identify_language)
        )


class InstructionWriting(WritingGenerator):
    """A task that the parent helps to fulfil, and the response (arXiv:2308.06259)."""

    format, prompts = "instruction", ("instruction",)
    settings: Instructions

    def requests(self, parent: Parent) -> list[Request]:
        return [self.request(parent, n, fill("instruction", passage=p)) for n, p in enumerate(self.passages(parent))]

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        found = re.search(r"instruction\W*:\W*(.+?)\n\W*response\W*:\W*(.+)", acceptance.strip(reply), re.I | re.S)
        if found is None:
            raise Rejected("not in the form asked for")
        text = f"Instruction: {found[1].strip()}\n\nResponse: {found[2].strip()}"
        return Draft(text, "instruction", parent.language)

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        response = draft.text.partition("\n\nResponse: ")[2]
        return (
            acceptance.refusal(response)
            or acceptance.too_short(response, 5)
            or ("answer not grounded" if acceptance.grounded(response, parent.text) < self.settings.grounding else None)
            or acceptance.wrong_language(draft.text, parent.language, self.tools.identify_language)
        )


class TextbookWriting(WritingGenerator):
    """A textbook section or the like on the parent's subject, for an audience, by a persona."""

    prompts = ("textbook",)
    settings: Textbook

    def requests(self, parent: Parent) -> list[Request]:
        asked = []
        for number, passage in enumerate(self.passages(parent)):
            dice = self.dice(parent.id, number)
            persona = f"You are {dice.choice(self.settings.personas)}. " if self.settings.personas else ""
            form, audience = dice.choice(self.settings.forms), dice.choice(self.settings.audiences)
            asked.append(
                self.request(parent, number, fill("textbook", passage=passage, persona=persona, form=form, audience=audience))
            )
        return asked

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        return Draft(acceptance.strip(reply), "text", parent.language)

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        return (
            acceptance.too_short(draft.text, self.settings.minimum_words)
            or ("mentions the extract" if re.search(r"\b(?:the|this) extract\b", draft.text, re.I) else None)
            or acceptance.copied(draft.text, parent.text, 0.5)
            or acceptance.wrong_language(draft.text, parent.language, self.tools.identify_language)
        )


SPEAKERS = {
    "two_students": "two students, Ana and Ben; Ben has not understood the subject yet",
    "teacher_student": "a teacher and a student who is new to the subject",
    "two_professors": "two professors of neighbouring fields who build on each other's remarks",
    "debate": "two debaters, Ana and Ben, who take opposite sides and give reasons",
    "problem_solving": "two colleagues, Ana and Ben, who work on a problem taken from the text until it is solved",
    "layman_expert": "a layman and an expert",
    "interview": "an interviewer and the person interviewed, who knows the subject",
}
TURN = re.compile(r"^\W*([A-Z][\w .]{0,30}?)\W*:\s+\S", re.MULTILINE)


class ConversationWriting(WritingGenerator):
    """The parent as a conversation between speakers of unequal knowledge (MIND, arXiv:2410.12881)."""

    format, prompts = "conversation", ("conversation",)
    settings: ConversationSettings

    def requests(self, parent: Parent) -> list[Request]:
        asked = []
        for number, passage in enumerate(self.passages(parent)):
            style = self.dice(parent.id, number).choice(self.settings.styles)
            asked.append(self.request(parent, number, fill("conversation", passage=passage, speakers=SPEAKERS[style])))
        return asked

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        text = acceptance.strip(reply)
        speakers = TURN.findall(text)
        return Draft(text, "conversation", parent.language, {"turns": len(speakers), "speakers": sorted(set(speakers))})

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        if len(draft.metadata["speakers"]) < 2 or draft.metadata["turns"] < self.settings.minimum_turns:
            return "no conversation"
        return (
            acceptance.too_short(draft.text, self.settings.minimum_words)
            or ("not about the parent" if acceptance.grounded(draft.text, parent.text) < 0.2 else None)
            or acceptance.wrong_language(draft.text, parent.language, self.tools.identify_language)
        )
