"""Runs a generator over its parents: every request once, every parent accounted for.

The durable record is the teacher's cache: a run that was killed asks only for what it had not received, and comes to
the same documents.
"""

import json
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import duckdb
import polars as pl

from midtrain_dagster.documents import document_id, documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.synthesize.conversations import Conversations, Talk
from midtrain_dagster.synthesize.generator import Draft, Generator, Parent
from midtrain_dagster.synthesize.prompts import prompt_hash
from midtrain_dagster.synthesize.teacher import Reply, Teacher
from midtrain_dagster.tables import database

SAMPLE_CHARACTERS = 400

OUTCOMES = pl.Schema(
    {
        "parent_id": pl.String,
        "request": pl.Int32,  # number in the parent's conversation; null: a verdict on the parent, nothing asked
        "accepted": pl.Boolean,  # null: a step whose reply went into a later request
        "reason": pl.String,  # why not; null when accepted
        "document_id": pl.String,  # what came of it
        "prompt_tokens": pl.Int64,
        "completion_tokens": pl.Int64,
        "cost": pl.Float64,  # what the reply cost when it was bought
        "cached": pl.Boolean,  # bought by an earlier run, or for another parent of this one
        "sample": pl.String,  # beginning of the text
    }
)


REQUESTS = pl.Schema(
    {
        "parent_id": pl.String,  # the first parent of the conversation
        "request": pl.Int32,  # number in the conversation
        "key": pl.String,  # of the reply in the teacher's store
        "messages": pl.String,  # JSON: what was sent; of a picture its kind and hash
        "parameters": pl.String,  # JSON: how it was sampled
        "reply": pl.String,
        "error": pl.String,
    }
)
PASSING = r"^(?:failed: (?:timeout|connection|garbled|no reply|batch|samples missing|status (?:408|409|425|429|5\d\d))|budget reached)"
PICTURE = re.compile(r"data:([\w/+.-]+);base64,([A-Za-z0-9+/=]+)")


class Synthesized(NamedTuple):
    """What a generator made, and what became of every request and parent."""

    documents: pl.DataFrame  # documents.SCHEMA, sorted by id
    outcomes: pl.DataFrame  # OUTCOMES, in order of parents and requests
    requests: pl.DataFrame = pl.DataFrame(schema=REQUESTS)  # in the same order


def choose(
    frame: pl.DataFrame, generator: Generator, narrowed: Callable[[pl.DataFrame], pl.DataFrame] | None = None
) -> pl.DataFrame:
    """The parents in a frame of documents and attributes: the generator's SQL condition, `narrowed` (recall, say), then the
    generator's limit by a hash of id.

    Raises MidtrainError for a condition that is no SQL or names columns that are not there.
    """
    found = where(frame, generator.select(), f"generator {generator.settings.name}: `where:")
    found = narrowed(found) if narrowed is not None else found
    return drawn(found, generator.settings.limit)


def where(frame: pl.DataFrame, condition: str, told: str) -> pl.DataFrame:
    """The rows of which a condition is true; it can read no file and no other table. `told` begins the error."""
    connection = database(enable_external_access="false")
    connection.register("documents", frame.to_arrow())
    try:
        return connection.sql(f"select * from documents where ({condition})").pl()
    except duckdb.Error as error:
        raise MidtrainError(f"{told} {condition}` failed: {' '.join(str(error).split())[:300]}") from None
    finally:
        connection.close()


def drawn(frame: pl.DataFrame, most: int | None) -> pl.DataFrame:
    """At most `most` rows, the same ones whatever else there is, in the order of their ids."""
    if most is None or len(frame) <= most:
        return frame.sort("id")
    order = [blake2b(name.encode(), digest_size=8).digest() for name in frame["id"]]
    return frame.with_columns(order=pl.Series(order, dtype=pl.Binary)).sort("order").head(most).drop("order").sort("id")


def synthesize(
    parents: pl.DataFrame,
    generator: Generator,
    teacher: Teacher | None,
    progress: Progress | None = None,
    batch: int = 2048,
) -> Synthesized:
    """Documents made from `parents` (columns id, text and what else documents have), `batch` conversations at a time.

    `progress` counts parents. Raises MidtrainError when the generator needs a teacher and there is none.
    """
    if teacher is None and generator.needs_teacher:
        raise MidtrainError(f"generator {generator.settings.name} needs a teacher; the project file names none")
    account = _account(generator, teacher)
    model = teacher.model if teacher is not None else ""
    told = _Told()
    chunks: list[tuple[pl.DataFrame, ...]] = []
    for talk in Conversations(generator, _parents(parents), batch).ended(teacher if generator.needs_teacher else None):
        told.add(talk, *_record(generator, talk, account), [_asked(talk, number, model) for number in range(len(talk.asked))])
        if progress:
            progress.advance(len(talk.parents))
        if told.talks >= batch:
            chunks.append(told.frames())
            told = _Told()
    chunks.append(told.frames())
    made, outcomes, requests = (pl.concat(frames) for frames in zip(*chunks, strict=True))
    return Synthesized(
        made.sort("task").drop("task").unique("id", keep="first", maintain_order=True).sort("id"),
        outcomes.sort("task", maintain_order=True).drop("task"),
        requests.sort("task", maintain_order=True).drop("task"),
    )


