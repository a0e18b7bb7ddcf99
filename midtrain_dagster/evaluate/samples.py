"""What was asked, what came back, and what it scored: a row for each question and metric."""

import json
from collections.abc import Iterable, Mapping
from math import log
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.documents import text_hash
from midtrain_dagster.evaluate.catalog import Benchmark
from midtrain_dagster.evaluate.rows import Row

SAMPLES_SCHEMA = pl.Schema(
    {
        "benchmark": pl.String,
        "domain": pl.String,
        "task": pl.String,  # lm-evaluation-harness's; a benchmark may have several
        "question_id": pl.String,  # hash of task and question: the same for every model
        "file": pl.String,  # where the row stands; null for the hub's
        "row": pl.Int64,  # 0-based, in its file, or in the split
        "doc": pl.String,  # the row, JSON
        "prompt": pl.String,  # with its shots
        "gold": pl.String,  # what was scored as the right answer, with its delimiter
        "output": pl.String,  # generated text, or the chosen option
        "filter": pl.String,
        "metric": pl.String,  # null where only gold bits were measured
        "primary": pl.Boolean,  # the metric that stands for the benchmark
        "score": pl.Float64,
        "gold_bits": pl.Float64,  # −Σ log2 p(gold tokens | prompt); null where not measured
        "gold_bytes": pl.Int64,  # UTF-8 bytes of gold
    }
)


class Gold(NamedTuple):
    """The right answer of a question, as a continuation of its prompt."""

    prompt: str
    text: str


def gold_of(benchmark: Benchmark, task: Any, doc: Mapping[str, Any], arguments: list[tuple[Any, ...]]) -> Gold:
    """The prompt and the right continuation. `arguments` are the harness's requests for this question, in order."""
    from lm_eval.utils import apply_template

    target = task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "multiple_choice":
        if task.multiple_input:  # several prompts with one ending, as WinoGrande's: the task names the right prompt
            index = task.doc_to_text(doc)
        else:
            index = target if isinstance(target, int) else task.doc_to_choice(doc).index(target)
        context, continuation = arguments[index][:2]
        return Gold(context, continuation)
    prompt = arguments[0][0]
    text = apply_template(benchmark.gold, dict(doc)) if benchmark.gold else target
    if isinstance(text, list):
        text = text[0]
    text = str(text)
    glued = benchmark.gold is not None and (prompt[-1:].isspace() or text[:1].isspace())
    return Gold(prompt, text if glued else f"{task.config.target_delimiter}{text}")


def frame(
    name: str,
    benchmark: Benchmark,
    tasks: Mapping[str, Any],
    origin: Mapping[str, list[Row]],
    logged: Mapping[str, Iterable[Mapping[str, Any]]],
    bits: Mapping[tuple[str, str], float],
) -> pl.DataFrame:
    """The harness's logged samples as SAMPLES_SCHEMA. `bits` holds log-likelihoods in nats by (prompt, gold)."""
    rows: list[dict[str, Any]] = []
    for task_name, samples in logged.items():
        task = tasks[task_name]
        for sample in samples:
            gold = gold_of(benchmark, task, sample["doc"], sample["arguments"])
            nats = bits.get(gold)
            place = origin[task_name][sample["doc_id"]] if origin.get(task_name) else None
            shared = {
                "benchmark": name,
                "domain": benchmark.domain,
                "task": task_name,
                "question_id": text_hash(f"{task_name}\0{json.dumps(sample['doc'], sort_keys=True, default=str)}"),
                "file": place.file if place else None,
                "row": place.number if place else sample["doc_id"],
                "doc": json.dumps(sample["doc"], ensure_ascii=False, default=str),
                "prompt": gold.prompt,
                "gold": gold.text,
                "output": _output(task, sample),
                "gold_bits": None if nats is None else -nats / log(2),
                "gold_bytes": len(gold.text.encode()),
            }
            for metric in sample["metrics"] or [None]:
                rows.append(
                    {
                        **shared,
                        "filter": sample["filter"],
                        "metric": metric,
                        "primary": metric is None or (metric == benchmark.metric and sample["filter"] == benchmark.filter),
                        "score": None if metric is None else float(sample[metric]),
                    }
                )
    return pl.DataFrame(rows, schema=SAMPLES_SCHEMA).sort("task", "row", "filter", "metric", maintain_order=True)


def by_length(samples: pl.DataFrame) -> dict[str, float] | None:
    """The primary score of the questions of each length, for rows that name one: the long-context curve."""
    scored = samples.filter("primary").drop_nulls("score")
    lengths = [json.loads(doc).get("length") for doc in scored["doc"]]
    named = scored.select("score", length=pl.Series(lengths, dtype=pl.Int64, strict=False)).drop_nulls("length")
    if named.is_empty():
        return None
    return {str(length): score for length, score in named.group_by("length").agg(pl.col("score").mean()).sort("length").rows()}


def _output(task: Any, sample: Mapping[str, Any]) -> str | None:
    if not sample["resps"]:
        return None
    if task.OUTPUT_TYPE == "multiple_choice":
        best = max(range(len(sample["resps"])), key=lambda i: sample["resps"][i][0][0])
        return str(sample["arguments"][best][1])
    answers = sample["resps"][0]
    return str(answers[0]) if len(answers) == 1 else json.dumps(answers, ensure_ascii=False)
