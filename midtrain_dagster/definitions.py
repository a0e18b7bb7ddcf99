"""The composition root: the project file becomes a graph. The only module here that imports dagster, assets and resources.

Dagster loads `defs` from this module; everything in it is made by `definitions`, and nothing heavy is imported on the way.
"""

from pathlib import Path

import dagster as dg

from assets import graph, operations
from midtrain_dagster.project import project as projects
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes import named as recipes
from midtrain_dagster.recipes.recipe import Recipe
from resources.embedder import embedder
from resources.engine import engine_of
from resources.gpu import Gpu
from resources.lake import Lake
from resources.project_teacher import ProjectTeacher

LAST = ("evaluation_report", "lineage_report", "data_card", "model_card", "cost_report")
RUN_TAG = "midtrain/recipe"
# Imported once by the server that every step is forked from; none of them starts threads.
PRELOADED = ["dagster", "midtrain_dagster.definitions"]


def resources(project: Project, root: Path) -> dict[str, object]:
    """What the assets need from outside, by name. Nothing is opened or loaded here."""
    lake = Lake(root, project.storage, project.storage_options, project.operations)
    return {
        "lake": lake,
        "project": project,
        "embedder": embedder(project.embedder),
        "teacher": ProjectTeacher(project.teacher, lake),
        "engine": engine_of(project.compute),
        "gpu": Gpu(project.compute),
    }


def job_name(recipe: str) -> str:
    """Name of the job that runs a recipe from its sources to its report."""
    return f"midtrain_{recipe.replace('-', '_').replace('.', '_')}"


def definitions(project: Project, root: Path, chosen: list[Recipe] | None = None) -> dg.Definitions:
    """The graph of a project: one asset a source and stage, one asset a recipe and stage, a job a recipe, a daily schedule.

    `chosen` recipes take the place of the project's own list.
    """
    lake = Lake(root, project.storage, project.storage_options, project.operations)
    named = chosen if chosen is not None else [recipes.load(name, root) for name in project.recipes]
    built, checks = graph(project, named, root)
    jobs = [
        dg.define_asset_job(
            job_name(recipe.name),
            selection=dg.AssetSelection.assets(*([last, recipe.name] for last in LAST)).upstream()
            - dg.AssetSelection.groups("snapshots"),
            description=f"From the sources to the report: {recipe.description}",
            tags={RUN_TAG: recipe.name, **operations.priority_of(recipe, project)},
        )
        for recipe in named
    ]
    collect = dg.define_asset_job(
        "refresh_sources",
        selection=dg.AssetSelection.groups("collect"),
        description="Look at every source for what is new; what changed goes downstream by automation.",
    )
    return dg.Definitions(
        assets=built,
        asset_checks=checks,
        jobs=[*jobs, collect],
        schedules=[
            dg.ScheduleDefinition(
                name="daily_sources",
                job=collect,
                cron_schedule=project.refresh,
                default_status=dg.DefaultScheduleStatus.RUNNING if project.automatic else dg.DefaultScheduleStatus.STOPPED,
                description="Looks at every source once a day.",
            ),
            *operations.schedules(project, named, lake),
        ],
        sensors=[
            *(operations.source_sensor(name, project, lake) for name in operations.watched(project)),
            dg.AutomationConditionSensorDefinition(
                "changed_content",
                target=dg.AssetSelection.all() - dg.AssetSelection.groups("collect", "snapshots"),
                default_status=dg.DefaultSensorStatus.RUNNING if project.automatic else dg.DefaultSensorStatus.STOPPED,
                description="Carries a refresh downstream where content or code changed, and nowhere else.",
            ),
        ],
        resources=resources(project, root),
        executor=dg.multiprocess_executor.configured(
            {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": PRELOADED}}}
        ),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads: the graph of the project file."""
    file = projects.path()
    return definitions(projects.load(file), file.parent)
