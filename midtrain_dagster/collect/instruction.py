"""Human-annotated records to one form: turns of `role: text`, whatever layout they come in."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from midtrain_dagster.collect.records import Items, Record, Rejected
from midtrain_dagster.collect.rows import Row

ROLES = {  # as the data sets write them, in lower case
    "human": "user", "user": "user", "prompter": "user", "instruction": "user",
    "gpt": "assistant", "assistant": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "function_call": "assistant",
}  # fmt: skip
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chosen")
QUESTIONS = ("instruction", "prompt", "question", "query", "inputs")
ANSWERS = ("output", "chosen", "response", "completion", "answer", "targets")
INPUTS = ("input", "context")  # Alpaca, Dolly
SYSTEM = ("system", "system_prompt")
MARKED = re.compile(r"\s*\b(Human|Assistant): ?")  # HH-RLHF (arXiv:2204.05862) writes a whole conversation as one string
Turns = list[tuple[str, str]]


def documents(rows: Iterator[Row | Rejected]) -> Items:
    """Each record as a document; the preferred answer of a preference pair is the text, the other one is kept in metadata."""
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        found = turns(row.values)
        if not found:
            yield _rejected(row)
            continue
        own = row.values.get("id")
        several = sum(role == "user" for role, _ in found) > 1
        about: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in found]}
        if row.values.get("rejected"):
            about["rejected_answer"] = row.values["rejected"]
        text = "\n\n".join(f"{role.capitalize()}: {text}" for role, text in found)
        locator = str(own) if isinstance(own, str | int) and own != "" else row.location
        yield Record(locator, text, row.location, format="conversation" if several else None, metadata=about)


def _rejected(row: Row) -> Rejected:
    """A question whose answer is empty, as data sets have them, or keys that are known as no layout."""
    if _string(row.values, QUESTIONS) and any(row.values.get(key) == "" for key in ANSWERS):
        return Rejected(row.location, "empty answer", str(_string(row.values, QUESTIONS))[:300])
    return Rejected(row.location, "unknown layout", f"keys: {', '.join(map(str, row.values))}"[:300])


def turns(values: Mapping[str, Any]) -> Turns:
    """The turns of a record as (role, text): messages, ShareGPT, preference, Alpaca or prompt and answer; none if it is no such record."""
    for key in MESSAGES:
        if isinstance(values.get(key), list):
            before = values.get("prompt")
            opening = _messages(before) if isinstance(before, list) else []
            found = _messages(values[key])
            if isinstance(before, str) and found and found[0][0] == "assistant":
                opening = [("user", before)]
            return _with_system(values, [*opening, *found]) if found else []
    question, answer = _string(values, QUESTIONS), _string(values, ANSWERS)
    if question is None and isinstance(values.get("chosen"), str):
        return _marked(values["chosen"])
    if question is None or answer is None:
        return []
    more = _string(values, INPUTS)
    return _with_system(values, [("user", f"{question}\n\n{more}" if more else question), ("assistant", answer)])


def _string(values: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of the keys that holds text."""
    return next((values[key] for key in keys if isinstance(values.get(key), str) and values[key].strip()), None)


def _with_system(values: Mapping[str, Any], found: Turns) -> Turns:
    system = _string(values, SYSTEM)
    return [("system", system), *found] if system and found and found[0][0] != "system" else found


def _marked(text: str) -> Turns:
    """`Human: … Assistant: …` as turns."""
    parts = MARKED.split(text)
    if parts[0].strip() or len(parts) < 5:
        return []
    return [(ROLES[who.lower()], said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def _messages(messages: list[Any]) -> Turns:
    found: Turns = []
    for message in messages:
        if not isinstance(message, Mapping):
            return []
        role = ROLES.get(str(message.get("role") or message.get("from") or message.get("speaker")).lower())
        text = next((message[key] for key in ("content", "value", "text") if message.get(key) is not None), "")
        if isinstance(text, list):  # parts, as multimodal messages have them: the text of them
            text = "\n".join(str(part.get("text")) for part in text if isinstance(part, Mapping) and part.get("text"))
        if role is None or not isinstance(text, str):
            return []
        if text.strip():  # a call of a tool has no text of its own
            found.append((role, text))
    return found
