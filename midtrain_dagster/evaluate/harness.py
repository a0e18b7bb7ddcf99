"""Benchmarks as tasks of lm-evaluation-harness, on local rows where there are any."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from midtrain_dagster.evaluate import rows as local
from midtrain_dagster.evaluate.catalog import MATH, MMLU, OURS, PLAYED, Benchmark
from midtrain_dagster.evaluate.code import code_eval_in_sandbox, ks_of
from midtrain_dagster.evaluate.environments.play import Played
from midtrain_dagster.evaluate.rows import Row
from midtrain_dagster.evaluate.shapes import shaped

TASKS = Path(__file__).with_name("tasks")
UNNAMED = "mmlu"  # its task for rows that name no subject
Places = Path | Sequence[Path] | None  # directories of rows
EVALUATED = ("test", "validation", "dev")  # which local split is evaluated: the first that there is


class Built(NamedTuple):
    """A benchmark that can run."""

    tasks: dict[str, Any]  # name → lm_eval ConfigurableTask, or environments.play.Played
    group: Any  # lm_eval Group over them, None for a single task
    origin: dict[str, list[Row]]  # name → the local rows in the order of its questions; empty for the hub's
    notes: list[str]  # what is other than by convention, in words


class NotRun(Exception):
    """Why a benchmark cannot run."""


def build(
    name: str, benchmark: Benchmark, data: Places, num_fewshot: int | None = None, hub: bool = True, repeats: int = 1
) -> Built:
    """The tasks of a benchmark, with rows from `data` where it has them and from the hub otherwise.

    `repeats` samples of each question, for pass@k.

    Raises NotRun with the reason when neither has.
    """
    parts, notes = _local_parts(name, benchmark, data) if data is not None else ({}, [])
    if not parts and (not hub or benchmark.directory in (OURS, PLAYED)):
        raise NotRun(_missing(benchmark, data))
    notes += [benchmark.notes] if benchmark.notes else []
    if benchmark.directory == PLAYED:
        return _played(name, parts[benchmark.tasks[0]]["evaluated"], notes)
    shots = num_fewshot if num_fewshot is not None else benchmark.num_fewshot
    if num_fewshot is not None and num_fewshot != benchmark.num_fewshot:
        notes.append(f"{num_fewshot} shots where the convention is {benchmark.num_fewshot}")
    built: dict[str, Any] = {}
    origin: dict[str, list[Row]] = {}
    configs = _configs(benchmark)
    if UNNAMED in parts:
        configs = {UNNAMED: _of_no_subject(next(iter(configs.values())))}
        notes.append("its rows do not say which subject they are of: none is named in the prompt, and shots are of any")
    for task, config in configs.items():
        if parts and task not in parts:
            continue
        if shots is not None:
            config["num_fewshot"] = shots
        if repeats > 1:
            _repeat(config, repeats)
        if parts:
            evaluated, source = _redirect(config, parts[task], notes)
            config["custom_dataset"] = _dataset(source)
            origin[task] = evaluated
        built[task] = _made(task, config)
    if parts and len(built) < len(configs):
        notes.append(f"{len(built)} of its {len(configs)} tasks have rows here")
    return Built(built, _group(name, benchmark, built), origin, sorted(set(notes)))


def _missing(benchmark: Benchmark, data: Places) -> str:
    """Where rows were looked for."""
    places = [data] if isinstance(data, Path) else list(data or ())
    where = f"in {', '.join(map(str, places))}" if places else "because no directory of rows was given"
    wanted = " or ".join(f"{s}_test.jsonl" for s in benchmark.sets[:3])
    return f"no rows {where} (looked for {wanted}), and the hub was not asked"


def _made(task: str, config: dict[str, Any]) -> Any:
    import datasets
    from lm_eval.api.task import ConfigurableTask

    try:
        return ConfigurableTask(config=config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise NotRun(f"{task} cannot be set up: {' '.join(str(error).split())[:300]}") from error


def _of_no_subject(config: dict[str, Any]) -> dict[str, Any]:
    """MMLU's task without the name of a subject."""
    described = "The following are multiple choice questions (with answers).\n\n"
    return {**config, "task": UNNAMED, "task_alias": UNNAMED, "dataset_name": None, "description": described}


def _played(name: str, rows: list[Row], notes: list[str]) -> Built:
    from midtrain_dagster.evaluate.environments.kinds import KINDS

    return Built({name: Played(name, KINDS[name], [row.values for row in rows])}, None, {name: rows}, notes)


def _repeat(config: dict[str, Any], repeats: int) -> None:
    """Ask for several samples of each question, and for pass@k of every k that they allow."""
    config["repeats"] = repeats
    ks = ks_of(repeats)
    if not config.get("filter_list"):  # the harness's own default would keep the first sample alone
        config["filter_list"] = [{"name": "none", "filter": [{"function": "take_first_k", "k": repeats}]}]
    for metric in list(config["metric_list"]):
        if "k" in metric:
            metric["k"] = ks
        elif metric["metric"] == "pass@1":
            config["metric_list"] = [{**metric, "metric": f"pass@{k}"} for k in ks]


