"""The deployment: a real Postgres behind Dagster, and files that are what their programs expect."""

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import jsonschema
import pytest
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.project import project as projects

DEPLOY = Path(__file__).parents[2] / "deploy"
PASSWORD = "planted-postgres-password"


def program(name: str) -> str | None:
    """A program of Postgres: on the path, or where Debian puts it."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server of our own on loopback."""
    initdb, server = program("initdb"), program("postgres")
    if initdb is None or server is None:
        pytest.skip("no Postgres on this machine: apt-get install postgresql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("postgres")
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()  # the server refuses to be root
    secret = folder / "password"
    secret.write_text(PASSWORD)
    for path in (folder, *list(folder.parents)[:2]):
        path.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, user)
        shutil.chown(secret, user)
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", data, "-U", "dagster", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"],
        check=True,
        capture_output=True,
        user=user if os.geteuid() == 0 else None,
        cwd=folder,
    )
    log = (folder / "log").open("wb")
    running = subprocess.Popen(
        [server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off"],
        user=user if os.geteuid() == 0 else None,
        stdout=log,
        stderr=log,
        cwd=folder,
    )
    try:
        ready = [program("pg_isready") or "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "20"]
        for _ in range(100):
            if subprocess.run(ready, capture_output=True).returncode == 0:
                break
        yield f"postgresql+psycopg2://dagster:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait(20)
        log.close()


def test_a_run_on_postgres_with_the_deployment_s_instance(
    postgres: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docs/operate.md says under "Move Dagster to Postgres"."""
    pytest.importorskip("dagster_postgres", reason="pip install '.[postgres]'")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.run_storage).__module__.startswith("dagster_postgres")
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 3
        defs = composed.definitions(projects.load(project), project.parent)
        selection = dg.AssetSelection.keys("raw_documents/prose", "clean_documents/prose")
        job = dg.define_asset_job("two", selection=selection)
        loaded = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("two")
        result = loaded.execute_in_process(instance=instance)
        assert result.success
        run = result.run_id
    with dg.DagsterInstance.from_config(str(home)) as later:  # another process would see the same
        event = later.get_latest_materialization_event(dg.AssetKey(["clean_documents", "prose"]))
        assert event is not None
        assert event.run_id == run
        told = json.dumps([str(record.event_log_entry) for record in later.get_records_for_run(run).records])
        assert PASSWORD not in told
        assert PASSWORD not in (home / "dagster.yaml").read_text()


def test_the_compose_file_is_valid() -> None:
    found = find_spec("check_jsonschema")  # for the schema that it carries; it is not imported
    if found is None or found.origin is None:
        pytest.skip("pip install check-jsonschema, which carries the schema")
    schema = json.loads((Path(found.origin).parent / "builtin_schemas/vendor/compose-spec.json").read_text())
    values = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    jsonschema.validate(values, schema)
    broken = values | {"services": {"ui": {"imagee": "x"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_nothing_but_loopback_is_published() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:3000:3000"]
    assert "--host 127.0.0.1" in (DEPLOY.parent / "Makefile").read_text()


def test_the_compose_file_s_parts_are_there() -> None:
    values = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in values["services"].values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        named = {volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith("$")}
        assert named <= set(values["volumes"])
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    for part in " ".join(copied).split():
        assert (DEPLOY.parent / part).exists(), part


# What Dagster's chart (1.13) knows at the places that our file touches.
CHART = {
    "": {"global", "generatePostgresqlPasswordSecret", "postgresql", "dagsterWebserver", "dagster-user-deployments"}
    | {"runLauncher", "dagsterDaemon", "telemetry"},
    "global": {
        "postgresqlSecretName",
        "dagsterHome",
        "serviceAccountName",
        "celeryConfigSecretName",
        "dagsterInstanceConfigMap",
    },
    "dagsterDaemon": {
        "enabled",
        "runCoordinator",
        "runMonitoring",
        "runRetries",
        "image",
        "heartbeatTolerance",
        "env",
        "resources",
    },
    "dagsterDaemon.runCoordinator": {"enabled", "type", "config"},
    "dagsterDaemon.runMonitoring": {
        *("enabled", "startTimeoutSeconds", "cancelTimeoutSeconds", "maxResumeRunAttempts", "pollIntervalSeconds"),
        *("freeSlotsAfterRunEndSeconds", "maxRuntimeSeconds"),
    },
    "dagsterDaemon.runRetries": {"enabled", "maxRetries", "retryOnAssetOrOpFailure"},
    "runLauncher": {"type", "config"},
    "dagster-user-deployments": {"enabled", "enableSubchart", "imagePullSecrets", "deployments"},
}


def test_the_values_of_the_helm_chart_are_ones_it_knows() -> None:
    values = yaml.safe_load((DEPLOY / "values.yaml").read_text())
    for place, known in CHART.items():
        part = values
        for key in filter(None, place.split(".")):
            part = part[key]
        assert set(part) <= known, place
    assert values["dagsterDaemon"]["runCoordinator"]["type"] == "QueuedRunCoordinator"
    for deployment in values["dagster-user-deployments"]["deployments"]:
        assert {"name", "image", "dagsterApiGrpcArgs", "port"} <= set(deployment)
        assert {mount["name"] for mount in deployment["volumeMounts"]} <= {volume["name"] for volume in deployment["volumes"]}
    assert "password:" not in (DEPLOY / "values.yaml").read_text().lower()
