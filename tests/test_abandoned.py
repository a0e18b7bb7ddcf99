"""Runs whose process is gone are ended and give back their places in pools; runs that live are left alone."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from midtrain_dagster.commands.abandoned import HOST_TAG, SERVER_TAG, alive, end_abandoned

POOL = "gpu"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as found:
        found.event_log_storage.set_concurrency_slots(POOL, 1)
        yield found


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    """A run that Dagster believes to be at work, holding the only place in the pool."""
    run = instance.create_run_for_job(dg.define_asset_job("job").resolve(asset_graph=graph()), tags=tags)
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "job"), run.run_id)
    instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, "step")
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
    return run.run_id


def graph() -> object:
    @dg.asset
    def something() -> None: ...

    return dg.Definitions([something]).resolve_asset_graph()


def held(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.event_log_storage.get_concurrency_info(POOL).active_run_ids)


def test_a_killed_run_is_ended_and_its_place_is_free(instance: dg.DagsterInstance) -> None:
    run = started(instance, {HOST_TAG: socket.gethostname()})
    held_by = f"""
import sys
import dagster as dg
from midtrain_dagster.commands.abandoned import alive
class Instance: root_directory = {instance.root_directory!r}
with alive(Instance, {run!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", held_by], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert end_abandoned(instance) == []
    assert held(instance) == {run}
    process.kill()
    process.wait()
    assert end_abandoned(instance) == [run]
    assert instance.get_run_by_id(run).status == dg.DagsterRunStatus.FAILURE
    assert held(instance) == set()


def test_a_run_that_ends_in_order_leaves_no_lock(instance: dg.DagsterInstance) -> None:
    with alive(instance, "some-run") as tags:
        assert tags == {HOST_TAG: socket.gethostname()}
    assert list((Path(instance.root_directory) / "alive").iterdir()) == []


def test_runs_of_another_machine_and_queued_runs_are_left_alone(instance: dg.DagsterInstance) -> None:
    started(instance, {HOST_TAG: "elsewhere"})
    started(instance, {})
    assert end_abandoned(instance) == []


def test_a_run_of_the_ui_lives_as_long_as_its_server_answers(instance: dg.DagsterInstance) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        run = started(instance, {SERVER_TAG: json.dumps({"host": "localhost", "port": port})})
        assert end_abandoned(instance) == []
    assert end_abandoned(instance) == [run]