def _configs(benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    """Task name → configuration as in its YAML file."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = TASKS if benchmark.directory == OURS else Path(lm_eval.tasks.__file__).parent / benchmark.directory
    index = TaskManager(include_defaults=False, include_path=str(folder)).task_index
    try:
        with code_eval_in_sandbox():
            configs = {name: dict(load_yaml(index[name].yaml_path, resolve_func=True)) for name in benchmark.tasks}
    except (ImportError, AssertionError) as error:  # the harness asserts versions of what its metrics need
        raise NotRun(f"{benchmark.tasks[0]} needs what is not installed: {' '.join(str(error).split())[:300]}") from None
    for config in configs.values():
        for key in ("tag", "group", "task_list"):
            config.pop(key, None)
    return configs


def _local_parts(
    name: str, benchmark: Benchmark, data: Path | Sequence[Path]
) -> tuple[dict[str, dict[str, list[Row]]], list[str]]:
    """Task → split → rows, of what `data` has; and what to say of it."""
    found = local.find(data, benchmark.sets)
    split = next((one for one in EVALUATED if one in found), None)
    if split is None:
        return {}, []
    notes = [] if split == "test" else [f"the {split} rows are evaluated: no test rows are there"]
    family = "mmlu" if benchmark.divide == "subject" else name
    rows = {one: shaped(family, local.read(paths)) for one, paths in found.items()}
    divided = {one: _divide(benchmark, some) for one, some in rows.items()}
    if UNNAMED in divided[split]:
        return {UNNAMED: {"evaluated": rows[split], **{one: some for one, some in rows.items() if one != split}}}, notes
    parts = {
        task: {"evaluated": divided[split][task], **{n: d.get(task, []) for n, d in divided.items() if n != split}}
        for task in benchmark.tasks
        if divided[split].get(task)
    }
    return parts, notes


def _divide(benchmark: Benchmark, rows: list[Row]) -> dict[str, list[Row]]:
    if benchmark.divide == "subject":
        names = {subject: f"mmlu_{subject}" for subject in MMLU}
        divided = local.by_subject(rows, names)
        return {UNNAMED: rows} if divided is None else {names[subject]: some for subject, some in divided.items()}
    if benchmark.divide == "type":
        kinds = {task: MATH[task.partition("_math_")[2]] for task in benchmark.tasks}
        return {task: [row for row in rows if row.values.get("type") == kind] for task, kind in kinds.items()}
    if benchmark.divide == "file":
        by_file: dict[str, list[Row]] = {}
        for row in rows:
            by_file.setdefault(f"bbh_{_task_of(row.file)}", []).append(row)
        return {task: by_file.get(name, []) for task, name in zip(benchmark.tasks, benchmark.sets, strict=True)}
    return {benchmark.tasks[0]: rows}


def _task_of(file: str) -> str:
    """The task of BIG-Bench Hard that a file is of: bbh_word_sorting_test, word_sorting, Word-Sorting."""
    plain = re.sub(r"[^a-z0-9]+", "_", file.lower()).removeprefix("bbh_")
    return re.sub(r"(_(test|train|validation|dev))?(_\d{5}_of_\d{5})?$", "", plain)


def _redirect(
    config: dict[str, Any], parts: Mapping[str, list[Row]], notes: list[str]
) -> tuple[list[Row], dict[str, list[Row]]]:
    """Point a task's splits at local rows: the evaluated rows take the place of the split that it evaluates."""
    evaluated = parts["evaluated"]
    target = config.get("test_split") or config.get("validation_split") or "test"
    if not config.get("test_split") and not config.get("validation_split"):
        config["test_split"] = target
    splits = {target: evaluated}
    shots_from = config.get("fewshot_split") or config.get("training_split") or config.get("validation_split")
    for key in ("training_split", "validation_split"):
        split = config.get(key)
        if split and split != target:
            available = parts.get(split) or (parts.get("dev") if split == "validation" else None)
            if available:
                splits[split] = available
            else:
                config[key] = None
    if shots_from and shots_from != target and parts.get(shots_from):
        splits[shots_from] = parts[shots_from]
    fewshot = config.get("fewshot_config") or {}
    if config.get("num_fewshot") and "samples" not in fewshot and shots_from not in splits:
        config["fewshot_split"] = target
        notes.append("shots are other questions of the evaluated split: there are no rows of the split that they come from")
    elif config.get("fewshot_split") and config["fewshot_split"] not in splits:
        config["fewshot_split"] = None
    most = _shots_there_are(config, splits, target)
    if (config.get("num_fewshot") or 0) > most:
        notes.append(f"{most} shots: there are no more rows to take them from")
        config["num_fewshot"] = most
    return evaluated, splits


def _shots_there_are(config: Mapping[str, Any], splits: Mapping[str, list[Row]], target: str) -> int:
    """How many shots a question can have: rows of the split that they come from, without itself where that is its own."""
    samples = (config.get("fewshot_config") or {}).get("samples")
    if samples is not None:
        return len(samples() if callable(samples) else samples)
    named = [str(config.get(f"{name}_split")) for name in ("fewshot", "training", "validation")]
    source = next((name for name in named if name in splits), target)
    different = {json.dumps(row.values, sort_keys=True, default=str) for row in splits[source][:200]}
    return len(different) - (source == target)


def _dataset(splits: Mapping[str, list[Row]]) -> Any:
    """What the harness calls for a data set; in memory, because its cache of local files would not notice a change."""

    def load(**_: Any) -> Any:
        import datasets

        return datasets.DatasetDict(
            {name: datasets.Dataset.from_list([row.values for row in some]) for name, some in splits.items()}
        )

    return load


def _group(name: str, benchmark: Benchmark, tasks: Mapping[str, Any]) -> Any:
    if len(benchmark.tasks) == 1 or UNNAMED in tasks:
        return None
    from lm_eval.api.group import Group
    from lm_eval.config.group import AggMetricConfig

    aggregate = AggMetricConfig(
        metric=benchmark.metric, aggregation="mean", weight_by_size=True, filter_list=[benchmark.filter]
    )
    group = Group(name, aggregate_metric_list=[aggregate])
    for task in tasks.values():
        group.add(task)
    return group
