"""What a generator is: which parents, what to ask, what a reply says, and whether that becomes a document.

Most generators ask once a parent and write `requests`, `parse` and `accept`. One that builds on replies (translate, then
translate back) writes `converse` instead: a coroutine that yields requests, is sent the replies, and returns verdicts.
The driver runs many such conversations side by side.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Generator as Coroutine
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar, Protocol

from midtrain_dagster.project.generators import GeneratorBase, Written
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.passages import passages
from midtrain_dagster.synthesize.teacher import Message, Parameters, Reply, Request


class RunsCode(Protocol):
    """What verification needs of `midtrain_dagster.sandbox.Sandbox`."""

    def run(self, code: str, *, stdin: str = "", timeout: float = 10.0) -> Any: ...


@dataclass(frozen=True)
class Tools:
    """What generators need from outside beside the teacher; a check whose tool is missing is an error where it is essential."""

    sandbox: RunsCode | None = None
    identify_language: Callable[[str], str | None] | None = None  # text -> ISO 639-1, None where it cannot be told


@dataclass(frozen=True)
class Parent:
    """A document that a new one is made from."""

    id: str
    text: str
    source: str = ""
    domain: str | None = None
    language: str | None = None
    license: str | None = None
    url: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """A document to be: what the driver cannot know of it."""

    text: str
    format: str
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What became of a request (its number in the conversation), or of the parents as a whole (None)."""

    request: int | None
    draft: Draft | None = None
    reason: str | None = None
    sample: str = ""


class Rejected(Exception):
    """No document comes of this reply; the message is the reason, a few words that can be counted."""


Conversation = Coroutine[list[Request], list[Reply], list[Verdict]]


class Generator:
    """One source of synthetic documents. Subclasses are small; everything that is alike stands here."""

    format: ClassVar[str] = "text"
    prompts: ClassVar[tuple[str, ...]] = ()  # files in prompts/ that any of its requests may use
    needs_teacher: ClassVar[bool] = True

    def __init__(self, settings: GeneratorBase, tools: Tools | None = None):
        self.settings, self.tools = settings, tools or Tools()

    def select(self) -> str:
        """Which documents are parents: a SQL condition over documents and attributes."""
        return self.settings.where

    def arrange(self, parents: Sequence[Parent]) -> Iterator[tuple[Parent, ...]]:
        """Which parents go together into one conversation; by default each alone."""
        for parent in parents:
            yield (parent,)

    def requests(self, parent: Parent) -> list[Request]:
        """What to ask about a parent. Raises Rejected for one that cannot be asked about."""
        raise NotImplementedError

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        """The document in a reply. Raises Rejected where there is none."""
        raise NotImplementedError

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        """Why the document shall not be, or None."""
        return None

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        """Ask once, judge every reply by itself; a document that is there already is a duplicate."""
        parent = parents[0]
        asked = self.requests(parent)
        replies = yield asked
        verdicts, seen = [], set[str]()
        for number, (request, reply) in enumerate(zip(asked, replies, strict=True)):
            verdict = self.judge(parent, number, request, reply)
            if verdict.draft is not None and verdict.draft.text in seen:
                verdict = Verdict(number, None, "duplicate", verdict.draft.text)
            seen |= {verdict.draft.text} if verdict.draft else set()
            verdicts.append(verdict)
        return verdicts

    def judge(self, parent: Parent, number: int, request: Request, reply: Reply) -> Verdict:
        """The verdict on one reply: usable at all, parsed, then accepted or not."""
        try:
            text = usable(reply, self.may_be_cut())
            draft = self.parse(parent, request, text)
        except Rejected as rejected:
            return Verdict(number, None, str(rejected), reply.text)
        reason = acceptance.repetitive(draft.text) or self.accept(parent, draft)
        return Verdict(number, None if reason else draft, reason, draft.text)

    def may_be_cut(self) -> bool:
        """Whether a reply that ran into its length limit may still be good (a list whose last item is dropped)."""
        return False

    def dice(self, *names: object) -> random.Random:
        """Random numbers that depend on the seed, this generator and `names` alone."""
        return random.Random("/".join(map(str, (self.settings.seed, self.settings.name, *names))))


class WritingGenerator(Generator):
    """A generator whose documents the teacher writes."""

    settings: Written

    def passages(self, parent: Parent) -> list[str]:
        """The passages of a parent that are used. Raises Rejected for a parent that is too short."""
        if acceptance.too_short(parent.text, self.settings.minimum_parent_words):
            raise Rejected("parent too short")
        return passages(parent.text, self.settings.parent_words)[: self.settings.passages]

    def request(self, parent: Parent, number: int, messages: Sequence[Message] | str, **changes: Any) -> Request:
        """A request on account of this generator and the parent's source, its sampling seed its own."""
        asked = ({"role": "user", "content": messages},) if isinstance(messages, str) else tuple(messages)
        seed = blake2b(f"{self.settings.seed}/{self.settings.name}/{parent.id}/{number}".encode(), digest_size=4)
        settings = self.settings
        values = {"max_tokens": settings.max_tokens, "temperature": settings.temperature, "top_p": settings.top_p}
        values["seed"] = int.from_bytes(seed.digest(), "big") >> 1
        return Request(asked, Parameters(**{**values, **changes}), f"{settings.name}/{parent.source}")


def usable(reply: Reply, may_be_cut: bool = False) -> str:
    """The text of a reply. Raises Rejected for an error, a refusal, an empty reply and one that was cut off."""
    if reply.error:
        raise Rejected("budget reached" if reply.error == "budget" else f"failed: {reply.error}")
    if not reply.text.strip():
        raise Rejected("empty")
    if acceptance.refusal(reply.text):
        raise Rejected("refusal")
    if reply.finish_reason == "length" and not may_be_cut:
        raise Rejected("cut off")
    return reply.text.strip()
