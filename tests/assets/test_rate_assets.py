"""Every kind of rater through its assets, on a tiny project: a scripted teacher, the fake encoder, models of a few weights."""

import json
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
import yaml
from rated_models import save_models
from small_project import write_project

from midtrain_dagster import definitions as composed
from midtrain_dagster.project import project as projects
from midtrain_dagster.rate import perplexity
from midtrain_dagster.rate.coordinate import rank_aggregate
from midtrain_dagster.rate.fasttext import FastText
from resources.lake import Lake

SCRIPT = {
    "Text A:\nNotebook": "A",
    "Text B:\nNotebook": "The letter is B.",
    "Text A:": "A",
    "Text:\nNotebook": "4",
    "Text:": "Score: 1",
}
HEAD = {"lr": 0.01, "epochs": 20, "held_out": 0.3}
SIDES = {"target": {"condition": "source = 'code'"}, "raw": {"condition": "true"}}
RATERS = [
    {"name": "edu", "kind": "edu", "model": None, "annotations": 200, "training": HEAD},
    {"name": "style", "kind": "qurater", "criterion": "writing_style", "pairs": 300, "training": HEAD},
    {"name": "near_code", "kind": "dsir", "min_words": 5, **SIDES},
    {"name": "surprise", "kind": "perplexity", "model": "models/language", "max_tokens": 32},
    {"name": "published", "kind": "edu", "model": "models/published", "max_tokens": 32},
    {"name": "toxic", "kind": "classifier", "model": "models/classifier", "max_tokens": 32},
]
LEARNT = {"target": "source = 'code'", "runs": 10, "documents": 60, "held_out": 4, "vocabulary": 300, "sequence_length": 32}
COORDINATED = [
    {"name": "together", "kind": "bucket_maximum", "raters": ["codelike", "near_code"], "buckets": 4},
    {"name": "both", "kind": "intersection", "at_least": {"codelike": 0.5, "near_code": 0.0}},
    {"name": "ranked", "kind": "rank_aggregate", "raters": ["surprise", "near_code"]},
    {"name": "weighed", "kind": "weighted_sum", "over": ["codelike", "edu"], "learnt": {**LEARNT, "hidden": 16, "layers": 1}},
]
NAMES = ["codelike", *(str(rater["name"]) for rater in RATERS)]
KEYS = [
    *(f"{stage}/{source}" for stage in ("raw_documents", "clean_documents") for source in ("prose", "code")),
    *("rater/codelike", "rater/edu", "rater/style", "rater/near_code"),
    *("document_ratings/prose", "document_ratings/code", "rating_report"),
    *("rater_weights/weighed", "coordinated_ratings", "duplicate_clusters", "benchmark_questions"),
    *("contamination_matches/prose", "contamination_matches/code", "selected_documents/picky"),
]


def materialized(file: Path, keys: list[str] = KEYS, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    definitions = composed.definitions(projects.load(file), file.parent)
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        chosen = [dg.AssetKey(key.split("/")) for key in keys]
        return job.execute_in_process(instance=instance, asset_selection=chosen, raise_on_error=raise_on_error)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lake, dg.ExecuteInProcessResult]:
    project: Path = write_project(tmp_path_factory.mktemp("rated"))
    save_models(project.parent / "models")
    values = yaml.safe_load(project.read_text())
    values["raters"] += RATERS
    values |= {"coordinated": COORDINATED, "generators": [], "recipes": ["picky.yaml"]}
    recipe = yaml.safe_load((Path(composed.__file__).parent / "recipes" / "smoke.yaml").read_text())
    recipe |= {"name": "picky", "selection": {"ratings": {"together": {"at_least": 3}}}}
    (project.parent / "picky.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    values["teacher"]["script"] = SCRIPT | values["teacher"]["script"]
    project.write_text(yaml.safe_dump(values, sort_keys=False))
    result = materialized(project)
    return project, Lake(project.parent, "lake"), result


def test_every_rater_rates_through_its_asset_and_none_twice(rated: tuple[Path, Lake, dg.ExecuteInProcessResult]) -> None:
    project, lake, result = rated
    assert result.success
    ratings = lake.tables.read("document_ratings")
    assert set(ratings["source"]) == {"prose", "code"}
    for name in NAMES:
        assert ratings[name].null_count() == 0, name
        assert ratings[f"{name}_version"].n_unique() == 1, name
    means = ratings.group_by("source").agg(pl.col("edu", "style", "near_code").mean()).sort("source").rows(named=True)
    code, prose = means
    assert prose["edu"] > code["edu"] + 1  # the teacher gave 4 and 1
    assert prose["style"] > code["style"]
    assert code["near_code"] > prose["near_code"]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations() if check.asset_key.path[-1] in NAMES}
    assert checks["agrees_with_teacher"].passed
    report = lake.tables.read("rating_report")
    assert len(report) == len(NAMES) * (len(NAMES) - 1) // 2
    again = materialized(project)
    assert all(
        event.step_materialization_data.materialization.metadata["up to date"].value
        for event in again.get_asset_materialization_events()
    )


