"""Holds the conversations of a generator with a teacher, many at a time, each at its own pace.

A conversation that waits for a reply does not hold up another: follow-up questions are sent as soon as they are known,
new conversations begin as others end, and what has ended is handed on while requests are still in flight.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.synthesize.generator import Conversation, Generator, Parent, Rejected, Verdict
from midtrain_dagster.synthesize.teacher import Reply, Request, Teacher


@dataclass
class Talk:
    """One conversation: its parents, what was asked and answered so far, and how it ended."""

    number: int  # among all of the generator's
    parents: tuple[Parent, ...]
    course: Conversation
    asked: list[Request] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    pending: list[Request] = field(default_factory=list)
    heard: dict[int, Reply] = field(default_factory=dict)  # replies to what is pending, by place
    verdicts: list[Verdict] | None = None

    def begin(self) -> None:
        """Find out what to ask first; afterwards there is something pending, or there are verdicts."""
        self._go_on(None)

    def hear(self, place: int, reply: Reply) -> bool:
        """Take the reply to a pending request; True where it was the last one and the conversation went on."""
        self.heard[place] = reply
        if len(self.heard) < len(self.pending):
            return False
        replies = [self.heard[number] for number in range(len(self.pending))]
        self.asked += self.pending
        self.replies += replies
        self.heard = {}
        self._go_on(replies)
        return True

    def _go_on(self, replies: list[Reply] | None) -> None:
        self.pending = []
        try:
            while not self.pending:
                self.pending = next(self.course) if replies is None else self.course.send(replies)
                replies = []
        except StopIteration as end:
            self.verdicts = end.value
        except Rejected as rejected:
            last = len(self.replies) - 1 if self.replies else None
            self.verdicts = [Verdict(last, None, str(rejected), self.replies[-1].text if self.replies else "")]


class Conversations:
    """All conversations of a generator, at most `window` of them open at a time."""

    def __init__(self, generator: Generator, parents: list[Parent], window: int):
        self.generator, self.window = generator, window
        self._tasks = enumerate(generator.arrange(parents))
        self._more, self._open = True, 0
        self._ended: deque[Talk] = deque()
        self._unsent: deque[tuple[Talk, int]] = deque()
        self._flying: dict[int, tuple[Talk, int]] = {}  # position in the teacher's call -> who waits for the reply

    def ended(self, teacher: Teacher | None) -> Iterator[Talk]:
        """The conversations as they end, each once.

        Raises MidtrainError where something is asked and there is no teacher.
        """
        while self._more or self._open or self._ended:
            if teacher is None:
                if self._next() and self._open:
                    raise MidtrainError(f"generator {self.generator.settings.name} asked for a teacher and there is none")
            else:
                for position, reply in teacher.complete(self._requests()):
                    self._hear(*self._flying.pop(position), reply)
                    yield from self._handed_on()
                for talk, place in [self._flying.pop(position) for position in list(self._flying)]:
                    self._hear(talk, place, Reply(error="no reply"))
            yield from self._handed_on()

    def _requests(self) -> Iterator[Request | None]:
        """What the teacher shall answer: follow-ups first, then new conversations while there is room for them."""
        position = 0
        while True:
            if self._unsent:
                talk, place = self._unsent.popleft()
                self._flying[position] = talk, place
                position += 1
                yield talk.pending[place]
            elif self._open >= self.window or len(self._ended) >= self.window or not self._next():
                yield None

    def _next(self) -> bool:
        """Begin the next conversation, if there is one."""
        number, parents = next(self._tasks, (-1, ()))
        if number < 0:
            self._more = False
            return False
        talk = Talk(number, parents, self.generator.converse(parents))
        talk.begin()
        self._open += 1
        self._moved(talk)
        return True

    def _hear(self, talk: Talk, place: int, reply: Reply) -> None:
        if talk.hear(place, reply):
            self._moved(talk)

    def _moved(self, talk: Talk) -> None:
        """Send what the conversation asks next, or count it as ended."""
        if talk.verdicts is None:
            self._unsent.extend((talk, place) for place in range(len(talk.pending)))
        else:
            self._open -= 1
            self._ended.append(talk)

    def _handed_on(self) -> Iterator[Talk]:
        while self._ended:
            yield self._ended.popleft()
