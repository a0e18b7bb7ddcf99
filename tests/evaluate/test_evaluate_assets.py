"""Every benchmark of the catalog, in its data set's own format, base and mid-trained, through the assets of a whole small project."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from small_project import write_lines, write_project

from midtrain_dagster import definitions as composed
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.catalog import CATALOG
from midtrain_dagster.project import project as projects
from midtrain_dagster.recipes import named as recipes
from midtrain_dagster.sandbox import Sandbox
from resources.lake import Lake

ROOT = Path(__file__).parents[2]
NEED = {"minerva_math": "what is not installed"}  # runs where `pip install 'lm-eval[math]'` was done


def recipe_text() -> str:
    """The smoke recipe, with every benchmark, and probes of two lengths."""
    values = yaml.safe_load((ROOT / "midtrain_dagster" / "recipes" / "smoke.yaml").read_text())
    values["name"] = "every"
    values["base"]["context"] = 512
    values["training"]["snapshot_every"] = 8
    values["evaluation"] = {
        "curve_limit": 1,
        "precision": "float32",
        "tasks": [{"name": name} for name in CATALOG],
        "limit": 2,
        "max_gen_toks": 4,
        "bootstrap": 200,
        "batch_tokens": 2048,
        "probe_lengths": [260, 420],
        "probes": 1,
        "general": ["general", "reasoning"],
    }
    return yaml.safe_dump(values, sort_keys=False)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, seeded: dict[str, list[dict[str, Any]]]) -> Iterator[Lake]:
    try:
        Sandbox.find()
    except MidtrainError as reason:
        pytest.skip(f"NOT CHECKED: {reason}")
    pytest.importorskip("reasoning_gym", reason="NOT CHECKED: reasoning-gym is not installed")
    root = tmp_path_factory.mktemp("every")
    file = write_project(root)
    for name, rows in seeded.items():
        write_lines(root / "questions" / f"{name}.jsonl", rows)
    (root / "rows" / "gardener_test.jsonl").replace(root / "questions" / "gsm8k_test.jsonl")  # the first is in `prose`
    project = yaml.safe_load(file.read_text())
    project["benchmarks"] = [{"name": "all", "path": "questions"}]
    project["generators"], project["raters"] = [], []
    file.write_text(yaml.safe_dump(project))
    (root / "every.yaml").write_text(recipe_text())
    recipe = recipes.load("every.yaml", root)
    job = composed.definitions(projects.load(file), root, [recipe]).resolve_job_def("midtrain_every")
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=True)
        assert result.success
    yield Lake(root, "lake")
    shutil.rmtree(root)


def test_every_benchmark_ran_on_both_models_or_says_why(lake: Lake) -> None:
    for side in ("base_evaluation", "midtrained_evaluation"):
        made = lake.artifacts.current(f"{side}/every")
        results = json.loads((made.path / "results.json").read_text())
        samples = pl.read_parquet(made.path / "samples.parquet")
        missing = set(CATALOG) - set(results["midtrain"]["benchmarks"])
        assert missing == set(made.about["not run"]) <= set(NEED)
        for name in missing:
            assert NEED[name] in made.about["not run"][name]
        for name, about in results["midtrain"]["benchmarks"].items():
            own = samples.filter(benchmark=name)
            assert about["questions"] == own["question_id"].n_unique() > 0, name
            scores = results["groups"].get(name) or results["results"].get(name) or next(iter(_results_of(results, own)))
            assert 0 <= scores[about["metric"]] <= 1, name
            assert own.filter("primary")["score"].null_count() == 0, name
            assert own.filter("primary").height > 0, name
            assert own["gold_bits"].null_count() == 0, name
            assert own["output"].null_count() == 0, name
            assert about["gold_bits_per_byte"] > 0, name
    assert results["n-shot"]["gsm8k"] == 5
    assert results["n-shot"]["arc_challenge"] == 2  # of 25 by convention: there are three rows
    assert "2 shots: there are no more rows" in " ".join(results["midtrain"]["benchmarks"]["arc_challenge"]["notes"])
    assert len(results["midtrain"]["benchmarks"]["ruler"]["by_length"]) == 2


def _results_of(results: dict[str, Any], samples: pl.DataFrame) -> Iterator[dict[str, Any]]:
    return (results["results"][task] for task in samples["task"].unique())


def test_rows_that_became_several_questions_or_were_joined_keep_their_place(lake: Lake) -> None:
    samples = pl.read_parquet(lake.artifacts.current("base_evaluation/every").path / "samples.parquet")
    quality = samples.filter(pl.col("benchmark") == "quality", pl.col("primary"))
    assert quality["row"].to_list() == [0, 0]  # the first two questions on the article of row 0
    qasper = samples.filter(pl.col("benchmark") == "scrolls_qasper", pl.col("primary"))
    assert sorted(qasper["row"].to_list()) == [0, 1]
    assert json.loads(qasper.filter(row=0)["doc"][0])["outputs"] == ["a clock", "the clock"]


def test_the_report_says_all_of_it(lake: Lake) -> None:
    place = lake.artifacts.current("evaluation_report/every").path
    table = pl.read_parquet(place / "comparison.parquet")
    assert set(table["benchmark"]) == set(CATALOG) - set(NEED)
    for name in table["benchmark"].unique():
        assert "gold_bits_per_byte" in table.filter(benchmark=name)["metric"].to_list()
    sums = table.filter(benchmark="gsm8k")
    assert set(sums["set_aside"]) <= {1, 2}  # the planted one; the other differs from it in numbers alone
    assert (sums["set_aside"] + sums["clean_questions"]).to_list() == [2, 2]
    domains = pl.read_parquet(place / "benchmark_domains.parquet")
    assert set(domains["domain"]) == {*(b.domain for b in CATALOG.values()), "overall"}
    kept = pl.read_parquet(place / "retention.parquet")
    assert set(kept["domain"]) == {"prose", "general", "reasoning"}
    html = (place / "report.html").read_text()
    for words in (
        "In short",
        "What had to be kept",
        "How far it can look back",
        "not run, because",
        "set aside",
        "MMLU",
        "cannot tell",
    ):
        assert words in html or words == "In short"
    assert "http://" not in html.replace("http://www.w3.org", "")  # nothing is loaded from elsewhere
    assert pl.read_parquet(place / "changes.parquet").height == 10
