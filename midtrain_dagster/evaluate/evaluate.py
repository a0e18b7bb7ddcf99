"""One model on many benchmarks: lm-evaluation-harness runs them one by one, each is kept when it is done.

OUT/results.json has the harness's own keys and, under `midtrain`, what it does not know; OUT/samples.parquet has every question;
OUT/not_run.json says what did not run and why. A second call with the same model and settings does nothing again.
"""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate import probes
from midtrain_dagster.evaluate import samples as kept
from midtrain_dagster.evaluate.catalog import Benchmark
from midtrain_dagster.evaluate.harness import Built, NotRun, build
from midtrain_dagster.evaluate.names import named
from midtrain_dagster.evaluate.precision import precision_of
from midtrain_dagster.evaluate.responses import Responses, model_digest, request_key
from midtrain_dagster.progress import Progress
from midtrain_dagster.recipes.evaluation import Evaluation, Task

VERSION = "1"  # of what is kept; a change asks again
MERGED = ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


class Evaluated(NamedTuple):
    """What is known of a model now."""

    results: dict[str, Any]  # lm-evaluation-harness's keys, and `midtrain`
    samples: pl.DataFrame  # samples.SAMPLES_SCHEMA
    not_run: dict[str, str]  # benchmark → reason


def evaluate(
    model: Path | str,
    tasks: Sequence[str] | None = None,
    data: Path | Sequence[Path] | None = None,
    out: Path | None = None,
    *,
    settings: Evaluation | None = None,
    limit: int | None = None,
    hub: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Score `model` (a directory in the Hugging Face layout, or a hub name) on `tasks` (None: those of the settings).

    Rows come from `data` (directories, or one file of rows); from the hub where they have none and `hub` is true. What has no
    rows is in `not_run`. `limit` (questions of each subtask, from the first) is over the settings'. Answers are kept in
    `cache`, which evaluations of any model may share, else beside the results. Raises MidtrainError for unknown benchmarks.
    """
    settings = settings or Evaluation()
    wanted = _wanted(tasks, settings)
    _quiet()
    digest = model_digest(model, VERSION, precision_of(settings.precision))
    log = cache if cache is not None else out / "responses" if out is not None else None
    responses = Responses(log / f"{digest}.jsonl" if log is not None else None)
    loaded: list[Any] = []

    def language_model() -> Any:
        if not loaded:
            loaded.append(_load(model, settings, responses, progress))
        return loaded[0]

    parts: list[dict[str, Any]] = []
    frames: list[pl.DataFrame] = []
    not_run: dict[str, str] = {}
    for task, benchmark in wanted:
        try:
            rows = _probes(model, settings, out) if task.name == "ruler" and settings.probe_lengths else data
            with _rows_in_words(task.name):
                built = build(task.name, benchmark, rows, task.num_fewshot, hub or settings.hub, _repeats(benchmark, settings))
        except NotRun as reason:
            not_run[task.name] = str(reason)
            continue
        count = limit or task.limit or settings.limit
        key = request_key("benchmark", digest, VERSION, task, count, settings, _content(built))
        done = _recall(out, task.name, key)
        if done is None:
            lm = language_model()
            with _rows_in_words(task.name):
                done = _run(task, benchmark, built, count, settings, lm)
            _keep(out, task.name, key, *done)
        parts.append(done[0])
        frames.append(done[1])
    results = _merge(parts, not_run, str(model), digest)
    samples = pl.concat(frames) if frames else pl.DataFrame(schema=kept.SAMPLES_SCHEMA)
    if out is not None:
        _write(out, results, samples, not_run)
    return Evaluated(results, samples, not_run)


@contextmanager
def _rows_in_words(name: str) -> Iterator[None]:
    """Rows that lack what a task reads, in one line."""
    from jinja2.exceptions import UndefinedError

    try:
        yield
    except (KeyError, UndefinedError) as error:
        raise MidtrainError(f"{name}: a row has not what this task reads: {error}; `--debug` shows where") from error


def _wanted(tasks: Sequence[str] | None, settings: Evaluation) -> list[tuple[Task, Benchmark]]:
    """Each benchmark once, under the name that results are kept by, with the settings' word on it where they have one."""
    told = {name: task for task in settings.tasks for name in named(task.name)}
    meant = told if tasks is None else [member for name in tasks for member in named(name)]
    return [
        ((told.get(name) or Task(name=name)).model_copy(update={"name": name}), named(name)[name])
        for name in dict.fromkeys(meant)
    ]


def _probes(model: Path | str, settings: Evaluation, out: Path | None) -> Path:
    """A directory with the long-context probes of the settings, measured in the model's own tokens."""
    from midtrain_dagster.evaluate.backend import tokenizer_of

    if out is None:
        raise MidtrainError("probes of chosen lengths are written beside the results; say where with `out`")
    tokenizer = tokenizer_of(model)
    rows = probes.ruler_rows(
        settings.seed, settings.probes, settings.probe_lengths, count=lambda text: len(tokenizer.encode(text))
    )
    folder = out / "probes"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "ruler_test.jsonl").write_text(lines, encoding="utf-8")
    return folder


def _repeats(benchmark: Benchmark, settings: Evaluation) -> int:
    return settings.repeats if benchmark.metric.startswith("pass") else 1


def _load(model: Path | str, settings: Evaluation, responses: Responses, progress: Progress | None) -> Any:
    from midtrain_dagster.evaluate.backend import backend

    return backend(model, settings, responses, progress)


