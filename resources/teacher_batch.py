"""The teacher behind an endpoint's batch API: slower by hours, usually at half the price, the same interface.

A batch outlives the process that made it. So what was handed in is noted in a folder beside the store, before it is handed
in and by a name that the endpoint keeps too: a run that was killed finds its batches again and pays for none twice.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from midtrain_dagster.progress import Progress
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.teacher import Keep, Reply, Request, structured, taken
from resources.teacher_openai import OpenAITeacher, completion

MARK = "midtrain"  # key of a batch's metadata that holds our name for it
ENDED = {"completed", "failed", "expired", "cancelled"}


@dataclass(frozen=True)
class Noted:
    """A batch that was, or is about to be, handed in."""

    path: Path
    keys: tuple[str, ...]  # of its requests, which are their custom ids
    id: str | None  # the endpoint's; None: not known to have been handed in


class BatchTeacher:
    """Files of requests handed in, waited for, and read."""

    paid_attempts = 1

    def __init__(self, settings: TeacherSettings, folder: Path):
        self.settings, self.model, self.folder = settings, settings.model, folder
        self.window = settings.batch_requests
        self._online = OpenAITeacher(settings)

    def complete(
        self, requests: Iterable[Request | None], progress: Progress | None = None, keep: Keep | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """All requests that there are now are handed in together; replies come batch by batch."""
        source, before = iter(requests), 0
        while asked := taken(source):
            for position, reply in self._answer(asked):
                if keep:
                    keep(before + position, reply)
                if progress:
                    progress.advance(1)
                yield before + position, reply
            before += len(asked)

    def _answer(self, asked: list[Request]) -> Iterator[tuple[int, Reply]]:
        client = self._client()
        places = {request.key(self.model): place for place, request in enumerate(asked)}
        open_batches = [noted for noted in self._noted(client) if places.keys() & set(noted.keys)]
        under_way = {key for noted in open_batches for key in noted.keys}
        left = iter([key for key in places if key not in under_way])
        for keys in iter(lambda: list(islice(left, self.settings.batch_requests)), []):
            open_batches.append(self._hand_in(client, {key: asked[places[key]] for key in keys}))
        told: set[str] = set()
        for noted in open_batches:
            for key, reply in self._results(client, noted, {key: asked[place] for key, place in places.items()}):
                if key not in told:
                    told.add(key)
                    yield places[key], reply
            if places.keys() >= set(noted.keys):
                noted.path.unlink(missing_ok=True)

    def _client(self) -> Any:
        import openai

        address: dict[str, Any] = {"base_url": self.settings.base_url} if self.settings.base_url else {}
        retries, patience = self.settings.retries, self.settings.timeout
        return openai.OpenAI(api_key=self._online.api_key(), max_retries=retries, timeout=patience, **address)

    def _noted(self, client: Any) -> list[Noted]:
        """The batches of earlier runs. One that may or may not have been handed in is looked for at the endpoint."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            told = json.loads(path.read_text())
            identifier = told["id"] or next(
                (b.id for b in client.batches.list(limit=100) if (b.metadata or {}).get(MARK) == path.stem), None
            )
            if identifier is None:
                path.unlink()
            else:
                found.append(Noted(path, tuple(told["keys"]), identifier))
        return found

    def _hand_in(self, client: Any, requests: dict[str, Request]) -> Noted:
        name = blake2b("".join(sorted(requests)).encode(), digest_size=12).hexdigest()
        noted = Noted(self.folder / f"{name}.json", tuple(requests), None)
        _write(noted)
        lines = [
            json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": self._online.body(request)})
            for key, request in requests.items()
        ]
        file = client.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={MARK: name}
        )
        noted = replace(noted, id=batch.id)
        _write(noted)
        return noted

    def _results(self, client: Any, noted: Noted, asked: dict[str, Request]) -> Iterator[tuple[str, Reply]]:
        """(key, reply) of what this batch holds of the requests; what came back without an answer is an error reply."""
        while (batch := client.batches.retrieve(noted.id)).status not in ENDED:
            time.sleep(self.settings.batch_poll)
        left = {key for key in noted.keys if key in asked}
        for file in (batch.output_file_id, batch.error_file_id):
            for line in client.files.content(file).text.splitlines() if file else ():
                told = json.loads(line)
                key = str(told.get("custom_id"))
                if key in left:
                    left.remove(key)
                    yield key, _reply(told, asked[key])
        for key in sorted(left):
            yield key, Reply(error="batch", detail=f"batch {noted.id} is {batch.status} and holds no answer")


def _reply(told: dict[str, Any], request: Request) -> Reply:
    """The reply in a line of a batch's output."""
    answer = told.get("response") or {}
    if answer.get("status_code") != 200:
        return Reply(error=f"status {answer['status_code']}" if answer else "batch", detail=str(told.get("error"))[:200])
    try:
        reply = completion(answer.get("body"), request.parameters.stop)
    except ValueError as error:
        return Reply(error="garbled", detail=str(error))
    return structured(reply, request.parameters.json_schema)


def _write(noted: Noted) -> None:
    noted.path.parent.mkdir(parents=True, exist_ok=True)
    partial = noted.path.with_suffix(f".partial-{os.getpid()}")
    partial.write_text(json.dumps({"keys": noted.keys, "id": noted.id}))
    os.replace(partial, noted.path)
