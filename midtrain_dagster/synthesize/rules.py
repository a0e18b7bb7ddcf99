"""Documents that need no teacher: fill-in-the-middle, long documents, and questions that people have answered already."""

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from midtrain_dagster.project.generators import FillInTheMiddle, LongDocuments, Natural
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.generator import Conversation, Draft, Generator, Parent, Rejected, Verdict
from midtrain_dagster.synthesize.questions import pair_text


class RuleGenerator(Generator):
    """A generator that makes documents of parents by rule."""

    needs_teacher: ClassVar[bool] = False

    def drafts(self, parents: tuple[Parent, ...]) -> list[Draft]:
        """The documents of these parents. Raises Rejected where there are none."""
        raise NotImplementedError

    def converse(self, parents: tuple[Parent, ...]) -> Conversation:
        made = self.drafts(parents)
        return [Verdict(None, draft, None, draft.text) for draft in made]
        yield []  # never reached: it makes this a coroutine that asks nothing


class Middles(RuleGenerator):
    """Fill-in-the-middle (arXiv:2207.14255): a document cut at two places and put together in another order.

    PSM: prefix, suffix, middle. SPM: suffix, prefix, middle, in the paper's joint form, in which the middle follows the
    prefix directly. Cut at characters, or only at the beginnings of lines.
    """

    format = "code"
    settings: FillInTheMiddle

    def drafts(self, parents: tuple[Parent, ...]) -> list[Draft]:
        parent = parents[0]
        marks = (self.settings.prefix_token, self.settings.suffix_token, self.settings.middle_token)
        if any(mark in parent.text for mark in marks):
            raise Rejected("contains a mark")
        dice = self.dice(parent.id)
        if dice.random() >= self.settings.rate:
            raise Rejected("not drawn")
        places = self._places(parent.text)
        if len(places) < 2:
            raise Rejected("parent too short")
        start, end = sorted(dice.sample(places, 2))
        order = "SPM" if dice.random() < self.settings.spm_rate else "PSM"
        text = self.arranged(parent.text[:start], parent.text[start:end], parent.text[end:], order)
        return [Draft(text, "code", parent.language, {"order": order, "middle": [start, end]})]

    def _places(self, text: str) -> Sequence[int]:
        if self.settings.level == "character":
            return range(len(text) + 1)
        return [0, *(match.end() for match in re.finditer(r"\n", text))]

    def arranged(self, prefix: str, middle: str, suffix: str, order: str) -> str:
        """The three parts with the tokenizer's marks."""
        before, after, between = self.settings.prefix_token, self.settings.suffix_token, self.settings.middle_token
        if order == "PSM":
            return f"{before}{prefix}{after}{suffix}{between}{middle}"
        return f"{before}{after}{suffix}{between}{prefix}{middle}"


def gathered(parents: Sequence[Parent], words: int) -> Iterator[tuple[Parent, ...]]:
    """Parents of one source and domain in groups of about `words` words, the most alike next to each other.

    Alike: a greedy chain in which each document is followed by the one that shares the most content words with it, among
    the next 50 (in-context pre-training, arXiv:2310.10638, orders by embedding). A parent stands in one group.
    """
    kinds: dict[tuple[str, str], list[Parent]] = {}
    for parent in parents:
        kinds.setdefault((parent.source, parent.domain or ""), []).append(parent)
    for kind in sorted(kinds):
        group: list[Parent] = []
        size = 0
        for parent in _chain(kinds[kind]):
            group.append(parent)
            size += len(parent.text.split())
            if size >= words:
                yield tuple(group)
                group, size = [], 0
        if group:
            yield tuple(group)


def _chain(parents: list[Parent], window: int = 50) -> Iterator[Parent]:
    left = sorted(parents, key=lambda parent: parent.id)
    matter = {parent.id: acceptance.content_words(parent.text[:4000]) for parent in left}
    current = left.pop(0)
    yield current
    while left:
        shared = [len(matter[current.id] & matter[parent.id]) / (1 + len(matter[parent.id])) ** 0.5 for parent in left[:window]]
        current = left.pop(shared.index(max(shared)))
        yield current


class LongAssembly(RuleGenerator):
    """Documents of one source and domain put together until they are long."""

    settings: LongDocuments

    def arrange(self, parents: Sequence[Parent]) -> Iterator[tuple[Parent, ...]]:
        yield from gathered(parents, self.settings.words)

    def drafts(self, parents: tuple[Parent, ...]) -> list[Draft]:
        text = self.settings.separator.join(parent.text.strip() for parent in parents)
        if len(text.split()) < self.settings.words / 2:
            raise Rejected("too little to be long")
        return [Draft(text, "text", parents[0].language, {"parts": len(parents)})]


DOCTEST = re.compile(
    r"^(?P<indent>[ \t]*)>>> (?P<code>.+(?:\n(?P=indent)\.\.\. ?.*)*)\n(?P<result>(?:(?P=indent)(?!>>>|\.\.\.)\S.*\n?)+)", re.M
)
MARKED = re.compile(
    r"^[ \t]*(?:Q|Question)(?:\s*\d+)?\s*[:.)]\s*(?P<question>.+?\?)\s*\n+[ \t]*(?:A|Answer)(?:\s*\d+)?\s*[:.)]\s*"
    r"(?P<answer>.+?)(?=\n\s*\n|\n[ \t]*(?:Q|Question)(?:\s*\d+)?\s*[:.)]|\Z)",
    re.MULTILINE | re.DOTALL,
)


class NaturalPairs(RuleGenerator):
    """Question–answer pairs that stand in the text: doctest examples, and pages with marked questions and answers."""

    format = "qa"
    settings: Natural

    def drafts(self, parents: tuple[Parent, ...]) -> list[Draft]:
        parent = parents[0]
        found: list[tuple[str, str]] = []
        if "doctest" in self.settings.forms:
            found += doctests(parent.text)
        if "marked" in self.settings.forms:
            found += [(" ".join(m["question"].split()), m["answer"].strip()) for m in MARKED.finditer(parent.text)]
        if not found:
            raise Rejected("none")
        return [Draft(pair_text(*pair), "qa", parent.language) for pair in dict.fromkeys(found)]


def doctests(text: str) -> list[tuple[str, str]]:
    """Doctest examples as pairs; those whose result is an address, a traceback or elided are left out.

    The question contains the statements of the block that come before, on which the result may depend.
    """
    found: list[tuple[str, str]] = []
    for block in re.split(r"\n\s*\n", text + "\n"):
        before: list[str] = []
        for line in re.finditer(r"^[ \t]*>>> .*(?:\n[ \t]*\.\.\..*)*", block + "\n", re.MULTILINE):
            code = "\n".join(re.sub(r"^[ \t]*(?:>>>|\.\.\.) ?", "", part) for part in line[0].splitlines())
            example = DOCTEST.match(block + "\n", line.start())
            if example is not None:
                result = "\n".join(part.strip() for part in example["result"].splitlines())
                if not re.search(r"\bat 0x|Traceback|\.\.\.", result):
                    program = "\n".join([*before, code])
                    found.append((f"What does this Python code show?\n```python\n{program}\n```", f"```\n{result}\n```"))
            before.append(code)
    return found