def _quiet() -> None:
    """What the libraries say of loading and tokenizing is not about the result; progress is told by us."""
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def _content(built: Built) -> str:
    """Names the questions, so that changed rows are asked anew."""
    rows = {name: [list(task.task_docs)] for name, task in built.tasks.items()}
    versions = {name: str(task.VERSION) for name, task in built.tasks.items()}
    return request_key("rows", rows, versions)


def _run(
    task: Task, benchmark: Benchmark, built: Built, limit: int | None, settings: Evaluation, lm: Any
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Generate and score one benchmark; then the bits of its gold answers."""
    from midtrain_dagster.evaluate.asking import answer, ask
    from midtrain_dagster.evaluate.parity import parity

    started, before = time.monotonic(), getattr(lm, "truncated", 0)
    if task.generate:
        scored, logged = answer(built, limit, settings, lm, sampled=_repeats(benchmark, settings) > 1)
    else:
        scored, logged = {}, ask(built, limit, settings.seed)
    seconds = time.monotonic() - started
    measured = (settings.gold_bits or not task.generate) and lm.scores
    bits = _gold_nats(benchmark, built, logged, lm) if measured else {}
    samples = kept.frame(task.name, benchmark, built.tasks, built.origin, logged, bits)
    results = {key: scored[key] for key in (*MERGED, "config") if key in scored}
    results["midtrain"] = {
        "name": task.name,
        "task": next(iter(built.tasks)) if built.group is None else task.name,  # its name under `results`
        "metric": f"{benchmark.metric},{benchmark.filter}" if task.generate else None,
        "domain": benchmark.domain,
        "paper": benchmark.about,
        "notes": _notes(task, built, getattr(lm, "truncated", 0) - before),
        "questions": samples["question_id"].n_unique(),
        "gold_bits_per_byte": _bits_per_byte(samples),
        "by_length": kept.by_length(samples),
        "shared_prefixes": lm.packs,
        "parity": parity(lm, logged, settings.parity_sample) if lm.packs else None,
        "seconds": round(seconds, 2),
        "gold_seconds": round(time.monotonic() - started - seconds, 2),
    }
    return results, samples


def _notes(task: Task, built: Built, truncated: int) -> list[str]:
    """What is other than by convention, and what the model could not read whole."""
    notes = list(built.notes)
    if not task.generate:
        notes.append("answers were not generated: gold bits per byte alone")
    if truncated:
        notes.append(f"{truncated} prompts were longer than the model reads and lost their beginning")
    return notes


def _gold_nats(benchmark: Benchmark, built: Built, logged: Mapping[str, Any], lm: Any) -> dict[tuple[str, str], float]:
    """Log-likelihood of every gold answer after its prompt."""
    from lm_eval.api.instance import Instance

    golds = [
        kept.gold_of(benchmark, built.tasks[name], sample["doc"], sample["arguments"])
        for name, some in logged.items()
        for sample in some
    ]
    golds = [gold for gold in dict.fromkeys(golds) if gold.text]
    requests = [Instance("loglikelihood", {}, (gold.prompt, gold.text), 0) for gold in golds]
    scores = lm.loglikelihood(requests, disable_tqdm=True)
    return {gold: score for gold, (score, _) in zip(golds, scores, strict=True)}


def _bits_per_byte(samples: pl.DataFrame) -> float | None:
    questions = samples.unique("question_id").drop_nulls("gold_bits")
    total = int(questions["gold_bytes"].sum())
    return float(questions["gold_bits"].sum()) / total if total else None


# what is kept


def _recall(out: Path | None, name: str, key: str) -> tuple[dict[str, Any], pl.DataFrame] | None:
    if out is None or not (out / "benchmarks" / name / "results.json").exists():
        return None
    about = json.loads((out / "benchmarks" / name / "results.json").read_text())
    if about["key"] != key:
        return None
    return about["results"], pl.read_parquet(out / "benchmarks" / name / "samples.parquet")


def _keep(out: Path | None, name: str, key: str, results: dict[str, Any], samples: pl.DataFrame) -> None:
    if out is None:
        return
    folder = out / "benchmarks" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)
    samples.write_parquet(folder / "samples.parquet")
    _write_json(folder / "results.json", {"key": key, "results": results})  # last: it says that the rest is whole


def _merge(parts: Sequence[dict[str, Any]], not_run: Mapping[str, str], model: str, digest: str) -> dict[str, Any]:
    merged: dict[str, Any] = {key: {} for key in MERGED}
    benchmarks: dict[str, Any] = {}
    for part in parts:
        for key in MERGED:
            merged[key].update(part.get(key) or {})
        if part.get("config"):
            merged["config"] = {**part["config"], "model_args": {"pretrained": model}}
        benchmarks[part["midtrain"]["name"]] = part["midtrain"]
    return {
        **merged,
        **_origin(model, benchmarks),
        "midtrain": {"model": model, "model_digest": digest, "benchmarks": benchmarks, "not_run": dict(not_run)},
    }


def _origin(model: str, benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """What the harness writes of where results come from."""
    from importlib.metadata import version

    from midtrain_dagster.evaluate.backend import served

    return {
        "model_source": "local-completions" if served(model) else "hf",
        "model_name": model,
        "model_name_sanitized": re.sub(r"[^A-Za-z0-9_.-]+", "__", model),
        "lm_eval_version": version("lm_eval"),
        "transformers_version": version("transformers"),
        "total_evaluation_time_seconds": round(sum(some["seconds"] + some["gold_seconds"] for some in benchmarks.values()), 2),
    }


def _write(out: Path, results: dict[str, Any], samples: pl.DataFrame, not_run: Mapping[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    samples.write_parquet(out / "samples.parquet")
    _write_json(out / "not_run.json", dict(not_run))
    _write_json(out / "results.json", results)


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    partial.replace(path)
