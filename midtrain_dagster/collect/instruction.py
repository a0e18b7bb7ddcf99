"""Human-annotated records to one form: turns of `role: text`, whatever layout they come in."""

from collections.abc import Iterator, Mapping
from typing import Any

from midtrain_dagster.collect.records import Items, Record, Rejected
from midtrain_dagster.collect.rows import Row

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}
Turns = list[tuple[str, str]]


def documents(rows: Iterator[Row | Rejected]) -> Items:
    """Each record as a document; the preferred answer of a preference pair is the text, the other one is kept in metadata."""
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        found = turns(row.values)
        if not found:
            yield Rejected(row.location, "unknown layout", f"keys: {', '.join(map(str, row.values))}"[:300])
            continue
        own = row.values.get("id")
        several = sum(role == "user" for role, _ in found) > 1
        about: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in found]}
        if row.values.get("rejected"):
            about["rejected_answer"] = row.values["rejected"]
        text = "\n\n".join(f"{role.capitalize()}: {text}" for role, text in found)
        locator = str(own) if isinstance(own, str | int) and own != "" else row.location
        yield Record(locator, text, row.location, format="conversation" if several else None, metadata=about)


def turns(values: Mapping[str, Any]) -> Turns:
    """The turns of a record as (role, text): messages, ShareGPT, preference, Alpaca or prompt and answer; none if it is no such record."""
    for key in ("messages", "conversations", "conversation", "chosen"):
        if isinstance(values.get(key), list):
            return _messages(values[key])
    question = values.get("instruction") or values.get("prompt") or values.get("question")
    answer = next(
        (values[key] for key in ("output", "chosen", "response", "completion", "answer") if isinstance(values.get(key), str)),
        None,
    )
    if not isinstance(question, str) or not answer:
        return []
    more = values.get("input")
    return [("user", f"{question}\n\n{more}" if isinstance(more, str) and more.strip() else question), ("assistant", answer)]


def _messages(messages: list[Any]) -> Turns:
    found: Turns = []
    for message in messages:
        if not isinstance(message, Mapping):
            return []
        role = ROLES.get(str(message.get("role") or message.get("from")))
        text = message.get("content") or message.get("value")
        if role is None or not isinstance(text, str):
            return []
        found.append((role, text))
    return found
