"""The scale assets: in the graph where a recipe asks for them; a proxy run is trained once, whatever design names it."""

import json
from pathlib import Path
from typing import get_args

import dagster as dg
import polars as pl
import pytest

from assets import mix, proxying, scale
from assets.proxying import Desk, Run, recommend
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.documents import documents
from midtrain_dagster.mix import proxies as mixtures
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes import named as recipes
from midtrain_dagster.recipes.mixture import Mixture
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.scaling import MethodName, Scaling
from resources.gpu import Gpu
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
    "law": {"form": "bimix", "starts": 4, "bootstrap": 4},
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


@pytest.fixture(scope="module")
def desk(lake: Lake, recipe: Recipe, data: Artifact) -> Desk:
    return Desk(lake, recipe, data, 1)


@pytest.fixture(scope="module")
def table(desk: Desk) -> pl.DataFrame:
    """The runs of the recipe's design, trained."""
    rows = []
    for planned in mixtures.runs(desk.there, desk.baseline, desk.settings).iter_rows(named=True):
        run = Run({c: planned[c] for c in desk.baseline}, planned["tokens"], planned["shape"], planned["seed"])
        rows.append(desk.row(planned["run"], planned["role"], run))
    return pl.DataFrame(rows, infer_schema_length=None)


def test_a_run_is_trained_once_and_measures_every_domain(desk: Desk, monkeypatch):
    calls = []
    real = proxying.train_proxy
    monkeypatch.setattr(proxying, "train_proxy", lambda *a, **k: calls.append(1) or real(*a, **k))
    run = Run({"code": 0.75, "prose": 0.25}, 512, 0, 0)
    first = desk.run(run)
    again = desk.run(run._replace(shares={"prose": 0.25, "code": 0.75}))
    assert first == again
    assert len(calls) == 1
    other = desk.run(run._replace(seed=1))
    assert len(calls) == 2
    assert other.about["validation"] != first.about["validation"]
    row = desk.row("r", "fit", run)
    assert row["general_share"] == pytest.approx(0.25)
    assert row["target_share"] == pytest.approx(0.75)
    assert row["loss of code"] == pytest.approx(row["target_loss"])
    assert row["general_loss"] < row["general_start"]


@pytest.mark.parametrize("method", get_args(MethodName))
def test_every_method_proposes_shares_with_expected_losses_and_tests_them(
    desk: Desk, recipe: Recipe, table: pl.DataFrame, method: str
):
    settings = recipe.scaling.model_copy(update={"method": method})
    other = Desk(desk.lake, recipe.model_copy(update={"scaling": settings}), desk.data, 1)
    found = recommend(other, table)
    assert found["method"] == method
    for shares in (found["proposed shares"], found["shares"]):
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) >= 0
        assert all(share <= other.caps()[name] + 1e-6 for name, share in shares.items())
    assert set(found["expected losses"]) == {"code", "prose"}
    for loss, low, high in found["expected losses"].values():
        assert low <= high
        assert 1 < loss < 7  # ln 300 is 5.7
    assert found["shares"] == (found["proposed shares"] if found["supported"] else found["recipe's shares"])
    assert ("does not support a change" in found["reason"]) != found["supported"]
    assert json.dumps(found)
    assert recommend(other, table) == found
    evidence = {"microanneal": "anneals", "doremi": "DoReMi's weights", "d_cpt": "law", "cmr": "law"}.get(method)
    if evidence:
        assert found[evidence]


def test_a_proposal_keeps_the_recipe_s_general_minimum(desk: Desk, recipe: Recipe, table: pl.DataFrame):
    components = [{"name": "code"}, {"name": "prose", "general": True}]
    mixture = Mixture.check(
        {"method": "natural", "components": components, "minimum_general_share": 0.45, "component_column": "domain"},
        where="test",
    )
    for method in ("olmix", "regmix", "cmr"):
        settings = recipe.scaling.model_copy(update={"method": method, "target_weight": 1.0})
        other = Desk(desk.lake, recipe.model_copy(update={"scaling": settings, "mixture": mixture}), desk.data, 1)
        assert recommend(other, table)["shares"]["prose"] >= 0.45 - 1e-9


def test_the_three_assets_run_and_are_up_to_date_the_second_time(
    lake: Lake, recipe: Recipe, data: Artifact, table: pl.DataFrame, monkeypatch
):
    monkeypatch.setattr(scale, "data_of", lambda *_: data)
    project = Project.check(
        {"name": "small", "sources": [{"name": "prose", "kind": "jsonl", "location": "p", "domain": "prose"}]}, where="test"
    )
    goal = {"maximum_general_rise": 0.5}
    planned = recipe.model_copy(update={"scaling": Scaling.check({**SCALING, "goal": goal, "method": "regmix"}, where="test")})
    made = scale.assets(project, [planned])
    for up_to_date in (False, True):
        done = dg.materialize(made, resources={"lake": lake, "gpu": Gpu()})
        assert done.success
        shown = {
            e.asset_key.path[0]: e.step_materialization_data.materialization.metadata
            for e in done.get_asset_materialization_events()
        }
        assert list(shown) == ["proxy_runs", "scaling_law", "scaling_plan"]
        assert all(found["up to date"].value is up_to_date for found in shown.values())
    law, plan = (lake.artifacts.current(f"{name}/smoke") for name in ("scaling_law", "scaling_plan"))
    assert len(list(law.path.glob("*.png"))) == 4
    assert {"general loss over its share", "target loss over share and tokens"} <= set(shown["scaling_law"])
    assert plan.about["runs"] == len(table)
    for side in ("general", "target"):
        found = plan.about["laws at the chosen mixture"][side]
        assert found["low"] <= found["predicted"] <= found["high"]
        assert found["measured"] > 0
    assert 0 < plan.about["plan for the goal"]["probability"] <= 1
    assert mix.planned(lake, planned) == (None, {})
    taking = planned.model_copy(update={"scaling": planned.scaling.model_copy(update={"use_plan": True})})
    shares, inputs = mix.planned(lake, taking)
    assert shares == (plan.about["shares"] if plan.about["supported"] else None)
    assert inputs == {"scaling_plan/smoke": plan.fingerprint}
