"""What work uses is measured and kept, a budget ends a run in order, lineage events go out."""

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.measure import measured
from assets.outcome import progress
from midtrain_dagster import definitions as composed
from midtrain_dagster.audit import costs
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.ledger import BudgetReached, Ledger, keep, most
from midtrain_dagster.metering import Meter
from midtrain_dagster.project import project as projects
from midtrain_dagster.project.operations import Budget, MachinePrices, Operations
from resources.gpu import cuda_devices
from resources.lake import Lake

BURN = "import time; began = time.process_time(); x = bytearray(80_000_000)\nwhile time.process_time() - began < 0.6: pass"


def test_cpu_and_memory_of_children_count() -> None:
    with Meter(gpus=2, interval=0.05) as meter:
        subprocess.run([sys.executable, "-c", BURN], check=True)
    used = meter.used
    assert 0.5 < used.cpu_seconds < 30
    assert used.gpu_seconds == pytest.approx(2 * used.wall_seconds, rel=0.05)
    assert used.peak_memory_bytes is not None
    assert used.peak_memory_bytes > 80_000_000


def test_bytes_written_count(tmp_path: Path) -> None:
    with Meter() as meter:
        (tmp_path / "x").write_bytes(bytes(3_000_000))
    assert meter.used.bytes_written is not None
    assert meter.used.bytes_written >= 3_000_000


def test_the_narrower_limit_holds_and_says_what_it_was() -> None:
    assert most(Budget(hours=2, money=5), Budget(hours=3, gpu_hours=1)) == Budget(hours=2, money=5, gpu_hours=1)
    keep(Budget(money=5), {"money": 4.99, "hours": 1000})
    with pytest.raises(BudgetReached, match=r"5 of 5 money used"):
        keep(Budget(money=5), {"money": 5.0})


def test_accelerators_are_counted_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cuda_devices() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert cuda_devices() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cuda_devices() == 0


class FakeTeacher:
    """An account that grows when asked."""

    def __init__(self) -> None:
        self.now = dict.fromkeys(("requests", "prompt_tokens", "completion_tokens", "cost"), 0.0)

    def account(self) -> dict[str, float]:
        return dict(self.now)


def asked(seconds: float = 0.0) -> dg.AssetsDefinition:
    """An asset that asks the teacher, and then reports progress for some seconds."""

    @dg.asset(key=["asked", "mine"], group_name="synthesize", tags={"midtrain/recipe": "mine"}, retry_policy=dg.RetryPolicy(1))
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], teacher: dg.ResourceParam[FakeTeacher]
    ) -> dg.MaterializeResult:
        teacher.now = {"requests": 2, "prompt_tokens": 100, "completion_tokens": 20, "cost": 0.25}
        counted = progress(context, "asking", "things", 1000)
        counted.interval = 0.05
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            counted.advance()
            time.sleep(0.02)
        schema = dg.TableSchema([dg.TableColumn("id", "String")])
        column = dg.TableColumnLineage({"id": [dg.TableColumnDep(dg.AssetKey(["up", "stream"]), "id")]})
        told = {"worked on": 7, "dagster/column_schema": schema, "dagster/column_lineage": column}
        return dg.MaterializeResult(data_version=dg.DataVersion("v1"), metadata=told)

    return asset


def run(tmp_path: Path, asset: dg.AssetsDefinition, operations: Operations, **tags: str) -> tuple[Any, Lake]:
    lake = Lake(tmp_path, "lake", None, operations)
    with dg.instance_for_test() as instance:
        result = dg.materialize(
            [asset], instance=instance, resources={"lake": lake, "teacher": FakeTeacher()}, raise_on_error=False, tags=tags
        )
    return result, lake


def test_an_asset_says_what_it_used_and_the_ledger_keeps_it(tmp_path: Path) -> None:
    result, lake = run(tmp_path, asked(), Operations(prices=MachinePrices(cpu_hour=36.0)))
    assert result.success
    (made,) = result.get_asset_materialization_events()
    said = {name: value.value for name, value in made.step_materialization_data.materialization.metadata.items()}
    (line,) = lake.ledger.lines().to_dicts()
    assert (line["recipe"], line["stage"], line["asset"], line["outcome"]) == ("mine", "synthesize", "asked/mine", "made")
    assert (line["worked_on"], line["teacher_requests"], line["teacher_prompt_tokens"]) == (7, 2, 100)
    assert line["money"] == pytest.approx(0.25 + line["cpu_seconds"] * 0.01, abs=1e-4)
    for name in ("wall_seconds", "cpu_seconds", "gpu_seconds", "peak_memory_bytes", "bytes_read", "bytes_written", "money"):
        assert said[f"cost/{name}"] == line[name], name
    assert said["cost/peak_memory_bytes"] > 10_000_000


