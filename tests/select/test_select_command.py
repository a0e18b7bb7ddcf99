"""What-if changes, and the command on plain files."""

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import typer
import yaml
from typer.testing import CliRunner

from midtrain_dagster import definitions as composed
from midtrain_dagster.commands import select as command
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import project as projects
from midtrain_dagster.recipes.selection import Contamination, Rule, Selection, Threshold
from midtrain_dagster.select.funnel import funnel
from midtrain_dagster.select.what_if import changed
from resources.lake import Lake


def test_changes_move_thresholds_settings_and_rules():
    before = Selection(
        contamination=Contamination(score=0.5),
        ratings={"edu": Threshold(at_least=1)},
        rules=(Rule(name="long", keep="words > 1"),),
    )
    after = changed(
        before, ["rate.edu>=2.5", "rate.edu <= 4", "contamination.score=0.3", "rules.long=words>=100", "language = 'en'"]
    )
    assert after.ratings["edu"] == Threshold(at_least=2.5, at_most=4)
    assert after.contamination == Contamination(score=0.3)
    assert [rule.keep for rule in after.rules] == ["words>=100", "language = 'en'"]
    assert changed(before, ["contamination=null"]).contamination is None
    assert changed(before, ["ratings.edu=null"]).ratings == {}
    assert changed(before, ["quality=[gopher, c4]"]).quality == ("gopher", "c4")


def test_a_wrong_change_says_where():
    with pytest.raises(MidtrainError, match="no rule short; there are: long"):
        changed(Selection(rules=(Rule(name="long", keep="words > 1"),)), ["rules.short=words>2"])
    with pytest.raises(MidtrainError, match=r"contamination\.treshold"):
        changed(Selection(), ["contamination.treshold=0.3"])


@pytest.fixture
def files(tmp_path):
    documents = pl.DataFrame({"id": ["a", "b", "c"], "text": ["x", "yy", "zzz"], "text_hash": ["1", "2", "3"], "source": "s"})
    documents.write_parquet(tmp_path / "documents.parquet")
    pl.DataFrame({"id": ["a", "b", "c"], "text_hash": ["1", "2", "3"], "edu": [1.0, 2.0, 3.0]}).write_parquet(
        tmp_path / "r.parquet"
    )
    pl.DataFrame({"document_id": ["c"], "question_id": ["q"], "score": [0.8]}).write_parquet(tmp_path / "m.parquet")
    (tmp_path / "s.yaml").write_text("contamination: {score: 0.5}\n")
    return tmp_path


def invoke(*arguments):
    app = typer.Typer()
    command.register(app)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_writes_every_row_and_a_dry_run_nothing(files):
    common = ("--documents", files / "documents.parquet", "--ratings", files / "r.parquet", "--matches", files / "m.parquet")
    common = (*common, "--selection", files / "s.yaml", "--set", "rate.edu>=1.5", "--out", files / "out")
    dry = json.loads(invoke(*common, "--dry-run").stdout)
    assert not (files / "out").exists()
    wet = json.loads(invoke(*common).stdout)
    assert {k: v for k, v in dry.items() if k != "seconds"} == {k: v for k, v in wet.items() if k != "seconds"}
    assert (wet["documents"], wet["kept"], wet["left_out"], wet["characters"], wet["tokens"]) == (3, 1, 2, 2, None)
    rows = pl.read_parquet(files / "out" / "selected.parquet")
    assert rows["reason"].to_list() == ["rate.edu", None, "contamination"]
    assert "SELECT" in (files / "out" / "selection.sql").read_text()


def test_a_selection_must_be_named(files):
    found = invoke("--documents", files / "documents.parquet", "--dry-run")
    assert isinstance(found.exception, MidtrainError)


def test_a_coordinated_score_stands_beside_the_ratings(files):
    pl.DataFrame(
        {"id": ["a", "b", "c"], "text_hash": ["1", "2", "3"], "source": "s", "together": [9.0, 1.0, 9.0]}
    ).write_parquet(files / "c.parquet")
    common = ("--documents", files / "documents.parquet", "--selection", files / "empty.yaml", "--dry-run")
    (files / "empty.yaml").write_text("{}")
    both = (*common, "--coordinated", files / "c.parquet", "--set", "rate.together>=5", "--set", "rate.edu<=2")
    found = json.loads(invoke(*both, "--ratings", files / "r.parquet").stdout)
    assert (found["kept"], found["left_out"]) == (1, 2)
    assert "--ratings" in str(invoke(*both).exception)


def test_without_documents_the_projects_own_tables_are_asked(project, monkeypatch):
    monkeypatch.chdir(project.parent)
    with pytest.raises(MidtrainError, match="no documents yet"):
        raise invoke("--recipe", "smoke", "--dry-run").exception
    with pytest.raises(MidtrainError, match="name the documents too"):
        raise invoke("--recipe", "smoke", "--ratings", "r.parquet", "--dry-run").exception
    values = yaml.safe_load(project.read_text()) | {"generators": [], "raters": [], "recipes": ["smoke"]}
    project.write_text(yaml.safe_dump(values, sort_keys=False))
    made = composed.definitions(projects.load(project), project.parent)
    wanted = dg.AssetSelection.assets(["selected_documents", "smoke"]).upstream()
    graph = dg.Definitions(made.assets, resources=made.resources, jobs=[dg.define_asset_job("some", selection=wanted)])
    with dg.DagsterInstance.ephemeral() as instance:
        assert graph.resolve_job_def("some").execute_in_process(instance=instance).success
    said = json.loads(invoke("--recipe", "smoke", "--dry-run").stdout)
    lake = Lake(project.parent, "lake")
    stored = lake.tables.read("selected_documents/smoke")
    assert said["funnel"] == funnel(stored).to_dicts()
    assert said["tokens"] is None
    fewer = json.loads(invoke("--recipe", "smoke", "--set", "document.domain = 'code'", "--dry-run").stdout)
    assert {row["source"] for row in fewer["funnel"] if row["kept"]} == {"code"}
    assert fewer["kept"] < said["kept"]

    def mixed(out: Path) -> tuple[str, dict[str, object]]:
        code = stored.filter(pl.col("source") == "code")  # the only source that was mixed
        code.select("id", tokens=pl.col("characters") * 2).write_parquet(out / "documents.parquet")
        return "digest", {}

    lake.artifacts.build("mixture/smoke", "f", mixed, {})
    then = json.loads(invoke("--recipe", "smoke", "--dry-run").stdout)
    assert then["tokens_are"].startswith("estimated")
    assert "tokens_are" not in said
    assert [row["tokens"] for row in then["funnel"]] == [row["characters"] * 2 for row in then["funnel"]]
    assert then["tokens"] == 2 * then["characters"]
