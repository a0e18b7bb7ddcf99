"""Every kind of generator through its Dagster asset: with a scripted teacher, and against an endpoint on loopback."""

import html
import json
from pathlib import Path

import dagster as dg
import generators_project as SMALL
import polars as pl
import pytest

from assets.report import generator_table
from midtrain_dagster import definitions as composed
from midtrain_dagster.audit.document import document
from midtrain_dagster.evaluate.report.data import synthetic
from midtrain_dagster.evaluate.report.page import page as report_page
from midtrain_dagster.project import project as projects
from resources.lake import Lake
from resources.teacher_server import Manners, serving

SECRET = "sk-do-not-tell-0123456789"


FAKE = {"kind": "fake", "script": SMALL.SCRIPT, "prices": {"prompt": 1.0, "completion": 2.0}}


class Run:
    """All generators of a project, and what they start from, materialized once."""

    def __init__(self, file: Path, instance: dg.DagsterInstance):
        self.file = file
        project = projects.load(file)
        self.lake = Lake(file.parent, project.storage)
        chosen = dg.AssetSelection.groups("synthesize").upstream()
        defs = composed.definitions(project, file.parent, [])
        job = dg.Definitions(
            assets=defs.assets, jobs=[dg.define_asset_job("made", chosen)], resources=defs.resources
        ).resolve_job_def("made")
        self.result = job.execute_in_process(instance=instance, raise_on_error=False)
        made = [event.step_materialization_data.materialization for event in self.result.get_asset_materialization_events()]
        self.metadata = {m.asset_key.path[-1]: m.metadata for m in made if m.asset_key.path[0] == "raw_documents"}

    def failures(self) -> dict[str, str]:
        events = [event for event in self.result.all_events if event.event_type_value == "STEP_FAILURE"]
        return {e.step_key: (e.step_failure_data.error.cause or e.step_failure_data.error).message for e in events}

    def told(self, name: str) -> dict[str, object]:
        return dict(self.metadata[name]["yield"].value)

    def documents(self, name: str) -> pl.DataFrame:
        return self.lake.tables.read("raw_documents", name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("scripted")
    with dg.DagsterInstance.ephemeral() as instance:
        return Run(SMALL.write(root, FAKE), instance)


def test_all_succeed(made: Run) -> None:
    assert made.failures() == {}
    assert made.result.success


@pytest.mark.parametrize("name", [generator["name"] for generator in SMALL.GENERATORS])
def test_every_kind_makes_documents_that_name_their_parents(made: Run, name: str) -> None:
    rows = made.documents(name).to_dicts()
    assert rows, made.told(name)
    parents = set(made.lake.tables.read("clean_documents")["id"])
    for row in rows:
        assert set(row["parent_ids"]) <= parents
        assert row["parent_ids"]
        assert json.loads(row["generator"])["name"] == name
    outcomes = made.lake.tables.read("synthesis_outcomes", name)
    told = made.told(name)
    assert told["documents"] == len(rows)
    assert told["parents"] == outcomes["parent_id"].n_unique()
    assert set(made.metadata[name]) >= {"samples", "unfinished", "yield"}


@pytest.mark.parametrize("name", ["rewrite_easy", "translation", "evolution", "trajectories", "long_questions"])
def test_a_documents_parents_and_prompts_are_one_call(made: Run, name: str) -> None:
    identifier = made.documents(name)["id"][0]
    found = document(made.lake.tables, made.lake.artifacts, identifier, [])
    assert [parent["id"] for parent in found["parents"]] == found["document"]["parent_ids"]
    assert all(parent["source"] for parent in found["parents"])
    assert [prompt["made_from"] for prompt in found["prompts"]].count(True) == 1
    for prompt in found["prompts"]:
        assert prompt["messages"][-1]["content"]
        assert prompt["reply"] in SMALL.SCRIPT.values()
        assert prompt["parameters"]["max_tokens"] > 0
    collected = document(made.lake.tables, made.lake.artifacts, found["parents"][0]["id"], [])
    assert collected["prompts"] == []


def test_recall_leaves_out_pages_of_useless_hosts(made: Run) -> None:
    told = made.metadata["extraction"]["recall"].value
    assert {host["host"]: host["useful"] for host in told["hosts"]}["quiz.example"] is True
    assert told["seeds"] == 6
    parents = made.lake.tables.read("synthesis_outcomes", "extraction")["parent_id"].unique()
    urls = made.lake.tables.read("clean_documents", "pages").filter(pl.col("id").is_in(parents.implode()))["url"]
    assert urls.str.contains("quiz").sum() == 6
    assert len(urls) < 9


def test_cost_is_counted_and_pictures_are_not_stored(made: Run) -> None:
    told = made.told("rewrite_hard")
    assert told["cost"] == pytest.approx((told["prompt_tokens"] + 2 * told["completion_tokens"]) / 1e6)
    assert told["cost"] > 0
    asked = made.lake.tables.read("synthesis_requests", "images")["messages"].to_list()
    assert all("image/png" in messages and SMALL.PIXEL not in messages for messages in asked)


KINDS = {generator["kind"]: generator for generator in reversed(SMALL.GENERATORS)}
ASKING = tuple(g for kind, g in KINDS.items() if kind not in {"fill_in_the_middle", "long_documents", "natural"})


def answer(prompt: str) -> str:
    """The script's answer to a prompt."""
    return next(text for words, text in SMALL.SCRIPT.items() if words in prompt)


def test_every_kind_runs_against_an_endpoint_and_the_key_appears_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    with serving(Manners(answer=answer, fails=0.1, garbles=0.02, key=SECRET)) as server:
        teacher = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": "TEACHER_KEY"}
        file = SMALL.write(tmp_path, {**teacher, "backoff": 0.01, "retries": 12, "paid_retries": 6}, ASKING)
        (tmp_path / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
            run = Run(file, instance)
    assert run.failures() == {}
    assert {name: run.told(name)["documents"] > 0 for name in run.metadata if name in {g["name"] for g in ASKING}} == {
        g["name"]: True for g in ASKING
    }
    told = "".join(capfd.readouterr())
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert holding == []
    assert SECRET not in told


def one(**changes: object) -> tuple[dict[str, object], ...]:
    return ({"name": "rewrite", "kind": "rewrite", "parents": ["prose"], "sample": 1, **SMALL.SHORT, **changes},)


def test_an_estimate_comes_first_and_a_budget_stops_before_it_is_passed(tmp_path: Path) -> None:
    price = {"prompt": 0.0, "completion": 1e6}  # a token, a unit
    teacher = {**FAKE, "prices": price, "budget": 90.0}
    with dg.DagsterInstance.ephemeral() as instance:
        stopped = Run(SMALL.write(tmp_path, teacher, one(max_tokens=60)), instance)
        words = len(SMALL.PLAIN.split())
        told = stopped.metadata["rewrite"]["estimate"].value
        assert (told["parents"], told["cost"]) == (3, pytest.approx(3 * words))
        assert "NOT enough" in told["said"]
        assert stopped.told("rewrite")["cost"] <= 90
        assert stopped.told("rewrite")["rejected"] == {"budget reached": 2}
        assert stopped.metadata["rewrite"]["unfinished"].value == 2
        more = Run(SMALL.write(tmp_path, {**teacher, "budget": 1000.0}, one(max_tokens=60)), instance)
        assert more.told("rewrite")["documents"] == 3
        assert more.told("rewrite")["paid_now"] == pytest.approx(2 * words)
        again = Run(tmp_path / "midtrain.yaml", instance)
    assert again.told("rewrite")["documents"] == 3


def test_an_endpoint_that_answers_nothing_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = Run(SMALL.write(tmp_path, FAKE, one()), instance)
        assert len(first.documents("rewrite")) == 3
        dead = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": None, "retries": 0}
        failed = Run(SMALL.write(tmp_path, dead, one()), instance)
        assert "answered none" in failed.failures()["raw_documents__rewrite"]
        assert len(failed.documents("rewrite")) == 3


def test_conditions_speak_of_signals_and_read_nothing_else(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        some = Run(SMALL.write(tmp_path, FAKE, one(where="text like '%Volga%' and signal.characters > 10")), instance)
        assert some.told("rewrite")["parents"] == 1
        bad = Run(SMALL.write(tmp_path, FAKE, one(where="id in (select content from read_text('/etc/hostname'))")), instance)
        assert "failed" in bad.failures()["raw_documents__rewrite"]
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"curation\.order"):
        Run(SMALL.write(tmp_path, FAKE, one(where="rate.good > 0.5")), dg.DagsterInstance.ephemeral())


def test_the_report_shows_each_generator_with_three_samples(made: Run) -> None:
    table = generator_table(made.lake, projects.load(made.file))
    assert table["generator"].to_list() == [generator["name"] for generator in SMALL.GENERATORS]
    section = synthetic(table)
    assert section is not None
    page = html.unescape(report_page("Generators", "", section, []))
    for row in table.to_dicts():
        assert len(row["samples"]) == min(3, row["documents"])
        for sample in row["samples"]:
            assert f"midtrain audit document {sample['document']}" in page
            assert sample["text"].splitlines()[0][:60] in page
        assert row["rejected"] in page
    assert page.count("<pre>") == sum(len(samples) for samples in table["samples"])