def test_a_budget_stops_work_that_reports_progress(tmp_path: Path) -> None:
    began = time.monotonic()
    result, lake = run(tmp_path, asked(60.0), Operations(budget=Budget(money=0.2)))
    assert not result.success
    assert time.monotonic() - began < 40
    (failure,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    assert "0.25 of 0.2 money used" in failure.step_failure_data.error.message + str(
        failure.step_failure_data.user_failure_data
    )
    assert not [e for e in result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]
    assert lake.ledger.lines()["outcome"].to_list() == ["stopped"]


def test_a_run_that_used_up_its_budget_begins_nothing_more(tmp_path: Path) -> None:
    result, lake = run(tmp_path, asked(), Operations(), **{"midtrain/max_hours": "1e-9"})
    assert not result.success
    assert not lake.ledger.folder.exists()


def test_the_ledger_survives_a_line_cut_short(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add({"run": "r", "root_run": "r", "asset": "a", "money": 2.0})
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write('{"run": "r", "mon')
    assert ledger.used("r")["money"] == 2.0


def test_sums_by_stage_and_for_each_point(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for recipe, stage, money in ((None, "collect", 1.0), ("a", "train", 3.0), ("b", "train", 50.0)):
        line = {"run": "r", "root_run": "r", "recipe": recipe, "stage": stage, "asset": stage, "outcome": "made"}
        ledger.add({**line, "money": money, "cpu_seconds": 3600.0, "peak_memory_bytes": int(money)})
    lines = costs.of_recipe(ledger.lines(), "a")
    assert dict(costs.by(lines, "stage").select("stage", "money").iter_rows()) == {"train": 3.0, "collect": 1.0}
    spent = costs.total(lines)
    assert (spent["money"], spent["cpu_seconds"], spent["peak_memory_bytes"]) == (4.0, 7200.0, 3)
    gained = pl.DataFrame({"what": ["gsm8k", "arc"], "points": [2.0, -1.0], "verdict": ["gained", "lost"]})
    rows = costs.per_point(gained, spent).to_dicts()
    assert (rows[0]["money_per_point"], rows[0]["cpu_hours_per_point"], rows[1]["money_per_point"]) == (2.0, 1.0, None)
    shown = costs.page("a", lines, gained)
    assert "+2.00" in shown
    assert "collect" in shown


def test_every_asset_is_measured(project: Path) -> None:
    definitions = composed.definitions(projects.load(project), project.parent)
    for asset in definitions.assets or []:
        assert getattr(asset.op.compute_fn.decorated_fn, "measured", False), asset.keys


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    events: list[tuple[str, str | None, dict[str, Any]]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.events.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.send_response(201)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    Endpoint.events.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_openlineage_events_go_out(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "planted-key")
    result, _ = run(tmp_path, asked(), Operations(openlineage=endpoint))
    assert result.success
    assert [event["eventType"] for _, _, event in Endpoint.events] == ["START", "COMPLETE"]
    path, key, last = Endpoint.events[-1]
    assert (path, key) == ("/api/v1/lineage", "Bearer planted-key")
    assert last["run"]["runId"] == Endpoint.events[0][2]["run"]["runId"]
    assert last["job"]["name"] == "asked/mine"
    (output,) = last["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == "v1"
    assert output["facets"]["schema"]["fields"] == [{"name": "id", "type": "String"}]
    assert output["facets"]["columnLineage"]["fields"]["id"]["inputFields"][0]["name"] == "up/stream"
    for needed in ("eventTime", "producer", "schemaURL", "inputs"):
        assert needed in last
    assert all({"_producer", "_schemaURL"} <= set(facet) for facet in output["facets"].values())
    assert "planted-key" not in json.dumps([event for _, _, event in Endpoint.events])


def test_an_endpoint_that_is_down_fails_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, asked(), Operations(openlineage="http://127.0.0.1:9"))[0].success


def test_a_failure_is_told(tmp_path: Path, endpoint: str) -> None:
    @dg.asset
    @measured
    def broken(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        raise MidtrainError("the place is empty")

    result, lake = run(tmp_path, broken, Operations(openlineage=endpoint))
    assert not result.success
    assert Endpoint.events[-1][2]["run"]["facets"]["errorMessage"]["message"] == "the place is empty"
    assert lake.ledger.lines()["outcome"].to_list() == ["failed"]
