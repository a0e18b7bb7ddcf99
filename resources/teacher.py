"""The teacher: any OpenAI-compatible endpoint, a local transformers model, or a script, behind one interface.

`teacher(settings, cache)` is what assets and commands call: it chooses by kind and puts the cache, the accounts and the
budget in front.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.teacher import Keep, Parameters, Reply, Request, Teacher, ask, structured
from resources.teacher_batch import BatchTeacher
from resources.teacher_cache import CachedTeacher
from resources.teacher_local import LocalTeacher
from resources.teacher_openai import OpenAITeacher

__all__ = ["BatchTeacher", "CachedTeacher", "FakeTeacher", "LocalTeacher", "OpenAITeacher", "answers", "teacher"]


def teacher(settings: TeacherSettings, cache: Path) -> CachedTeacher:
    """The teacher that `settings` describe, every reply kept in the SQLite file `cache` (or `settings.cache`)."""
    store = settings.cache or cache
    return CachedTeacher(uncached(settings, store.with_suffix(".batches")), store, settings.prices, settings.budget)


def uncached(settings: TeacherSettings, batches: Path) -> Teacher:
    """The teacher itself, without memory or budget. `batches`: where it notes what it handed in to a batch API."""
    match settings.kind:
        case "openai":
            return BatchTeacher(settings, batches) if settings.batch else OpenAITeacher(settings)
        case "local":
            return LocalTeacher(settings)
        case "fake":
            return FakeTeacher(settings.script)
    raise MidtrainError(f"no teacher of kind {settings.kind}")


def answers(
    teacher: Teacher, account: str, progress: Progress | None = None, max_tokens: int = 16
) -> Callable[[Sequence[str]], list[str | None]]:
    """A teacher as a function from prompts to replies, which it bills to `account`; None for a reply with an error."""

    def asked(prompts: Sequence[str]) -> list[str | None]:
        short = Parameters(max_tokens=max_tokens)
        requests = [Request(({"role": "user", "content": prompt},), short, account) for prompt in prompts]
        return [None if reply.error else reply.text for reply in ask(teacher, requests, progress)]

    return asked


class FakeTeacher:
    """Answers from a script: a mapping of words in the last message to the answer, or a function of the request.

    A request that the script does not know gets an error reply, as from an endpoint that refuses. Tokens are words.
    """

    paid_attempts = 1

    def __init__(self, script: Mapping[str, str] | Callable[[Request], str | Reply], model: str = "fake"):
        self.script, self.model = script, model
        self.asked: list[Request] = []

    def complete(
        self, requests: Iterable[Request | None], progress: Progress | None = None, keep: Keep | None = None
    ) -> Iterator[tuple[int, Reply]]:
        source = iter(requests)
        for position, request in enumerate(iter(lambda: next(source, None), None)):
            self.asked.append(request)
            if progress:
                progress.advance(1)
            reply = structured(self._reply(request), request.parameters.json_schema)
            if keep:
                keep(position, reply)
            yield position, reply

    def _reply(self, request: Request) -> Reply:
        prompt = str(request.messages[-1]["content"])
        if callable(self.script):
            answer: str | Reply | None = self.script(request)
        else:
            answer = next((text for words, text in self.script.items() if words in prompt), None)
        if answer is None:
            return Reply(error="not in the script", detail=prompt[:200])
        if isinstance(answer, Reply):
            return answer
        words = answer.split(" ")
        limit = request.parameters.max_tokens
        whole = len(words) <= limit
        tokens = sum(len(str(message["content"]).split()) for message in request.messages)
        return Reply(" ".join(words[:limit]), None, "", tokens, min(len(words), limit), "stop" if whole else "length")
