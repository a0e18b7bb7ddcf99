"""The scale assets: in the graph where a recipe asks for them; a proxy run is trained once, whatever design names it."""

import json
from pathlib import Path

import polars as pl
import pytest

from assets import scale
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.documents import documents
from midtrain_dagster.mix import proxies as mixtures
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes import recipe as recipes
from midtrain_dagster.recipes.recipe import Recipe
from resources.lake import Lake

SCALING = {
    "proxy": {
        "tokens": [512, 1024],
        "shapes": [{"layers": 1, "hidden": 16, "heads": 2}],
        "vocabulary": 300,
        "sequence_length": 32,
        "ladder": 1,
    },
    "proxy_mixtures": 4,
    "held_out": 1,
    "law": {"form": "exponential", "starts": 4, "bootstrap": 4},
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    values = recipes.load("smoke").model_dump(mode="json")
    values["mixture"]["budget_tokens"] = None
    return Recipe.check({**values, "scaling": SCALING}, where="test")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(tmp_path_factory.mktemp("project"), "lake")


@pytest.fixture(scope="module")
def data(lake: Lake, recipe: Recipe) -> Artifact:
    """What `data_of` makes of the lake's tables, made of a few documents here."""
    from midtrain_dagster.train.tokenizer import train_tokenizer

    rows = [
        {"id": f"{kind}{i}", "text": f"{kind} number {i} " * 12, "source": kind, "domain": kind}
        for kind in ("code", "prose")
        for i in range(30)
    ]
    frame = documents(rows).with_columns(component=pl.col("domain"), repetitions=pl.lit(1.0))

    def make(out: Path) -> tuple[str, dict[str, object]]:
        sampled = mixtures.sample(frame, 25, 0)
        train_tokenizer(sampled["text"], 300, out / "tokenizer")
        store = TokenStore(out / "tokens", load_tokenizer(out / "tokenizer"))
        store.add(sampled)
        counted = store.count(sampled)
        mixtures.supply(counted).write_parquet(out / "supply.parquet")
        counted.drop("text", "metadata", "prompts", "offset").write_parquet(out / "documents.parquet")
        for side, domains in (("general", recipe.goal.general), ("target", recipe.goal.target)):
            mixtures.pack_held_out(mixtures.held_out(frame, domains, 3, 100), store, out / "validation" / side, 32)
        return "d", {}

    return lake.artifacts.build("proxy_data/smoke", "f", make, {})[0]


def test_only_recipes_with_a_scaling_section_get_the_assets(recipe: Recipe):
    source = {"name": "prose", "kind": "jsonl", "location": "prose.jsonl", "domain": "prose"}
    project = Project.check({"name": "small", "sources": [source]}, where="test")
    found = scale.assets(project, [recipe, recipes.load("smoke")])
    assert [asset.key.path for asset in found] == [[name, "smoke"] for name in ("proxy_runs", "scaling_law", "scaling_plan")]
    assert {group for asset in found for group in asset.group_names_by_key.values()} == {"scale"}


def test_a_run_is_trained_once_and_measures_every_domain(lake: Lake, recipe: Recipe, data: Artifact, monkeypatch):
    calls = []
    real = scale.train_proxy
    monkeypatch.setattr(scale, "train_proxy", lambda *a, **k: calls.append(1) or real(*a, **k))
    run = scale.Run({"code": 0.75, "prose": 0.25}, 512, 0, 0)
    first = scale.trained(lake, recipe, data, run, 1)
    again = scale.trained(lake, recipe, data, scale.Run({"prose": 0.25, "code": 0.75}, 512, 0, 0), 1)
    assert first == again
    assert len(calls) == 1
    other = scale.trained(lake, recipe, data, run._replace(seed=1), 1)
    assert len(calls) == 2
    assert other["validation"] != first["validation"]
    row = scale.row_of("r", "fit", run, first, scale.fractions_of(data, recipe))
    assert row["general_share"] == pytest.approx(0.25)
    assert row["target_share"] == pytest.approx(0.75)
    assert row["loss of code"] == pytest.approx(row["target_loss"])
    assert row["general_loss"] < row["general_start"]


def test_a_recommendation_names_its_evidence(lake: Lake, recipe: Recipe, data: Artifact):
    there = pl.read_parquet(data.path / "supply.parquet")
    baseline = mixtures.recipe_shares(there, recipe.mixture)
    design = mixtures.runs(there, baseline, recipe.scaling)
    rows = []
    for planned in design.iter_rows(named=True):
        run = scale.Run({c: planned[c] for c in baseline}, planned["tokens"], planned["shape"], planned["seed"])
        measured = scale.trained(lake, recipe, data, run, 1)
        rows.append(scale.row_of(planned["run"], planned["role"], run, measured, scale.fractions_of(data, recipe)))
    table = pl.DataFrame(rows, infer_schema_length=None)
    found = scale.recommend(lake, recipe, data, table, 1)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"] == (found["proposed shares"] if found["supported"] else found["recipe's shares"])
    assert ("does not support a change" in found["reason"]) != found["supported"]
    assert json.dumps(found)
    assert scale.recommend(lake, recipe, data, table, 1) == found
