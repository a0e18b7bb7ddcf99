"""How close the teacher's client comes to its endpoint's own limit, and that nothing is lost on the way.

Usage: python benchmarks/synthesis.py [--requests 10000] [--concurrency 64] [--seconds 0.2]

The endpoint is a fake one in a process of its own that fails 10 % of the attempts, answers 5 % slowly and garbles 2 %.
First a bare asynchronous load generator (sockets, no client library, no cache, immediate retries) takes all requests to a
good answer at the same concurrency; then the generator `rewrite` does through OpenAITeacher and the SQLite cache, every
parent accounted for. One JSON object: requests per second of both, their ratio, outcomes by reason.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from midtrain_dagster.documents import documents
from midtrain_dagster.project.generators import Rewrite
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.driver import summary, synthesize
from midtrain_dagster.synthesize.kinds import make
from resources.teacher import teacher
from resources.teacher_server import FakeServer, Manners


def answer(prompt: str) -> str:
    """A rewrite that is accepted."""
    return "In the words of an encyclopedia: " + " ".join(reversed(prompt.split()[-30:]))


def serve(port: Any, seconds: float, ends: Any) -> None:
    """The fake endpoint, until told to end; says its port, and at the end how often a prompt got more than one good answer."""

    async def run() -> None:
        manners = Manners(fails=0.10, slow=0.05, garbles=0.02, seconds=seconds, slow_seconds=5 * seconds, answer=answer)
        fake = FakeServer(manners)
        server = await fake.start()
        port.send(fake.port)
        await asyncio.get_running_loop().run_in_executor(None, ends.wait)
        server.close()
        port.send((dict(fake.served), max(fake.answered.values(), default=0)))

    asyncio.run(run())


class Endpoint:
    """The fake endpoint in a process of its own."""

    def __init__(self, seconds: float):
        self.ends = multiprocessing.Event()
        self.pipe, child = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=serve, args=(child, seconds, self.ends), daemon=True)

    def __enter__(self) -> int:
        self.process.start()
        self.port = int(self.pipe.recv())
        return self.port

    def __exit__(self, *error: object) -> None:
        self.ends.set()
        self.served, self.most_answers = self.pipe.recv()
        self.process.join()


async def bare(port: int, prompts: list[str], concurrency: int) -> None:
    """Every prompt to a good answer over raw keep-alive connections, again at once after a failure."""
    left = iter(prompts)

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for prompt in left:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}], "max_tokens": 512}).encode()
            good = False
            while not good:
                writer.write(f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                text = await reader.readexactly(int(head.rsplit("content-length: ", 1)[1].split("\r\n")[0]))
                good = head.startswith("HTTP/1.1 200") and _is_json(text)
        writer.close()

    await asyncio.gather(*(work() for _ in range(concurrency)))


def import_client() -> None:
    """Load the client library, as the bare generator's was loaded before its clock started."""
    import openai
    import openai.resources.chat

    openai.DefaultAioHttpClient()


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def main() -> None:
    """Run both and print the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--requests", type=int, default=10_000)
    arguments.add_argument("--concurrency", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=0.2)
    chosen = arguments.parse_args()
    line = "the river flows past many towns and fields until it comes to the sea where boats wait for the wind"
    texts = [f"Part {i}. {line} {line}" for i in range(chosen.requests)]

    with Endpoint(chosen.seconds) as port:
        started = time.perf_counter()
        asyncio.run(bare(port, texts, chosen.concurrency))
        bare_seconds = time.perf_counter() - started

    parents = documents({"id": f"p{i}", "text": text, "source": "web"} for i, text in enumerate(texts))
    endpoint = Endpoint(chosen.seconds)
    with endpoint as port, tempfile.TemporaryDirectory() as directory:
        url = f"http://127.0.0.1:{port}/v1"
        settings = TeacherSettings(
            kind="openai", model="m", base_url=url, api_key_env=None, concurrency=chosen.concurrency, retries=12, paid_retries=8
        )
        asking = teacher(settings, Path(directory) / "replies.sqlite")
        import_client()
        before = time.process_time()
        started = time.perf_counter()
        result = synthesize(parents, make(Rewrite(name="r", minimum_words=1)), asking, batch=chosen.requests)
        seconds = time.perf_counter() - started
        cpu = time.process_time() - before
    told = {
        "requests": chosen.requests,
        "concurrency": chosen.concurrency,
        "bare_per_second": round(chosen.requests / bare_seconds, 1),
        "teacher_per_second": round(chosen.requests / seconds, 1),
        "ratio": round(bare_seconds / seconds, 4),
        "client_cpu_ms_a_request": round(1000 * cpu / chosen.requests, 2),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "served": endpoint.served,
        "most_good_answers_to_one_prompt": endpoint.most_answers,
        **summary(result),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