def test_a_rating_that_was_cut_short_goes_on_where_it_stopped(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = yaml.safe_load(project.read_text()) | {"compute": {"shard": 7, "workers": 1}, "generators": []}
    project.write_text(yaml.safe_dump(values, sort_keys=False))
    before = [f"{stage}/{source}" for stage in ("raw_documents", "clean_documents") for source in ("prose", "code")]
    materialized(project, [*before, "rater/codelike"])
    seen: list[str] = []
    plain = FastText.score

    def counted(rater: FastText, documents: pl.DataFrame) -> np.ndarray:
        if len(seen) >= 20 and failing:
            raise RuntimeError("the machine went away")
        seen.extend(documents["id"])
        return plain(rater, documents)

    monkeypatch.setattr(FastText, "score", counted)
    failing = True
    assert not materialized(project, ["document_ratings/prose"], raise_on_error=False).success
    assert len(seen) == 21  # three shards of seven
    failing = False
    assert materialized(project, ["document_ratings/prose"]).success
    lake = Lake(project.parent, "lake")
    ratings = lake.tables.read("document_ratings", "prose")
    assert ratings["codelike"].null_count() == 0
    assert sorted(seen) == sorted(ratings["id"])  # each once
    assert not list(lake.cache_path("ratings").rglob("*.parquet"))


def test_a_model_is_loaded_once_for_all_sources_and_anew_where_its_files_change(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_models(project.parent / "models")
    values = yaml.safe_load(project.read_text()) | {"generators": []}
    values["raters"] = [rater for rater in RATERS if rater["kind"] == "perplexity"]
    project.write_text(yaml.safe_dump(values, sort_keys=False))
    loaded: list[str] = []
    plain = perplexity._load
    monkeypatch.setattr(perplexity, "_load", lambda model, device: (loaded.append(model), plain(model, device))[1])
    keys = [
        f"{stage}/{source}"
        for stage in ("raw_documents", "clean_documents", "document_ratings")
        for source in ("prose", "code")
    ]
    materialized(project, keys)
    assert len(loaded) == 1
    before = Lake(project.parent, "lake").tables.read("document_ratings")
    save_models(project.parent / "models", seed=1)
    materialized(project, keys)
    assert len(loaded) == 2
    after = Lake(project.parent, "lake").tables.read("document_ratings")
    assert set(after["surprise_version"]).isdisjoint(before["surprise_version"])


def test_models_share_the_accelerator_with_no_training(project: Path) -> None:
    """Only raters that are models belong to the pool of the accelerator."""

    def pool() -> str | None:
        assets = composed.definitions(projects.load(project), project.parent).assets or []
        own = [a for a in assets if isinstance(a, dg.AssetsDefinition) and a.key == dg.AssetKey(["document_ratings", "prose"])]
        return own[0].op.pool

    assert pool() is None
    values = yaml.safe_load(project.read_text())
    values["raters"] += [rater for rater in RATERS if rater["kind"] == "perplexity"]
    project.write_text(yaml.safe_dump(values, sort_keys=False))
    assert pool() == "gpu"


def test_conditions_name_a_coordinated_score(rated: tuple[Path, Lake, dg.ExecuteInProcessResult]) -> None:
    _, lake, _ = rated
    scores = lake.tables.read("coordinated_ratings")
    assert len(scores) == len(lake.tables.read("document_ratings"))
    assert set(scores["both"]) == {0.0, 1.0}
    assert scores.group_by("source").agg(pl.col("both").mean()).sort("source")["both"].to_list() == [1.0, 0.0]
    chosen = lake.tables.read("selected_documents/picky").join(scores.drop("source", "text_hash"), on="id")
    assert chosen.filter(
        pl.col("reason").is_null() | pl.col("reason").is_in(["rate.together", "held out", "contamination"])
    ).height
    assert chosen.filter(pl.col("kept") & (pl.col("together") < 3)).is_empty()
    assert (chosen.filter(reason="rate.together")["together"] < 3).all()
    assert {True, False} == set(chosen["kept"])
    record = lake.tables.record("selected_documents/picky", "selected_documents/picky")
    assert record is not None
    assert record.reads["coordinated_ratings"] == lake.tables.version("coordinated_ratings")


def test_a_low_perplexity_counts_as_good(rated: tuple[Path, Lake, dg.ExecuteInProcessResult]) -> None:
    _, lake, _ = rated
    ratings, scores = (lake.tables.read(name).sort("id") for name in ("document_ratings", "coordinated_ratings"))
    expected = rank_aggregate(ratings.select(-pl.col("surprise"), "near_code"))
    assert np.allclose(scores["ranked"], expected, atol=1e-6)


def test_the_report_shows_every_pair_of_raters(rated: tuple[Path, Lake, dg.ExecuteInProcessResult]) -> None:
    *_, result = rated
    events = result.get_asset_materialization_events()
    (report,) = [event for event in events if event.asset_key == dg.AssetKey("rating_report")]
    said = {name: value.value for name, value in report.materialization.metadata.items()}
    assert said["agreement"].startswith("![plot](data:image/png;base64,")
    quarrels = said["widest disagreements"].splitlines()
    assert quarrels[0] == "| praised | blamed | begins | source | id |"
    assert len(quarrels) == 2 + len(NAMES) * (len(NAMES) - 1) // 2
    assert len(said["what each adds"].splitlines()) == 2 + len(NAMES)


def test_weights_are_learnt_from_proxy_runs(rated: tuple[Path, Lake, dg.ExecuteInProcessResult]) -> None:
    _, lake, _ = rated
    learnt = lake.artifacts.current("rater_weights/weighed")
    runs = pl.read_parquet(learnt.path / "runs.parquet")
    assert len(runs) == 10
    assert runs["loss"].n_unique() > 1
    assert (runs["tokens"] > 0).all()
    assert sum(learnt.about["weights"].values()) == pytest.approx(1)
    scale = json.loads((lake.artifacts.current("coordination/weighed").path / "scale.json").read_text())
    assert scale["weights"] == learnt.about["weights"]
    ratings = lake.tables.read("document_ratings").join(lake.tables.read("coordinated_ratings"), on="id")
    terms = [
        weight * (pl.col(name).cast(pl.Float64) - scale["moments"][name][0]) / scale["moments"][name][1]
        for name, weight in scale["weights"].items()
    ]
    assert ratings.select((pl.sum_horizontal(terms) - pl.col("weighed")).abs().max()).item() < 1e-6


def test_more_documents_leave_the_others_scores_alone(rated: tuple[Path, Lake, dg.ExecuteInProcessResult]) -> None:
    """Runs last: it changes the project."""
    project, lake, _ = rated
    before = lake.tables.read("coordinated_ratings")
    scale = lake.artifacts.current("coordination/together").fingerprint
    with (project.parent / "prose.jsonl").open("a") as file:
        for number in range(40):
            file.write(
                json.dumps({"id": f"new{number}", "text": f"def made(): return {number}  # the code, again and again"}) + "\n"
            )
    assert materialized(project).success
    after = lake.tables.read("coordinated_ratings")
    assert len(after) == len(before) + 40
    assert after.join(before.select("id"), on="id", how="semi").sort("id").equals(before.sort("id"))
    assert lake.artifacts.current("coordination/together").fingerprint == scale
