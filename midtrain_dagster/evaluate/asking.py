"""The questions of one benchmark, answered through lm-evaluation-harness or turn by turn, or only asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from midtrain_dagster.evaluate.environments.play import Played, opening, play
from midtrain_dagster.evaluate.harness import Built
from midtrain_dagster.recipes.evaluation import Evaluation

Logged = dict[str, list[dict[str, Any]]]  # task → the harness's logged samples


def answer(built: Built, limit: int | None, settings: Evaluation, lm: Any, sampled: bool) -> tuple[dict[str, Any], Logged]:
    """(results under the harness's keys, logged samples); `sampled` answers are drawn at the settings' temperature."""
    played = {name: task for name, task in built.tasks.items() if isinstance(task, Played)}
    if played:
        ((name, task),) = played.items()
        results, samples = play(task, lm, limit)
        return results, {name: samples}

    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    with _without_environment():
        scored: dict[str, Any] = simple_evaluate(
            model=lm,
            tasks=[built.group] if built.group is not None else list(built.tasks.values()),
            limit=limit,
            gen_kwargs={"do_sample": True, "temperature": settings.temperature} if sampled else None,
            bootstrap_iters=settings.bootstrap,
            fewshot_random_seed=settings.seed,
            task_manager=TaskManager(include_defaults=False),
            confirm_run_unsafe_code=True,
        )
    return scored, scored.pop("samples")


@contextmanager
def _without_environment() -> Iterator[None]:
    """The harness lists all installed packages after each benchmark, in a process of its own: seconds, for what is not kept."""
    from lm_eval import evaluator

    before = evaluator.add_env_info
    evaluator.add_env_info = lambda results: None
    try:
        yield
    finally:
        evaluator.add_env_info = before


def ask(built: Built, limit: int | None, seed: int) -> Logged:
    """The questions as they would be asked, without asking."""
    return {name: _requests(task, limit, seed) for name, task in built.tasks.items()}


def _requests(task: Any, limit: int | None, seed: int) -> list[dict[str, Any]]:
    if isinstance(task, Played):
        return opening(task, limit)
    task.set_fewshot_seed(seed=seed)
    if task.config.num_fewshot is None:
        task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(limit=limit)
    arguments: dict[int, list[Any]] = {}
    docs: dict[int, Any] = {}
    for instance in task.instances:
        arguments.setdefault(instance.doc_id, []).append(instance.args)
        docs[instance.doc_id] = instance.doc
    return [
        {"doc_id": i, "doc": docs[i], "arguments": arguments[i], "resps": [], "filter": "none", "metrics": []} for i in docs
    ]
