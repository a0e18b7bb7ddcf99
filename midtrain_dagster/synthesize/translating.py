"""Translation into languages with little text, and pictures into text."""

import base64
import mimetypes
from pathlib import Path

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.generators import Images, Translation
from midtrain_dagster.synthesize import acceptance
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
from midtrain_dagster.synthesize.questions import bad_question, pair_text, pairs
from midtrain_dagster.synthesize.teacher import Request


class Translating(WritingGenerator):
    """Translate, identify the language, translate back, and compare with the parent (back-translation: arXiv:1511.06709)."""

    prompts = ("translate",)
    settings: Translation

    def __init__(self, settings: Translation, tools: Tools | None = None):
        super().__init__(settings, tools)
        if self.tools.identify_language is None:
            raise MidtrainError(
                f"generator {settings.name}: a translation is checked by language identification, and there is none"
            )

    def requests(self, parent: Parent) -> list[Request]:
        name = self.settings.language_name
        return [
            self.request(parent, n, fill("translate", passage=p, language=name)) for n, p in enumerate(self.passages(parent))
        ]

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        parent = parents[0]
        asked = self.requests(parent)
        there = yield asked
        verdicts = [self.judge(parent, n, request, reply) for n, (request, reply) in enumerate(zip(asked, there, strict=True))]
        good = [verdict for verdict in verdicts if verdict.draft is not None]
        if not self.settings.back_translation or not good:
            return verdicts
        home = {"en": "English"}.get(parent.language or "en", parent.language or "English")
        drafts = [verdict.draft.text for verdict in good if verdict.draft]
        back = yield [self.request(parent, 1000 + n, fill("translate", passage=t, language=home)) for n, t in enumerate(drafts)]
        for number, (verdict, reply) in enumerate(zip(good, back, strict=True)):
            original = self.passages(parent)[verdict.request or 0]
            place = verdicts.index(verdict)
            try:
                agreement = acceptance.overlap(acceptance.strip(usable(reply)), original)
            except Rejected as rejected:
                verdicts[place] = Verdict(len(asked) + number, None, str(rejected), drafts[number])
                continue
            if agreement < self.settings.agreement:
                verdicts[place] = Verdict(verdict.request, None, "back-translation differs", drafts[number])
        return verdicts

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        return Draft(acceptance.strip(reply), "text", self.settings.to, {"translated_from": parent.language})

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        return acceptance.wrong_language(draft.text, self.settings.to, self.tools.identify_language) or acceptance.copied(
            draft.text, parent.text, 0.5, run=4
        )


class ImageDescribing(WritingGenerator):
    """A dense description and question–answer pairs for a picture; the parent's text is its caption."""

    prompts = ("image_describe", "image_questions")
    settings: Images

    def requests(self, parent: Parent) -> list[Request]:
        picture = {"type": "image_url", "image_url": {"url": _address(parent, self.settings)}}
        asked = []
        for number, name in enumerate(self.prompts):
            content = [picture, {"type": "text", "text": fill(name, caption=parent.text.strip())}]
            asked.append(self.request(parent, number, [{"role": "user", "content": content}]))
        return asked

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        metadata = {"image": parent.metadata[self.settings.image_key]}
        found = pairs(reply)
        if "Question:" not in str(request.messages[-1]["content"][1]["text"]):
            return Draft(acceptance.strip(reply), "text", parent.language, metadata)
        good = [(question, answer) for question, answer in found if bad_question(question) is None]
        if not good:
            raise Rejected("no pair")
        return Draft("\n\n".join(pair_text(*pair) for pair in good), "qa", parent.language, {**metadata, "pairs": len(good)})

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        if draft.format == "text":
            return acceptance.too_short(draft.text, self.settings.minimum_words)
        return None


def _address(parent: Parent, settings: Images) -> str:
    """A URL as it is; a file as a data URI. Raises Rejected where there is no picture, or none below the generator's folder:
    the name comes with collected data, and what it names is sent away.
    """
    named = parent.metadata.get(settings.image_key)
    if not isinstance(named, str) or not named:
        raise Rejected("no picture")
    if named.startswith(("http://", "https://", "data:image/")):
        return named
    folder = Path(settings.folder).resolve()
    path, kind = (folder / named).resolve(), mimetypes.guess_type(named)[0] or ""
    if not path.is_relative_to(folder):
        raise Rejected("picture outside the folder")
    if not kind.startswith("image/") or not path.is_file():
        raise Rejected("no picture")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
