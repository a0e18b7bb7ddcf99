"""Tables and artifacts in an object store: a real S3-compatible server on loopback, and a project that moves there."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import yaml
from small_graph import ORDER, Project
from typer.testing import CliRunner

from midtrain_dagster import cli, staging
from midtrain_dagster.artifacts import Artifacts, content_digest
from midtrain_dagster.audit.vacuum import carry_out, plan
from midtrain_dagster.documents import documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.pieces import Unreadable
from midtrain_dagster.project import project as projects
from midtrain_dagster.project.project import Project as Settings
from midtrain_dagster.store import Store
from midtrain_dagster.tables import Record, Tables, digest
from resources.lake import Lake

KEYS = {"AWS_ACCESS_KEY_ID": "operator", "AWS_SECRET_ACCESS_KEY": "planted-in-the-environment", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """Options of the server's client, without keys; these are in the environment, as an operator has them."""
    pytest.importorskip("moto.server", reason="no S3-compatible server: pip install 'moto[s3]' flask flask-cors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    try:
        for _ in range(300):
            try:
                bucket = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
                urllib.request.urlopen(bucket)
                break
            except OSError:
                time.sleep(0.1)
        yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true"}
    finally:
        process.kill()
        process.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def write(root: str, options: dict[str, str], source: str, count: int) -> list[str]:
    """Append documents of a source, each in a commit of its own; returns what was refused."""
    tables, refused = Tables(root, options), []
    for number in range(count):
        rows = documents([{"id": f"{source}{number}-{os.getpid()}", "text": "x", "source": source}])
        record = Record(f"raw/{source}", f"{number}-{os.getpid()}", "", digest(rows), number + 1, {}, {})
        try:
            tables.commit("raw", source, rows, record, replace=False)
        except MidtrainError as error:
            refused.append(str(error))
    return refused


def test_two_writers_at_once_commit_safely(server: dict[str, str]) -> None:
    root = "s3://bucket/writers"
    with ThreadPoolExecutor(2) as pool:  # each with a client of its own
        refused = list(pool.map(write, [root, root], [server, server], ["a", "b"], [6, 6]))
    rows = Tables(root, server).read("raw")
    assert refused == [[], []]
    assert sorted(rows["source"]) == ["a"] * 6 + ["b"] * 6
    assert rows["id"].n_unique() == 12
    assert Tables(root, server).version("raw") == 11


def test_the_second_of_two_runs_of_one_asset_is_refused(server: dict[str, str]) -> None:
    tables = Tables("s3://bucket/twice", server)
    write(tables.root, server, "a", 1)
    stood = tables.record("raw", "raw/a")
    write(tables.root, server, "a", 2)
    rows = documents([{"id": "late", "text": "x", "source": "a"}])
    with pytest.raises(MidtrainError, match="another run has just written it"):
        tables.commit("raw", "a", rows, Record("raw/a", "late", "", digest(rows), 2, {}, {}), replace=False, after=stood)
    assert len(tables.read("raw")) == 3


def test_rows_that_go_through_files_come_into_a_store(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "HELD", 1)
    tables = Tables("s3://bucket/staged", server)
    for texts in (["one", "two"], ["three"]):
        frames = [documents([{"id": text, "text": text, "source": "a"}]) for text in texts]
        with staging.Staged(tables, "raw", "a") as rows:
            for frame in frames:
                rows.add(frame)
            rows.commit(Record("raw/a", texts[0], "", rows.digest(), rows.rows, {}, {}), replace=False)
    assert sorted(tables.read("raw")["text"]) == ["one", "three", "two"]
    assert sorted(text for piece in tables.pieces("raw", "a").read() for text in piece["text"]) == ["one", "three", "two"]


def test_what_one_machine_made_another_finds(server: dict[str, str], tmp_path: Path) -> None:
    def make(out: Path) -> tuple[str, dict[str, object]]:
        (out / "model").mkdir(exist_ok=True)
        (out / "model" / "weights").write_bytes(b"\1" * 3_000_000)
        return "digest", {"steps": 3}

    one = Artifacts(tmp_path / "one", Store("s3://bucket/made/artifacts", server))
    two = Artifacts(tmp_path / "two", Store("s3://bucket/made/artifacts", server))
    made, was_made = one.build("checkpoint/x", "f1", make, {})
    found, again = two.build("checkpoint/x", "f1", make, {})
    assert (was_made, again) == (True, False)
    assert two.current("checkpoint/x") == found
    assert (found.digest, found.about, content_digest(found.path)) == ("digest", {"steps": 3}, made.files)


def test_a_run_that_was_killed_before_it_had_copied_everything_copies_the_rest(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(out: Path) -> tuple[str, dict[str, object]]:
        for name in "abc":
            (out / name).write_text(name)
        return "digest", {}

    store = Store("s3://bucket/half/artifacts", server)
    upload, sent = Store.upload, []

    def dies(self: Store, file: Path, path: str) -> None:
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(path)
        upload(self, file, path)

    one = Artifacts(tmp_path / "one", store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", dies)
        with pytest.raises(KeyboardInterrupt):
            one.build("checkpoint/x", "f1", make, {})
    assert Artifacts(tmp_path / "two", store).get("checkpoint/x", "f1") is None  # half there is not there
    Artifacts(tmp_path / "one", store).build("checkpoint/x", "f1", make, {})
    assert Artifacts(tmp_path / "two", store).current("checkpoint/x").digest == "digest"


def test_a_project_moves_to_s3_and_is_up_to_date_there(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docs/operate.md says under "Move storage to S3"."""
    project = Project(tmp_path / "here")
    assets = [asset for asset in ORDER if not asset.endswith("/tiny") or asset.startswith("selected")]
    for asset in assets:
        project.run(asset, tmp_path / "here")
    monkeypatch.setenv(projects.VARIABLE, str(project.file))
    options = [part for name, value in server.items() for part in ("--option", f"{name}={value}")]
    copied = CliRunner().invoke(cli.application(), ["storage", "copy", "s3://bucket/lake", *options])
    assert copied.exit_code == 0, copied.output

    values = yaml.safe_load(project.file.read_text()) | {"storage": "s3://bucket/lake", "storage_options": server}
    project.file.write_text(yaml.safe_dump(values))
    moved = projects.load(project.file)
    elsewhere = tmp_path / "elsewhere"  # another machine: the project's files, and nothing of its lake
    elsewhere.mkdir()
    for name in ("midtrain.yaml", "prose.jsonl", "code", "rows"):
        os.rename(tmp_path / "here" / name, elsewhere / name)
    project.settings = moved
    results = {asset: project.run(asset, elsewhere).metadata["up to date"] for asset in assets}
    assert {asset for asset, current in results.items() if not current} == set()

    lines = [json.loads(line) for line in (elsewhere / "prose.jsonl").read_text().splitlines()]
    lines.append({"id": "later", "text": "A page that came after the move, about weirs and the eels that climb them."})
    (elsewhere / "prose.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for stage in ("raw_documents", "clean_documents", "contamination_matches", "document_ratings"):
        project.run(f"{stage}/prose", elsewhere)
    project.run("selected_documents/tiny", elsewhere)
    lake = Lake(elsewhere, moved.storage, moved.storage_options)
    for table in ("raw_documents", "clean_documents", "quality_signals", "selected_documents/tiny"):
        rows = lake.tables.read(table)
        assert rows["id"].n_unique() == len(rows), table
    assert lake.tables.read("clean_documents").filter(pl.col("text").str.contains("weirs and the eels")).height == 1
    monkeypatch.setenv(projects.VARIABLE, str(elsewhere / "midtrain.yaml"))
    some = lake.tables.read("selected_documents/tiny")["id"][0]
    audited = CliRunner().invoke(cli.application(), ["audit", "document", some])
    assert audited.exit_code == 0, audited.output
    assert "kept" in json.loads(audited.stdout)["decisions"]["tiny"]  # a recipe that the lake alone knows of
    assert not any(KEYS["AWS_SECRET_ACCESS_KEY"] in p.read_text(errors="ignore") for p in elsewhere.rglob("*.y*ml"))


def test_a_vacuum_from_another_machine_keeps_what_a_checkpoint_in_the_store_was_made_from(
    server: dict[str, str], tmp_path: Path
) -> None:
    tables, store = Tables("s3://bucket/kept/tables", server), Store("s3://bucket/kept/artifacts", server)
    for day in ("a", "b", "c"):
        rows = documents([{"id": day, "text": day, "source": "web"}])
        tables.commit("raw", "web", rows, Record("raw/web", day, "", digest(rows), 1, {}, {}), replace=True)

    def make(out: Path) -> tuple[str, dict[str, object]]:
        (out / "weights").write_bytes(b"1" * 1000)
        return "d", {}

    one, two = Artifacts(tmp_path / "one", store), Artifacts(tmp_path / "two", store)
    one.build("midtrained_checkpoint/x", "f", make, {"raw": 0})
    for fingerprint in ("old", "new"):
        one.build("mixture/x", fingerprint, make, {})
    tables_store = Store("s3://bucket/kept/tables", server)
    tables_store.write("raw/source=web/part-00000-stray.parquet", b"moved in, and then the run was killed")
    assert plan(tables, two, tables.names(), days=0.0, now=time.time() + 1).strays == {"raw": []}
    found = plan(tables, two, tables.names(), days=0.0, now=time.time() + 2 * 86_400)
    assert found.kept_versions == {"raw": [0, 2]}
    assert found.artifacts == [("mixture/x", "old")]
    assert found.bytes > 1000
    carry_out(tables, two, found)
    assert not [path for path in tables_store.files() if "stray" in path]
    assert list(two.root.rglob("weights")) == []  # nothing was fetched only to be looked at
    assert store.folders("mixture/x") == ["new"]
    assert two.get("mixture/x", "old") is None
    assert (two.current("mixture/x").path / "weights").stat().st_size == 1000
    assert [tables.read("raw", version=version)["id"].to_list() for version in (0, 2)] == [["a"], ["c"]]
    with pytest.raises(Unreadable):
        tables.read("raw", version=1)


def test_keys_do_not_belong_into_the_project_file() -> None:
    values = {"sources": [{"name": "a", "kind": "jsonl", "location": "a"}], "storage_options": {"AWS_SECRET_ACCESS_KEY": "x"}}
    with pytest.raises(MidtrainError, match="set it in the environment"):
        Settings.check(values, "midtrain.yaml")
