"""Question–answer pairs from passages: the teacher writes both, or only the question to a sentence of the passage.

The first is the diverse question–answer task of Nemotron-CC (arXiv:2412.02595). The second lets a small teacher do what
it can: the answer is a sentence of the text and so true to it, and the question is asked for it (answer-aware question
generation, arXiv:1906.05416).
"""

import re

from midtrain_dagster.project.generators import Questions
from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.generator import Draft, Parent, Rejected, WritingGenerator
from midtrain_dagster.synthesize.passages import sentences
from midtrain_dagster.synthesize.prompts import fill, prompt
from midtrain_dagster.synthesize.teacher import Message, Request

PAIR = re.compile(
    r"(?:^|\n)\W*(?:\d+[.)]\s*)?\**(?:question|q)\**\s*\d*\s*\**\s*[:.]\**\s*(?P<question>.+?)\s*"
    r"\n\W*\**(?:answer|a)\**\s*\d*\s*\**\s*[:.]\**\s*(?P<answer>.+?)(?=\s*(?:\n\W*(?:\d+[.)]\s*)?\**(?:question|q|answer|a)\**\s*\d*\s*\**\s*[:.]|\Z))",
    re.IGNORECASE | re.DOTALL,
)
OPENING = """what who whom whose which when where why how is are was were do does did can could will would should has have in
at on for to from according under by of during if name"""
QUESTION_WORDS = frozenset(OPENING.split())
BACKWARD = """this that these those it they he she its his her their but and or such however thus so then see note also
therefore hence"""
REFERS_BACK = frozenset(BACKWARD.split())


def pairs(text: str) -> list[tuple[str, str]]:
    """The (question, answer) pairs of a reply in `Question: …` / `Answer: …` lines."""
    found = [(" ".join(m["question"].split()), " ".join(m["answer"].split())) for m in PAIR.finditer(text)]
    return [(question, answer) for question, answer in found if question and answer]


def bad_question(question: str) -> str | None:
    """Why this is no question to learn from."""
    tokens = acceptance.words(question)
    if not question.endswith("?") or not tokens or tokens[0] not in QUESTION_WORDS:
        return "no question"
    if not 4 <= len(tokens) <= 40:
        return "question length"
    about = re.search(
        r"\b(?:the|this|that|above|given) (?:text|passage|sentence|paragraph|statement|document|excerpt)\b",
        question,
        re.IGNORECASE,
    )
    return "question about the text as such" if about else None


def bad_pair(question: str, answer: str, passage: str, grounding: float) -> str | None:
    """Why the pair is not accepted: no question, an answer that repeats it, or one that the passage does not bear out."""
    reason = bad_question(question)
    if reason:
        return reason
    if not acceptance.content_words(answer):
        return "empty answer"
    if acceptance.content_words(answer) <= acceptance.content_words(question):
        return "answer in question"
    if not _numbers(answer) <= _numbers(passage):
        return "number not in parent"
    if acceptance.grounded(answer, passage) < grounding:
        return "answer not grounded"
    if not acceptance.content_words(question) & acceptance.content_words(passage):
        return "question not grounded"
    return None


def _numbers(text: str) -> set[str]:
    return {number.replace(",", "").strip(".") for number in re.findall(r"\d[\d,.]*", text)}


def pair_text(question: str, answer: str) -> str:
    """A pair as it stands in a document."""
    return f"Question: {question}\nAnswer: {answer}"


