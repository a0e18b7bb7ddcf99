"""A fake endpoint on loopback, for tests and benchmarks: it answers as OpenAI's chat completions do, and not always well."""

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b


@dataclass
class Manners:
    """How the endpoint behaves. Which attempt fails is drawn from a hash of seed, prompt and attempt, not from the clock."""

    fails: float = 0.0  # share of attempts answered with status 500
    slow: float = 0.0  # share answered after `slow_seconds` instead of `seconds`
    garbles: float = 0.0  # share answered with half a JSON object and status 200
    busy_above: int | None = None  # requests at a time; more get a 429
    seconds: float = 0.0
    slow_seconds: float = 1.0
    seed: int = 0
    key: str | None = None  # what Authorization must carry; the refusal echoes what came, as careless servers do
    answer: Callable[[str], str] = field(default=lambda prompt: f"An answer to {prompt}")


class FakeServer:
    """Serves `POST /v1/chat/completions`, and batches of them; `served` counts attempts by outcome, `answered` good answers
    by prompt. A batch is under way at the first look and completed at the second.
    """

    def __init__(self, manners: Manners):
        self.manners, self.port = manners, 0
        self.served: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.flying = self.most_flying = 0
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, object]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> asyncio.Server:
        """Listen on a free port of the loopback address."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                batch = self._batch(head.split(" ", 2)[:2], body)
                status, text, more = batch or await self._answer(head, json.loads(body))
                lines = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n{more}content-length: {len(text)}\r\n\r\n"
                writer.write(lines.encode() + text)
                await writer.drain()
        writer.close()

    async def _answer(self, head: str, body: dict[str, object]) -> tuple[int, bytes, str]:
        messages = body["messages"]
        prompt = str(messages[-1]["content"])  # type: ignore[index]
        sent = next((line[14:].strip() for line in head.split("\r\n") if line.startswith("authorization:")), "")
        if self.manners.key is not None and sent != f"bearer {self.manners.key}".lower():
            return self._error(401, f"incorrect key: {sent}", "refused")
        if self.manners.busy_above is not None and self.flying >= self.manners.busy_above:
            return self._error(429, "too many requests", "busy", "retry-after: 0.05\r\n")
        self.attempts[prompt] += 1
        dice = self._dice(prompt, self.attempts[prompt])
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            slow = next(dice) < self.manners.slow
            await asyncio.sleep(self.manners.slow_seconds if slow else self.manners.seconds)
        finally:
            self.flying -= 1
        if next(dice) < self.manners.fails:
            return self._error(500, "out of luck", "failed")
        good = json.dumps(self._completion(prompt, body)).encode()
        if next(dice) < self.manners.garbles:
            self.served["garbled"] += 1
            return 200, good[: len(good) // 2], ""
        self.served["slow" if slow else "good"] += 1
        self.answered[prompt] += 1
        return 200, good, ""

    def _batch(self, line: list[str], body: bytes) -> tuple[int, bytes, str] | None:
        """The answer to a request about files and batches; None for any other."""
        method, place = line[0], line[1].split("?")[0].removeprefix("/v1/").split("/")
        if place[0] == "files" and method == "post":
            name = f"file-{len(self.files)}"
            self.files[name] = "\n".join(text for text in body.decode().splitlines() if text.startswith("{"))
            return self._told({"id": name, "object": "file", "bytes": len(body), "purpose": "batch"})
        if place[0] == "files":
            return 200, self.files[place[1]].encode(), ""
        if place[0] == "batches" and method == "post":
            asked = json.loads(body)
            name, out = f"batch-{len(self.batches)}", f"file-{len(self.files)}"
            self.files[out] = "\n".join(map(self._line, self.files[asked["input_file_id"]].splitlines()))
            self.batches[name] = {**asked, "id": name, "object": "batch", "status": "in_progress", "output_file_id": out}
            return self._told(self.batches[name])
        if place[0] == "batches" and len(place) > 1:
            told = self._told(self.batches[place[1]])
            self.batches[place[1]]["status"] = "completed"
            return told
        if place[0] == "batches":
            return self._told({"object": "list", "data": list(self.batches.values()), "has_more": False})
        return None

    def _line(self, text: str) -> str:
        asked = json.loads(text)
        prompt = str(asked["body"]["messages"][-1]["content"])
        self.attempts[prompt] += 1
        if next(self._dice(prompt, self.attempts[prompt])) < self.manners.fails:
            return json.dumps({"custom_id": asked["custom_id"], "response": {"status_code": 500, "body": {}}})
        self.answered[prompt] += 1
        body = self._completion(prompt, asked["body"])
        return json.dumps({"custom_id": asked["custom_id"], "response": {"status_code": 200, "body": body}})

    def _told(self, value: dict[str, object]) -> tuple[int, bytes, str]:
        return 200, json.dumps(value).encode(), ""

    def _error(self, status: int, message: str, kind: str, more: str = "") -> tuple[int, bytes, str]:
        self.served[kind] += 1
        return status, json.dumps({"error": {"message": message, "type": kind}}).encode(), more

    def _completion(self, prompt: str, body: dict[str, object]) -> dict[str, object]:
        text = self.manners.answer(prompt)
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        told = {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        return {**told, "usage": {**usage, "total_tokens": sum(usage.values())}}

    def _dice(self, prompt: str, attempt: int) -> Iterator[float]:
        for number in range(3):
            digest = blake2b(f"{self.manners.seed}/{prompt}/{attempt}/{number}".encode(), digest_size=7).digest()
            yield int.from_bytes(digest, "big") / 2**56


@contextlib.contextmanager
def serving(manners: Manners) -> Iterator[FakeServer]:
    """A fake endpoint in a thread of its own, for as long as the block lasts."""
    fake = FakeServer(manners)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(fake.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
