"""The graph as designed: what is in it, what depends on what, and that loading it costs little."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner

import assets
import resources
from midtrain_dagster import definitions as composed
from midtrain_dagster.cli import application
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import project as projects
from midtrain_dagster.recipes import named as recipes

ROOT = Path(__file__).parents[1]
STAGES = {
    "raw_documents": "collect",
    "clean_documents": "clean",
    "contamination_matches": "decontaminate",
    "document_ratings": "rate",
    "selected_documents": "select",
    "mixture": "mix",
    "packed_sequences": "mix",
    "base_checkpoint": "train",
    "training_plan": "train",
    "midtrained_checkpoint": "train",
    "base_evaluation": "evaluate",
    "midtrained_evaluation": "evaluate",
    "evaluation_report": "evaluate",
    "lineage_report": "audit",
    "data_card": "audit",
    "model_card": "audit",
    "cost_report": "audit",
}


@pytest.fixture
def graph(project: Path) -> Any:
    definitions = composed.definitions(projects.load(project), project.parent)
    dg.Definitions.validate_loadable(definitions)
    return definitions.resolve_asset_graph()


def test_the_imported_packages_are_ours() -> None:
    assert Path(assets.__file__).parent == ROOT / "assets"
    assert Path(resources.__file__).parent == ROOT / "resources"


def test_keys_and_groups(graph: Any) -> None:
    keys = {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()}
    for source in ("prose", "code", "asked"):
        for stage in ("raw_documents", "clean_documents", "contamination_matches", "document_ratings"):
            expected = "synthesize" if (stage, source) == ("raw_documents", "asked") else STAGES[stage]
            assert keys.pop(f"{stage}/{source}") == expected
    for stage, group in list(STAGES.items())[4:]:
        assert keys.pop(f"{stage}/smoke") == group
    assert keys == {
        "duplicate_clusters": "deduplicate",
        "benchmark_questions": "decontaminate",
        "contamination_report": "decontaminate",
        "rater/codelike": "rate",
    }


def test_a_generator_depends_on_its_parents_and_then_goes_the_same_way(graph: Any) -> None:
    asked = dg.AssetKey(["raw_documents", "asked"])
    assert graph.get(asked).parent_keys == {dg.AssetKey(["clean_documents", "prose"])}
    assert dg.AssetKey(["clean_documents", "asked"]) in graph.get(asked).child_keys


def test_every_asset_says_what_it_is(graph: Any) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.code_version, key


def test_training_on_what_would_be_wrong_is_blocked(project: Path) -> None:
    definitions = composed.definitions(projects.load(project), project.parent)
    blocking = {
        spec.name: spec.asset_key.to_user_string()
        for checks in definitions.asset_checks or []
        for spec in checks.check_specs
        if spec.blocking
    }
    assert blocking == {
        "no_benchmark_question_left": "packed_sequences/smoke",
        "mixture_not_empty": "mixture/smoke",
        "loss_is_finite": "midtrained_checkpoint/smoke",
    }


def test_loading_imports_nothing_heavy() -> None:
    """In a process of its own, since tests import torch themselves."""
    heavy = ("torch", "transformers", "numba", "scipy", "sklearn", "matplotlib", "datasets", "sentence_transformers", "faiss")
    program = f"import sys, json; from midtrain_dagster.definitions import defs; defs(); print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_default_project_and_every_recipe_load() -> None:
    project = projects.load(ROOT / "midtrain.yaml")
    definitions = composed.definitions(project, ROOT)
    dg.Definitions.validate_loadable(definitions)
    assert {recipes.load(name).name for name in ("smoke", "demo")} == {"smoke", "demo"}


@pytest.mark.parametrize("already", [False, True])
def test_sources_depend_on_what_this_project_writes_for_them(tmp_path: Path, already: bool) -> None:
    """Before the first run, and after it, when the files are links to artifacts."""
    project = projects.load(ROOT / "midtrain.yaml")
    if already:
        (tmp_path / "elsewhere").write_text("")
        (tmp_path / ".midtrain" / "embedded").mkdir(parents=True)
        for name in ("website.warc.gz", "leaks.jsonl", "benchmarks"):
            (tmp_path / ".midtrain" / "embedded" / name).symlink_to(tmp_path / "elsewhere")
    graph = composed.definitions(project, tmp_path).resolve_asset_graph()
    assert graph.get(dg.AssetKey(["raw_documents", "web"])).parent_keys == {dg.AssetKey(["embedded", "website"])}
    assert graph.get(dg.AssetKey(["raw_documents", "forum"])).parent_keys == {dg.AssetKey(["embedded", "leaks"])}
    assert graph.get(dg.AssetKey("benchmark_questions")).parent_keys == {dg.AssetKey(["embedded", "benchmarks"])}


def test_an_unknown_key_in_a_recipe_is_named(tmp_path: Path) -> None:
    text = (recipes.folder() / "smoke.yaml").read_text() + "\nlearning_speed: 3\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(MidtrainError, match=r"mine\.yaml: learning_speed: Extra inputs are not permitted"):
        recipes.load("mine.yaml", tmp_path)


def test_an_unknown_recipe_names_the_known() -> None:
    with pytest.raises(MidtrainError, match=r"there is no recipe nope; known are .*smoke"):
        recipes.load("nope")


def test_two_sources_of_one_name_are_refused(project: Path) -> None:
    project.write_text(project.read_text().replace("name: code\n", "name: prose\n", 1))
    with pytest.raises(MidtrainError, match="called prose"):
        projects.load(project)


def test_a_recipe_of_the_project_is_known_by_its_name_and_the_first_is_the_default(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.with_name("mine.yaml").write_text(
        (recipes.folder() / "smoke.yaml").read_text().replace("name: smoke", "name: mine")
    )
    said = yaml.safe_load(project.read_text())
    project.write_text(yaml.safe_dump({**said, "recipes": ["mine.yaml"]}))
    monkeypatch.setenv("MIDTRAIN_PROJECT", str(project))
    for asked in (["--recipe", "mine"], []):
        with pytest.raises(MidtrainError, match="evaluation_report/mine"):
            CliRunner().invoke(application(), ["report", *asked], catch_exceptions=False)