class WrittenPairs(WritingGenerator):
    """The teacher writes questions and answers; each pair is checked, and a document is a passage's good pairs."""

    format, prompts = "qa", ("questions", "questions_example")
    settings: Questions

    def requests(self, parent: Parent) -> list[Request]:
        messages: list[Message] = []
        if self.settings.example:
            shown, answer = prompt("questions_example").split("\n---\n")
            messages = [{"role": "user", "content": shown}, {"role": "assistant", "content": answer}]
        asked = []
        for number, passage in enumerate(self.passages(parent)):
            text = fill("questions", passage=passage, pairs=self.settings.pairs)
            asked.append(self.request(parent, number, [*messages, {"role": "user", "content": text}]))
        return asked

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        passage = str(request.messages[-1]["content"])
        good: dict[str, str] = {}
        reasons = []
        for question, answer in self._whole(reply)[: self.settings.pairs]:
            reason = bad_pair(question, answer, passage, self.settings.grounding)
            if reason is None and question not in good and answer not in good.values():
                good[question] = answer
            reasons.append(reason or "duplicate")
        if not good:
            raise Rejected(reasons[0] if reasons else "no pair")
        text = "\n\n".join(pair_text(question, answer) for question, answer in good.items())
        if self.settings.append_to_parent:
            text = f"{parent.text.strip()}\n\n{text}"
        return Draft(text, "qa", parent.language, {"pairs": len(good)})

    def _whole(self, reply: str) -> list[tuple[str, str]]:
        """Pairs of a reply, without a last one that was cut off in the middle of a sentence."""
        found = pairs(reply)
        return found[:-1] if found and found[-1][1][-1] not in ".!?\"'”)0123456789" else found

    def may_be_cut(self) -> bool:
        return True


class SentenceQuestions(WritingGenerator):
    """The teacher asks the question that a sentence of the parent answers."""

    format, prompts = "qa", ("question_for_sentence",)
    settings: Questions

    def requests(self, parent: Parent) -> list[Request]:
        chosen = [sentence for passage in self.passages(parent) for sentence in sentences(passage) if tells(sentence)]
        if not chosen:
            raise Rejected("no sentence to ask about")
        chosen = sorted(self.dice(parent.id).sample(chosen, min(self.settings.pairs, len(chosen))), key=chosen.index)
        return [self.request(parent, number, self._messages(sentence)) for number, sentence in enumerate(chosen)]

    def _messages(self, sentence: str) -> list[Message]:
        *examples, last = prompt("question_for_sentence").split("\n---\n")
        roles = ("user", "assistant")
        shown: list[Message] = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(examples)]
        return [*shown, {"role": "user", "content": last.replace("{sentence}", sentence)}]

    def parse(self, parent: Parent, request: Request, reply: str) -> Draft:
        lines = acceptance.strip(reply).splitlines()
        question = re.sub(r"^\W*(?:question|q)\s*:\s*", "", lines[0].strip(), flags=re.IGNORECASE) if lines else ""
        if "?" in question:
            question = question[: question.index("?") + 1]
        asked = str(request.messages[-1]["content"])
        sentence = next(s for s in sentences(parent.text) + sentences(" ".join(parent.text.split())) if s in asked)
        return Draft(pair_text(question, sentence), "qa", parent.language, {"pairs": 1})

    def accept(self, parent: Parent, draft: Draft) -> str | None:
        ((question, answer),) = pairs(draft.text) or [("", "")]
        reason = bad_question(question)
        if reason:
            return reason
        asked, told = acceptance.content_words(question), acceptance.content_words(answer)
        if told <= asked:
            return "answer in question"
        if not _numbers(question) <= _numbers(answer):
            return "number not in parent"
        return "question not grounded" if len(asked & told) < max(1, 0.5 * len(asked)) else None

    def may_be_cut(self) -> bool:
        return True


def tells(sentence: str) -> bool:
    """Whether a sentence stands by itself and tells something: prose of 8 to 45 words that refers to nothing before it."""
    tokens = sentence.split()
    if not 8 <= len(tokens) <= 45 or sentence[-1] not in ".!" or not sentence[0].isupper():
        return False
    if tokens[0].lower().strip(",") in REFERS_BACK:
        return False
    letters = sum(character.isalpha() or character.isspace() for character in sentence)
    return letters >= 0.85 * len(sentence)
