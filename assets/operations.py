"""What runs by itself: schedules, sensors and the jobs behind them. Each says in the UI what it looks at and why it fires."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg

from midtrain_dagster import snapshots as dated
from midtrain_dagster.audit.vacuum import carry_out, plan, told
from midtrain_dagster.collect.collect import fingerprint
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.project.sources import Source
from midtrain_dagster.recipes.recipe import Recipe
from resources.lake import Lake

PRIORITY = "dagster/priority"
FETCHED = ("crawl", "common_crawl")  # over the network: their place cannot be watched, and they share one pool


def watched(project: Project) -> list[str]:
    """Sources whose place is watched; MidtrainError for a name that no source has."""
    files = {source.name for source in project.sources if source.kind not in FETCHED}
    named = project.operations.watch
    unknown = sorted(set(named) - files - {"*"})
    if unknown:
        raise MidtrainError(f"operations.watch: no source of files is called {', '.join(unknown)}")
    return sorted(files if "*" in named else set(named))


def source_sensor(name: str, project: Project, lake: Lake) -> dg.SensorDefinition:
    """Fires when there are other files in a source's place than at the last look."""
    (source,) = (source for source in project.sources if source.name == name)
    if dated.has_snapshots(source.location):
        return snapshot_sensor(source, project, lake)

    @dg.sensor(
        name=f"watch_{name}",
        asset_selection=dg.AssetSelection.assets(["raw_documents", name]),
        minimum_interval_seconds=project.operations.watch_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if project.automatic else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks at {source.location} every {project.operations.watch_seconds} s; new, changed or vanished files "
        f"start a refresh of `{name}`.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            now = fingerprint(source, lake.root)
        except MidtrainError as error:  # not there yet, or just being replaced
            return dg.SkipReason(str(error))
        if context.cursor == now:
            return dg.SkipReason("the same files as at the last look")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{name}:{now}")], cursor=now)

    return sensor


def snapshot_sensor(source: Source, project: Project, lake: Lake) -> dg.SensorDefinition:
    """Fires for each dated snapshot that is new or has other files: a run of its partition."""
    partitions = dg.DynamicPartitionsDefinition(name=f"snapshots_{source.name}")

    @dg.sensor(
        name=f"watch_{source.name}",
        asset_selection=dg.AssetSelection.assets(["snapshots", source.name]),
        minimum_interval_seconds=project.operations.watch_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if project.automatic else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks at {source.location}; a new or changed snapshot becomes a partition and is collected.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        before: dict[str, str] = json.loads(context.cursor or "{}")
        found = dated.names(source.location, lake.root)
        each = {name: source.model_copy(update={"location": dated.at(source.location, name)}) for name in found}
        now = {name: fingerprint(one, lake.root) for name, one in each.items()}
        changed = [name for name in found if before.get(name) != now[name]]
        if not changed:
            return dg.SkipReason("the same snapshots as at the last look")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=f"{name}:{now[name]}", partition_key=name) for name in changed],
            dynamic_partitions_requests=[partitions.build_add_request(changed)],
            cursor=json.dumps({**before, **now}),
        )

    return sensor


def vacuum_job(project: Project, lake: Lake) -> dg.JobDefinition:
    """Retention, as the project file says; not beside other runs."""

    @dg.op(name="remove_what_nobody_needs")
    def remove(context: dg.OpExecutionContext) -> None:
        others = [
            run.run_id
            for run in context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            if run.run_id != context.run_id
        ]
        if others:
            raise dg.Failure(f"{len(others)} other runs are going on; a vacuum does not run beside them", allow_retries=False)
        found = plan(lake.tables, lake.artifacts, lake.tables.names(), project.operations.retention.days)
        carry_out(lake.tables, lake.artifacts, found)
        context.add_output_metadata({"removed": dg.MetadataValue.json(told(found))})

    @dg.job(name="vacuum", description="Remove old versions and artifacts. What a checkpoint was made from always stays.")
    def job() -> None:
        remove()

    return job


def reevaluation(recipes: list[Recipe]) -> Any:
    """Every checkpoint against the benchmarks as they are now: what was added since is scored, the rest is up to date."""
    keys = [[name, recipe.name] for recipe in recipes for name in ("base_evaluation", "midtrained_evaluation")]
    reports = [[name, recipe.name] for recipe in recipes for name in ("evaluation_report", "model_card")]
    selection = dg.AssetSelection.assets("benchmark_questions", *keys, *reports)
    return dg.define_asset_job(
        "reevaluate",
        selection=selection,
        description="Checkpoints against benchmarks that were added or changed since they were last scored.",
    )


def priority_of(recipe: Recipe, project: Project) -> dict[str, str]:
    """The tag that places a recipe's runs in the queue."""
    priority = project.operations.priority.get(recipe.name, 0)
    return {PRIORITY: str(priority)} if priority else {}


def schedules(project: Project, recipes: list[Recipe], lake: Lake) -> Iterator[dg.ScheduleDefinition]:
    """The weekly ones; the daily look at sources is made beside its job."""
    status = dg.DefaultScheduleStatus.RUNNING if project.automatic else dg.DefaultScheduleStatus.STOPPED
    settings = project.operations
    if settings.reevaluate and recipes:
        yield dg.ScheduleDefinition(
            name="weekly_reevaluation",
            job=reevaluation(recipes),
            cron_schedule=settings.reevaluate,
            default_status=status,
            description="Scores every checkpoint on benchmarks that were added since.",
        )
    if settings.retention.schedule and not lake.remote:
        yield dg.ScheduleDefinition(
            name="weekly_vacuum",
            job=vacuum_job(project, lake),
            cron_schedule=settings.retention.schedule,
            default_status=dg.DefaultScheduleStatus.STOPPED,
            description="Keeps the disk in bounds. Off until it is switched on: it removes things.",
        )
