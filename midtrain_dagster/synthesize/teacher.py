"""What this stage asks of a language model: messages in, text and its price out.

`resources/teacher.py` implements it for OpenAI-compatible endpoints, for a local model and, scripted, for tests.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Protocol

from midtrain_dagster.progress import Progress

Message = Mapping[str, Any]  # {"role": …, "content": a string, or parts for image messages}


@dataclass(frozen=True)
class Parameters:
    """How to sample. `json_schema`: the reply shall be one JSON value of this schema; whoever answers verifies it."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Request:
    """One question to the teacher. `account` says who pays, as `generator/source`; it is no part of the cache key.

    A last message of the role `assistant` is the beginning of the reply: a teacher that can, goes on from there.
    """

    messages: tuple[Message, ...]
    parameters: Parameters = field(default_factory=Parameters)
    account: str = ""

    def key(self, model: str) -> str:
        """Hash of (model, messages, parameters), 32 hex digits: equal requests, equal keys, on every machine."""
        content = [model, [dict(message) for message in self.messages], vars(self.parameters)]
        return blake2b(json.dumps(content, sort_keys=True, default=str).encode("utf-8", "replace"), digest_size=16).hexdigest()

    def characters(self) -> int:
        """Length of what is sent, in characters; pictures count for nothing."""
        return sum(len(m["content"]) if isinstance(m["content"], str) else _text_length(m["content"]) for m in self.messages)


def _text_length(parts: Iterable[Mapping[str, Any]]) -> int:
    return sum(len(part.get("text", "")) for part in parts)


@dataclass(frozen=True)
class Reply:
    """What came back: `text`, or `error` (a few words, the same for the same cause) where nothing usable did.

    `finish_reason` is `stop` or `length`. Tokens and cost include attempts that were paid for and then thrown away. A
    cached reply keeps its tokens and what it once cost; nothing was paid for it now.
    """

    text: str = ""
    error: str | None = None
    detail: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    cached: bool = False
    cost: float = 0.0


Keep = Callable[[int, Reply], None]


class Teacher(Protocol):
    """A language model that writes for us."""

    model: str

    def complete(
        self, requests: Iterable[Request | None], progress: Progress | None = None, keep: Keep | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Answer each request: (its position, the reply), in the order in which replies arrive, each exactly once.

        Requests are taken from the iterable only when there is room to send them. None among them (it has no position)
        means: nothing to ask until more replies have come. A teacher with nothing in flight then returns, and is called
        again with the rest. `keep` is called with what is yielded, as soon as it is there and before anything more is
        sent, so that a kill loses nothing that has arrived. A request that cannot be answered yields a reply with an error;
        nothing is raised for one bad request.
        """
        ...


def taken(requests: Iterator[Request | None]) -> list[Request]:
    """The requests up to the next None or the end, for a teacher that answers many at once."""
    return list(iter(lambda: next(requests, None), None))


def ask(teacher: Teacher, requests: list[Request], progress: Progress | None = None) -> list[Reply]:
    """The replies in the order of the requests; one that never came is an error, not a hole."""
    replies = [Reply(error="no reply")] * len(requests)
    for position, reply in teacher.complete(requests, progress):
        replies[position] = reply
    return replies


def structured(reply: Reply, schema: Mapping[str, Any] | None) -> Reply:
    """The reply as bare JSON if it holds JSON of `schema`, else an error: servers may accept a schema and ignore it.

    Of a reply with words or a fence around it the first JSON object or list counts.
    """
    if schema is None or reply.error:
        return reply
    try:
        value, text = json.loads(reply.text), reply.text
    except ValueError as error:
        found = _embedded(reply.text)
        if found is None:
            return replace(reply, error="not JSON", detail=str(error)[:200])
        value, text = found, json.dumps(found, ensure_ascii=False)
    problem = mismatch(value, schema)
    return replace(reply, error="not of the schema", detail=problem) if problem else replace(reply, text=text)


def _embedded(text: str) -> Any:
    """The first JSON object or list in a text; None where there is none."""
    decoder = json.JSONDecoder()
    for place in (place for place, character in enumerate(text) if character in "{["):
        try:
            return decoder.raw_decode(text, place)[0]
        except ValueError:
            continue
    return None


def mismatch(value: Any, schema: Mapping[str, Any], where: str = "value") -> str | None:
    """Where `value` departs from a JSON schema made of type, properties, required, items and enum; None if nowhere."""
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    kind = str(schema.get("type"))
    if kind in kinds and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return f"{where} is no {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is none of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            return f"{where} has no {missing[0]}"
        inner = [(value[name], part, f"{where}.{name}") for name, part in schema.get("properties", {}).items() if name in value]
    elif isinstance(value, list) and "items" in schema:
        inner = [(item, schema["items"], f"{where}[{number}]") for number, item in enumerate(value)]
    else:
        return None
    return next((problem for item, part, place in inner if (problem := mismatch(item, part, place))), None)