class _Told:
    """Rows of ended conversations. They are made one conversation at a time, while the teacher answers others."""

    def __init__(self) -> None:
        self.talks = 0
        self._rows: tuple[list[dict[str, Any]], ...] = ([], [], [])  # documents, outcomes, requests
        self._tasks: tuple[list[int], ...] = ([], [], [])  # the number of each row's conversation

    def add(self, talk: Talk, *rows: list[dict[str, Any]]) -> None:
        """Documents, outcomes and requests of a conversation."""
        self.talks += 1
        for target, tasks, some in zip(self._rows, self._tasks, rows, strict=True):
            target += some
            tasks += [talk.number] * len(some)

    def frames(self) -> tuple[pl.DataFrame, ...]:
        """Documents, outcomes and requests, each with the number of its conversation as `task`."""
        rows, outcomes, requests = self._rows
        frames = documents(rows), pl.DataFrame(outcomes, schema=OUTCOMES), pl.DataFrame(requests, schema=REQUESTS)
        return tuple(
            frame.with_columns(task=pl.Series(task, dtype=pl.Int64)) for frame, task in zip(frames, self._tasks, strict=True)
        )


def _asked(talk: Talk, number: int, model: str) -> dict[str, Any]:
    request, reply = talk.asked[number], talk.replies[number]
    messages = PICTURE.sub(_picture, json.dumps([dict(message) for message in request.messages], ensure_ascii=False))
    return {
        "parent_id": talk.parents[0].id,
        "request": number,
        "key": request.key(model),
        "messages": messages,
        "parameters": json.dumps(vars(request.parameters), ensure_ascii=False),
        "reply": reply.text,
        "error": reply.error,
    }


def _picture(found: re.Match[str]) -> str:
    return f"{found[1]} {blake2b(found[2].encode(), digest_size=16).hexdigest()}"


