"""What runs by itself: source sensors, schedules, priorities, pools, freshness, and a vacuum beside no other run."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import project as projects


def composed_with(project: Path, **sections: Any) -> dg.Definitions:
    values = yaml.safe_load(project.read_text()) | sections
    project.write_text(yaml.safe_dump(values, sort_keys=False))
    definitions = composed.definitions(projects.load(project), project.parent)
    dg.Definitions.validate_loadable(definitions)
    return definitions


def test_a_sensor_fires_on_new_files_and_not_otherwise(project: Path) -> None:
    definitions = composed_with(project, operations={"watch": ["prose"], "watch_seconds": 7})
    sensor = definitions.resolve_sensor_def("watch_prose")
    assert sensor.minimum_interval_seconds == 7
    cursor = None

    def look() -> int:
        nonlocal cursor
        with dg.instance_for_test() as instance:
            told = sensor.evaluate_tick(dg.build_sensor_context(instance, cursor=cursor, definitions=definitions))
        cursor = told.cursor
        return len(told.run_requests)

    assert [look(), look()] == [1, 0]
    with (project.parent / "prose.jsonl").open("a") as file:
        file.write('{"id": "new", "text": "a page that was not there before"}\n')
    assert [look(), look()] == [1, 0]
    (project.parent / "prose.jsonl").rename(project.parent / "gone.jsonl")
    assert look() == 0


def test_every_source_of_files_is_watched_and_an_unknown_one_is_named(project: Path) -> None:
    names = {sensor.name for sensor in composed_with(project, operations={"watch": ["*"]}).sensors or []}
    assert {"watch_prose", "watch_code"} < names
    with pytest.raises(MidtrainError, match=r"no source of files is called nope"):
        composed_with(project, operations={"watch": ["nope"]})


def test_schedules_say_when_and_over_what(project: Path) -> None:
    operations = {"reevaluate": "0 5 * * 2", "retention": {"days": 3, "schedule": "0 4 * * 6"}}
    definitions = composed_with(project, refresh="0 1 * * *", automatic=True, operations=operations)
    lines = {s.name: (s.cron_schedule, s.default_status.value) for s in definitions.schedules or []}
    assert lines == {
        "daily_sources": ("0 1 * * *", "RUNNING"),
        "weekly_reevaluation": ("0 5 * * 2", "RUNNING"),
        "weekly_vacuum": ("0 4 * * 6", "STOPPED"),
    }
    again = definitions.resolve_job_def("reevaluate").asset_layer.executable_asset_keys
    assert {key.to_user_string() for key in again} == {
        "benchmark_questions",
        "base_evaluation/smoke",
        "midtrained_evaluation/smoke",
        "evaluation_report/smoke",
        "model_card/smoke",
    }


def test_priority_freshness_and_pools_stand_where_the_ui_shows_them(project: Path) -> None:
    values = yaml.safe_load(project.read_text())
    values["sources"].append({"name": "site", "kind": "crawl", "location": "https://example.org/"})
    operations = {"priority": {"smoke": 3}, "fresh_hours": 48}
    definitions = composed_with(project, sources=values["sources"], operations=operations)
    assert definitions.resolve_job_def("midtrain_smoke").tags["dagster/priority"] == "3"
    graph = definitions.resolve_asset_graph()
    policy = graph.get(dg.AssetKey(["raw_documents", "prose"])).freshness_policy
    assert policy.fail_window.to_timedelta().total_seconds() == 48 * 3600
    pools = {key.to_user_string(): graph.get(key).pools for key in graph.get_all_asset_keys()}
    assert pools["raw_documents/site"] == {"network"}
    assert pools["raw_documents/prose"] == set()
    assert pools["raw_documents/asked"] == {"teacher"}
    assert pools["midtrained_checkpoint/smoke"] == {"gpu"}


def test_operations_make_nothing_out_of_date(project: Path) -> None:
    before = projects.load(project)
    composed_with(project, operations={"watch": ["*"], "fresh_hours": 1, "priority": {"smoke": 9}})
    after = projects.load(project)
    assert before.model_dump(exclude={"operations"}) == after.model_dump(exclude={"operations"})


def test_the_vacuum_job_runs_and_not_beside_others(project: Path) -> None:
    definitions = composed_with(project)
    job = definitions.resolve_job_def("vacuum")
    with dg.instance_for_test() as instance:
        assert job.execute_in_process(instance=instance).success
        instance.add_run(dg.DagsterRun("midtrain_smoke", "0" * 32, status=dg.DagsterRunStatus.STARTED))
        beside = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not beside.success
    assert "1 other runs are going on" in str(beside.all_events[-2].event_specific_data) + str(beside.get_step_failure_events())
