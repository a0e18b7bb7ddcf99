"""Secrets stay where they are, conditions touch no file, and what data says never becomes a path."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.documents import documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import project as projects
from midtrain_dagster.project.generators import Questions
from midtrain_dagster.recipes.selection import Rule, Selection
from midtrain_dagster.sandbox import Sandbox
from midtrain_dagster.select.select import select
from midtrain_dagster.synthesize.driver import choose
from midtrain_dagster.synthesize.generator import Tools
from midtrain_dagster.synthesize.kinds import make

PLANTED = "sk-planted-0123456789abcdef"


class Echo(BaseHTTPRequestHandler):
    """An endpoint that refuses every request, and says in its error which key it was given, as real ones do."""

    def do_POST(self) -> None:
        told = json.dumps({"error": {"message": f"Incorrect API key provided: {self.headers.get('Authorization')}"}}).encode()
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def holding(root: Path, secret: str) -> list[str]:
    """Files below a directory that hold the secret, compressed or not being no excuse: Parquet text is looked through, too."""
    found = [str(p) for p in root.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
    for path in root.rglob("*.parquet"):
        if secret in json.dumps(pl.read_parquet(path, hive_partitioning=False).to_dicts(), default=str):
            found.append(str(path))
    return found


def test_a_planted_key_is_nowhere(
    project: Path, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLANTED_KEY", PLANTED)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
    values = yaml.safe_load(project.read_text())
    values["teacher"] = {"kind": "openai", "model": "m", "base_url": endpoint, "api_key_env": "PLANTED_KEY", "retries": 0}
    project.write_text(yaml.safe_dump(values))
    defs = composed.definitions(projects.load(project), project.parent)
    job = dg.define_asset_job("made", selection=dg.AssetSelection.keys("raw_documents/asked").upstream())
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((Path(__file__).parents[1] / "dagster.yaml").read_text())
    monkeypatch.chdir(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        loaded = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("made")
        result = loaded.execute_in_process(instance=instance, raise_on_error=False)
        told = "\n".join(str(record.event_log_entry) for record in instance.get_records_for_run(result.run_id).records)
    said = capfd.readouterr()
    assert "401" in told or "401" in json.dumps(  # the key was used, and refused
        [row for p in tmp_path.rglob("synthesis_outcomes/**/*.parquet") for row in pl.read_parquet(p).to_dicts()], default=str
    )
    assert PLANTED not in told
    assert PLANTED not in said.out + said.err
    assert holding(tmp_path, PLANTED) == []


READING = [
    "(select count(*) from read_text('{secret}')) > 0",
    "(select count(*) from '{secret}') > 0",
    "exists (from read_csv('{secret}'))",
    "exists (from glob('/etc/*'))",
    "length(getenv('HOME')) > 0",
    "true); copy (select 1) to '{out}'; --",
    "true); attach '{out}' as x; --",
    "(select 1 from (values (1)) where pragma_version() is null) is null",
    "current_setting('home_directory') is null",
]


@pytest.mark.parametrize("condition", READING)
def test_no_condition_reads_or_writes_a_file(condition: str, tmp_path: Path) -> None:
    secret, out = tmp_path / "secret.csv", tmp_path / "out.csv"
    secret.write_text("a,b\n1,2\n")
    said = condition.format(secret=secret, out=out)
    rows = documents([{"id": "1", "text": "some text of a document", "source": "a"}])
    with duckdb.connect() as con:
        con.register("documents", rows.to_arrow())
        with pytest.raises(MidtrainError):
            select(con, Selection(rules=(Rule(name="r", keep=said),)), 0)
    maker = make(Questions(name="q", kind="questions", where=said), Tools(Sandbox.find()))
    try:
        chosen = choose(rows, maker)
    except MidtrainError:
        chosen = None
    reads = any(word in condition for word in ("read_", "glob", "from '{"))
    assert chosen is None or not reads, "the condition read a file"
    assert not out.exists()


def test_what_data_says_never_becomes_a_path(project: Path, tmp_path: Path) -> None:
    """Ids, URLs and names that climb: everything that is written lies in the lake."""
    climbing = "../../../escaped"
    with (project.parent / "prose.jsonl").open("a") as file:
        for number, name in enumerate((climbing, "/tmp/escaped", "a/../../../escaped", "..\\escaped", "nul\0escaped")):
            row = {
                "id": name,
                "url": f"file://{name}",
                "source": name,
                "domain": name,
                "license": name,
                "text": f"{number} text",
            }
            file.write(json.dumps(row) + "\n")
    before = {path for path in tmp_path.rglob("*") if "lake" not in path.parts}
    defs = composed.definitions(projects.load(project), project.parent)
    keys = dg.AssetSelection.keys("clean_documents/prose").upstream()
    job = dg.define_asset_job("two", selection=keys)
    loaded = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("two")
    assert loaded.execute_in_process(instance=dg.DagsterInstance.ephemeral()).success
    assert {path for path in tmp_path.rglob("*") if "lake" not in path.parts} == before
    assert not any("escaped" in path.name for path in tmp_path.rglob("*"))
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "a'; drop table x; --", "", "a b"])
def test_names_that_become_paths_and_predicates_are_plain(name: str) -> None:
    with pytest.raises(MidtrainError):
        projects.Project.check({"sources": [{"name": name, "kind": "jsonl", "location": "x"}]}, "midtrain.yaml")
