"""The teacher behind an OpenAI-compatible endpoint: vLLM, SGLang, `transformers serve`, or a paid API.

Asynchronous, as many requests in flight as the endpoint bears. A server may accept `n`, `stop` or a JSON schema and
ignore it, so replies are checked here. The key is read from the environment when needed and is kept in no attribute.

`teacher_wire` sends and receives; here is what follows from an answer.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.teacher import Keep, Reply, Request, structured
from resources.teacher_wire import Refused, Unanswered, Wire

MOST_WAIT = 30.0  # seconds between two attempts


class OpenAITeacher:
    """Bounded concurrency that adapts, retries with backoff and jitter, time-outs, verified structured output."""

    def __init__(self, settings: TeacherSettings):
        self.settings, self.model = settings, settings.model
        self.paid_attempts = 1 + settings.paid_retries
        self._schemas_offered = True  # until the endpoint refuses one

    def complete(
        self, requests: Iterable[Request | None], progress: Progress | None = None, keep: Keep | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Replies as they arrive. Runs its own event loop in the caller's thread, and only while the caller asks."""
        loop = asyncio.new_event_loop()
        wire = Wire(self.settings.base_url, self.api_key(), self.settings.timeout)
        loop.run_until_complete(wire.open())
        pace = Pace(self.settings.concurrency)
        answers: asyncio.Queue[tuple[int, Reply]] = asyncio.Queue()
        ready: deque[tuple[int, Request]] = deque()  # taken, so that a place that becomes free is filled at once
        running: dict[int, asyncio.Task[None]] = {}

        async def work(position: int, request: Request) -> None:
            reply = await self._answer(wire, request, pace)
            del running[position]
            if keep:
                keep(position, reply)
            answers.put_nowait((position, reply))
            launch()

        def launch() -> None:
            while ready and pace.room(len(running)):
                position, request = ready.popleft()
                running[position] = loop.create_task(work(position, request))

        pace.freed = launch
        source, position = iter(requests), 0
        try:
            while True:
                while len(ready) < self.settings.concurrency and (request := next(source, None)) is not None:
                    ready.append((position, request))
                    position += 1
                    launch()
                if not running and answers.empty():
                    break
                # One reply at a time: what the caller does with it must not hold up the others, nor the next requests.
                place, reply = loop.run_until_complete(answers.get())
                if progress:
                    progress.advance(1)
                yield place, reply
        finally:
            for task in running.values():
                task.cancel()
            loop.run_until_complete(_closed(wire, list(running.values())))
            loop.close()

    def api_key(self) -> str:
        """The key, from the environment. Raises MidtrainError where it is not there."""
        name = self.settings.api_key_env
        if name is None:
            return "none"
        key = os.environ.get(name)
        if not key:
            raise MidtrainError(
                f"teacher {self.model}: the environment variable {name} holds no key; set it, or api_key_env: null"
            )
        return key

    async def _answer(self, wire: Wire, request: Request, pace: "Pace") -> Reply:
        """One request, attempted until it is answered, cannot be, or patience ends. Never raises."""
        paid = Reply()
        reply, charged, asked = Reply(error="not tried"), 0, request
        for attempt in range(self.settings.retries + 1):
            async with pace:
                try:
                    reply = await self._attempt(wire, asked)
                    failure = Failure(reply.error or "", again=True, charged=True) if reply.error else None
                except Exception as error:
                    failure = self._failure(error)
                    reply = Reply(error=failure.reason, detail=failure.detail)
            pace.learn(failure)
            if failure is None:
                break
            if failure.charged:
                charged += 1
                paid = _charge(paid, reply, request)
            if reply.text:  # not of the schema: the same words, sampled anew
                asked = _sampled_anew(request, attempt)
                reply = replace(reply, prompt_tokens=0, completion_tokens=0)
            if not failure.again or attempt == self.settings.retries or charged > self.settings.paid_retries:
                break
            await pace.sleep(max(failure.wait, pace.backoff(self.settings.backoff, attempt)))
        return replace(
            reply,
            prompt_tokens=reply.prompt_tokens + paid.prompt_tokens,
            completion_tokens=reply.completion_tokens + paid.completion_tokens,
        )

    async def _attempt(self, wire: Wire, request: Request) -> Reply:
        body = self.body(request)
        if not self._schemas_offered:
            body.pop("response_format", None)
        try:
            answer = await wire.post(body)
        except Refused as refused:
            if "response_format" not in body or refused.status not in (400, 422):
                raise
            self._schemas_offered = False
            del body["response_format"]
            answer = await wire.post(body)
        return structured(completion(answer, request.parameters.stop), request.parameters.json_schema)

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent: the body of a chat completion."""
        parameters = request.parameters
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": parameters.max_tokens,
            "temperature": parameters.temperature,
            "top_p": parameters.top_p,
            "seed": parameters.seed,
        }
        if parameters.stop:
            body["stop"] = list(parameters.stop)
        if parameters.json_schema is not None:
            shape = {"name": "reply", "schema": dict(parameters.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _failure(self, error: Exception) -> "Failure":
        """What an exception means. The key never gets into the text, whatever the server echoes."""
        detail = " ".join(str(error).replace(self.api_key(), "***").split())[:300]
        if isinstance(error, Unanswered):
            return Failure(error.reason, again=True, charged=error.reason == "timeout", detail=detail)
        if isinstance(error, Refused):
            wait = _seconds(error.retry_after)
            slow = error.status == 429 or (error.status == 503 and wait > 0)
            again = error.status in (408, 409, 425, 429) or error.status >= 500
            return Failure(f"status {error.status}", again, detail=detail, slow=slow, wait=wait)
        return Failure("garbled", again=True, charged=True, detail=f"{type(error).__name__}: {detail}")


@dataclass(frozen=True)
class Failure:
    """Why an attempt came to nothing: may it be tried again, have we paid, does the endpoint ask us to slow down."""

    reason: str
    again: bool
    charged: bool = False
    detail: str = ""
    slow: bool = False
    wait: float = 0.0


@dataclass
class Pace:
    """How many requests may be in flight: additive increase, multiplicative decrease (Chiu and Jain, 1989).

    Only a 429, or a 503 that says when to come back, lowers the limit, once per `limit` outcomes so that one burst of
    refusals counts once; a server that merely fails now and then keeps its load. A request that waits for its
    next attempt holds no place, so `room` lets others start meanwhile.
    """

    most: int
    limit: float = 0.0
    flying: int = 0
    asleep: int = 0
    outcomes: int = 0
    failures: int = 0  # in a row, whichever requests they were of
    freed: Callable[[], None] = lambda: None  # called when a place has become free without an answer
    _free: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    def room(self, running: int) -> bool:
        """Whether to start another request beside the `running` ones."""
        return running - self.asleep < self.limit and running < 4 * self.most

    def backoff(self, first: float, attempt: int) -> float:
        """Seconds before the next attempt, with full jitter; they double with the attempts for as long as nothing else succeeds
        either. An endpoint that answers others needs no relief from one request that had bad luck."""
        return random.uniform(0, min(first * 2 ** min(attempt, max(self.failures - 1, 0)), MOST_WAIT))

    async def sleep(self, seconds: float) -> None:
        """Wait for the next attempt of a request, without holding its place."""
        self.asleep += 1
        self.freed()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.asleep -= 1

    async def __aenter__(self) -> None:
        async with self._free:
            await self._free.wait_for(lambda: self.flying < max(1, int(self.limit)))
            self.flying += 1

    async def __aexit__(self, *error: object) -> None:
        async with self._free:
            self.flying -= 1
            self._free.notify()

    def learn(self, failure: Failure | None) -> None:
        """Adjust to how an attempt went."""
        self.outcomes += 1
        self.failures = 0 if failure is None else self.failures + 1
        if failure is not None and failure.slow:
            if self.outcomes >= self.limit:
                self.limit, self.outcomes = max(1.0, self.limit * 0.7), 0
        elif failure is None and self.limit < self.most:
            self.limit = min(self.most, self.limit + 1 / self.limit)


def completion(answer: Any, stop: tuple[str, ...]) -> Reply:
    """The reply in a chat completion, as JSON has it; a server that ignores `stop` is corrected here.

    Raises ValueError for a garbled one.
    """
    try:
        choice = answer["choices"][0]
        text, usage = choice["message"]["content"], answer.get("usage") or {}
        sent, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (KeyError, IndexError, TypeError, AttributeError):
        text = None
    if not isinstance(text, str):
        raise ValueError("the answer is no chat completion with text")
    ends = [at for word in stop if (at := text.find(word)) >= 0]
    text, finish = (text[: min(ends)], "stop") if ends else (text, choice.get("finish_reason"))
    return Reply(text, None, "", sent, written, "length" if finish == "length" else "stop")


async def _closed(wire: Wire, tasks: list["asyncio.Task[None]"]) -> None:
    """Wait until cancelled tasks have ended, then close the connections."""
    await asyncio.gather(*tasks, return_exceptions=True)
    await wire.close()


def _sampled_anew(request: Request, attempt: int) -> Request:
    """The request with another seed, and warm enough to come out differently."""
    parameters = request.parameters
    changed = replace(parameters, seed=parameters.seed + attempt + 1, temperature=max(0.7, parameters.temperature))
    return replace(request, parameters=changed)


def _charge(paid: Reply, reply: Reply, request: Request) -> Reply:
    """Add a wasted attempt's tokens; where the server told none, what it may have charged at most."""
    prompt = reply.prompt_tokens or request.characters() // 2
    completion = reply.completion_tokens or request.parameters.max_tokens
    return replace(paid, prompt_tokens=paid.prompt_tokens + prompt, completion_tokens=paid.completion_tokens + completion)


def _seconds(retry_after: str | None) -> float:
    try:
        return min(float(retry_after), MOST_WAIT) if retry_after else 0.0
    except ValueError:
        return 1.0