def _record(generator: Generator, talk: Talk, account: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A conversation as rows of documents and of outcomes; each request and each parent has at least one outcome."""
    rows, outcomes, told = [], [], set[int]()
    for number, verdict in enumerate(talk.verdicts or []):
        made = None
        if verdict.draft is not None:
            rows.append(_document(generator, talk.parents, verdict.draft, number, account))
            made = rows[-1]["id"]
        first = verdict.request is not None and verdict.request not in told
        told |= {verdict.request} if verdict.request is not None else set()
        reply = talk.replies[verdict.request] if first and verdict.request is not None else Reply()
        for position, parent in enumerate(talk.parents):
            outcomes.append(
                _outcome(parent, verdict.request, made, verdict.reason, reply, verdict.sample)
                if position == 0
                else _outcome(parent, None, made, verdict.reason, Reply(), verdict.sample)
            )
    for number, reply in enumerate(talk.replies):
        if number not in told:
            step = {"accepted": None, "reason": f"failed: {reply.error}" if reply.error else None}
            outcomes.append({**_outcome(talk.parents[0], number, None, None, reply, reply.text), **step})
    return rows, outcomes


def _outcome(
    parent: Parent, request: int | None, made: str | None, reason: str | None, reply: Reply, sample: str
) -> dict[str, Any]:
    return {
        "parent_id": parent.id,
        "request": request,
        "accepted": made is not None,
        "reason": reason,
        "document_id": made,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "cost": reply.cost,
        "cached": reply.cached,
        "sample": sample[:SAMPLE_CHARACTERS],
    }


def _document(generator: Generator, parents: tuple[Parent, ...], draft: Draft, number: int, account: str) -> dict[str, Any]:
    licenses = {parent.license for parent in parents}
    name = generator.settings.name
    locator = "+".join(parent.id for parent in parents) + f"/{number}"
    return {
        "id": document_id(name, locator),
        "text": draft.text,
        "source": name,
        "domain": generator.settings.domain or parents[0].domain,
        "format": draft.format,
        "language": draft.language or parents[0].language,
        "license": licenses.pop() if len(licenses) == 1 else None,
        "parent_ids": [parent.id for parent in parents],
        "generator": account,
        "metadata": json.dumps(dict(draft.metadata), ensure_ascii=False, sort_keys=True) if draft.metadata else None,
    }


def _account(generator: Generator, teacher: Teacher | None) -> str:
    """How the documents came about, as JSON: model, prompts with their hashes, every setting that shapes them."""
    settings = generator.settings.model_dump(mode="json", exclude={"parents", "where", "limit", "sample", "name", "kind"})
    account = {
        "name": generator.settings.name,
        "kind": getattr(generator.settings, "kind", ""),
        "model": teacher.model if teacher is not None and generator.needs_teacher else None,
        "prompts": {f"{name}.txt": prompt_hash(name) for name in generator.prompts},
        "parameters": settings,
    }
    return json.dumps(account, ensure_ascii=False, sort_keys=True)


def _parents(frame: pl.DataFrame) -> list[Parent]:
    known = ("id", "text", "source", "domain", "language", "license", "url", "metadata")
    return [_parent(row) for row in frame.select([name for name in known if name in frame.columns]).iter_rows(named=True)]


def _parent(row: dict[str, Any]) -> Parent:
    metadata = row.pop("metadata", None)
    try:
        values = json.loads(metadata) if metadata else {}
    except ValueError:
        values = {}
    return Parent(**{**row, "source": row.get("source") or "", "metadata": values if isinstance(values, dict) else {}})


def unfinished(outcomes: pl.DataFrame) -> int:
    """Verdicts that another run may turn: budgets are raised, servers come back."""
    return int(outcomes["reason"].str.contains(PASSING).fill_null(value=False).sum())


def check_answered(result: Synthesized) -> None:
    """Raise MidtrainError where requests were sent and every one of them failed: that is an outage, not a result."""
    failed = result.requests.filter(pl.col("error").is_not_null() & (pl.col("error") != "budget"))
    if len(failed) and len(failed) == len(result.requests):
        most = failed["error"].value_counts(sort=True).row(0)
        raise MidtrainError(
            f"the teacher answered none of {len(failed)} requests ({most[1]} times: {most[0]}); nothing was written. "
            "See to the endpoint, then run again: what was answered before is kept"
        )


def samples(result: Synthesized, number: int = 3) -> Iterator[dict[str, Any]]:
    """The first `number` documents with their parents and beginnings, for a report."""
    for row in result.documents.head(number).iter_rows(named=True):
        yield {"document": row["id"], "parents": ", ".join(row["parent_ids"] or []), "text": _beginning(row["text"])}


def _beginning(text: str) -> str:
    """The beginning of a text; of one that is long because of what comes before its end, such as a long context, both."""
    if len(text) <= 3 * SAMPLE_CHARACTERS:
        return text
    return (
        f"{text[: 2 * SAMPLE_CHARACTERS]}\n[… {len(text) - 3 * SAMPLE_CHARACTERS:,} characters …]\n{text[-SAMPLE_CHARACTERS:]}"
    )


def summary(result: Synthesized) -> dict[str, Any]:
    """parents, requests, documents, tokens, cost and the count of every reason: one row of the report's table."""
    outcomes = result.outcomes
    judged = outcomes.filter(pl.col("accepted").is_not_null())
    reasons = (
        judged.filter(~pl.col("accepted"))["reason"].value_counts(sort=True).sort("count", "reason", descending=[True, False])
    )
    return {
        "parents": outcomes["parent_id"].n_unique(),
        "requests": outcomes.filter(pl.col("request").is_not_null()).select("parent_id", "request").n_unique(),
        "documents": len(result.documents),
        "accepted_share": round(float(judged["accepted"].mean() or 0.0), 4) if len(judged) else None,  # type: ignore[arg-type]
        "prompt_tokens": int(outcomes["prompt_tokens"].sum()),
        "completion_tokens": int(outcomes["completion_tokens"].sum()),
        "cached": int(outcomes["cached"].sum()),
        "cost": float(outcomes["cost"].sum()),
        "paid_now": float(outcomes.filter(~pl.col("cached"))["cost"].sum()),
        "rejected": dict(reasons.iter_rows()),
    }


def estimate(sample: Synthesized, parents: int, prices: Any = None, left: float | None = None) -> dict[str, Any]:
    """What `parents` will take, from what a sample of them took, and `said` as a sentence.

    `prices`: an object with `prompt` and `completion` per million tokens; without it the cost is null. `left`: what the
    budget still allows; null: no budget. The sample's replies are kept and not paid for again.
    """
    unpaid = sample.outcomes.filter(pl.col("reason") == "budget reached")["parent_id"].unique()
    outcomes = sample.outcomes.filter(~pl.col("parent_id").is_in(unpaid.implode()))
    count = outcomes["parent_id"].n_unique()
    if not count:
        said = f"no estimate for {parents:,} parents: the budget has {left or 0:,.6g} left, which covers no whole parent of a sample"
        return {"parents": parents, "cost": None, "budget_left": left, "said": said}
    factor = parents / count
    sent, written = int(outcomes["prompt_tokens"].sum()) * factor, int(outcomes["completion_tokens"].sum()) * factor
    cost = None if prices is None else round((sent * prices.prompt + written * prices.completion) / 1e6, 6)
    told = {
        "parents": parents,
        "requests": round(len(outcomes.filter(pl.col("request").is_not_null())) * factor),
        "prompt_tokens": round(sent),
        "completion_tokens": round(written),
        "documents": round(len(sample.documents) * factor),
        "cost": cost,
        "budget_left": left,
    }
    said = (
        f"{parents:,} parents will take about {told['requests']:,} requests, {told['prompt_tokens']:,} tokens in, "
        f"{told['completion_tokens']:,} out" + ("" if cost is None else f", cost {cost:,.6g}")
    )
    if left is not None:
        enough = "enough" if cost is None or cost <= left else "NOT enough: the run will stop before it is passed"
        said += f"; the budget has {left:,.6g} left, {enough}"
    return {**told, "said": f"{said} (from a sample of {count})"}
