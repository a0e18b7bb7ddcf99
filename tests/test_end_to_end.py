"""The smoke recipe through a real Dagster instance: from files to an evaluated checkpoint, and again."""

import hashlib
import json
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from small_project import prose, write_project

from midtrain_dagster import definitions as composed
from midtrain_dagster.project import project as projects
from midtrain_dagster.recipes import named as recipes
from midtrain_dagster.tables import digest
from resources.lake import Lake

ROOT = Path(__file__).parents[1]


class Run:
    """One run of the smoke recipe: what was materialized, what the checks said."""

    def __init__(self, root: Path, instance: dg.DagsterInstance):
        project = projects.load(root / "midtrain.yaml")
        job = composed.definitions(project, root, [recipes.load("smoke")]).resolve_job_def("midtrain_smoke")
        self.result = job.execute_in_process(instance=instance, raise_on_error=False)
        self.made = {
            event.asset_key.to_user_string(): event.step_materialization_data.materialization
            for event in self.result.get_asset_materialization_events()
        }
        self.checks = {c.check_name: c.passed for c in self.result.get_asset_check_evaluations()}

    def failures(self) -> dict[str, str]:
        events = [e for e in self.result.all_events if e.event_type_value == "STEP_FAILURE"]
        return {e.step_key: (e.step_failure_data.error.cause or e.step_failure_data.error).message for e in events}

    def versions(self) -> dict[str, str]:
        return {key: made.tags["dagster/data_version"] for key, made in self.made.items()}

    def said(self, name: str) -> dict[str, object]:
        return {key: made.metadata[name].value for key, made in self.made.items() if name in made.metadata}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_project(folder)
    return folder


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> dg.DagsterInstance:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("dagster"))) as found:
        yield found


@pytest.fixture(scope="module")
def first(root: Path, instance: dg.DagsterInstance) -> Run:
    return Run(root, instance)


@pytest.fixture(scope="module")
def lake(root: Path, first: Run) -> Lake:
    return Lake(root, "lake")


def test_the_whole_graph_materializes(first: Run) -> None:
    assert first.failures() == {}
    assert first.result.success
    assert set(first.checks.values()) == {True}
    assert {
        "better_than_chance",
        "mixture_not_empty",
        "no_benchmark_question_left",
        "loss_is_finite",
        "nothing_withdrawn_was_read",
        "handover_is_smooth",
        "general_capability_retained",
    } <= set(first.checks)


def test_a_planted_question_is_found_and_left_out(lake: Lake) -> None:
    leak = (
        lake.tables.scan("raw_documents", "prose")
        .filter(pl.col("metadata").str.contains("leak") | pl.col("text").str.contains("tulips"))
        .collect()
    )
    chosen = lake.tables.read("selected_documents/smoke").join(leak.select("id"), on="id", how="semi")
    assert chosen["kept"].to_list() == [False]
    assert chosen["reason"].to_list() == ["contamination"]


def test_an_exact_copy_is_left_out_once(lake: Lake) -> None:
    chosen = lake.tables.read("selected_documents/smoke")
    assert chosen.filter(pl.col("reason") == "duplicate: exact").height == 1


def test_kept_and_left_out_are_all(lake: Lake) -> None:
    chosen = lake.tables.read("selected_documents/smoke")
    assert chosen.height == lake.tables.read("clean_documents").height
    assert chosen.filter(pl.col("kept") == pl.col("reason").is_not_null()).height == 0


def test_the_model_learnt_and_the_report_says_so(lake: Lake) -> None:
    training = lake.artifacts.current("midtrained_checkpoint/smoke").about
    assert training["loss_end"] < training["loss_start"] - 0.5
    report = (lake.artifacts.current("evaluation_report/smoke").path / "report.html").read_text()
    for word in ("bits per byte", "prose", "code", "left out", "mixture"):
        assert word in report


def test_a_second_run_is_up_to_date(root: Path, instance: dg.DagsterInstance, first: Run) -> None:
    started = time.monotonic()
    second = Run(root, instance)
    assert second.failures() == {}
    assert set(second.said("up to date").values()) == {True}
    assert second.versions() == first.versions()
    assert time.monotonic() - started < 120


def test_a_fresh_project_gives_equal_data_versions(tmp_path: Path, first: Run) -> None:
    write_project(tmp_path)
    with dg.instance_for_test() as other:
        again = Run(tmp_path, other)
    assert again.failures() == {}
    assert again.versions() == first.versions()


def test_lineage_reaches_the_sources_and_verifies(lake: Lake) -> None:
    from midtrain_dagster.audit import lineage

    root = lineage.tree(lake.tables, lake.artifacts, "midtrained_checkpoint/smoke")
    told = "\n".join(lineage.lines(root))
    for name in (
        "packed_sequences/smoke",
        "mixture/smoke",
        "selected_documents/smoke",
        "clean_documents/prose",
        "raw_documents/code",
    ):
        assert name in told
    assert lineage.verify(root, lake.tables, lake.artifacts) == []


def test_a_changed_file_does_not_verify(root: Path, lake: Lake) -> None:
    from midtrain_dagster.audit import lineage

    tokens = lake.artifacts.current("packed_sequences/smoke").path / "train" / "tokens.bin"
    before = tokens.read_bytes()
    tokens.write_bytes(before[:-2] + b"\x01\x00")
    try:
        tree = lineage.tree(lake.tables, lake.artifacts, "midtrained_checkpoint/smoke")
        assert any("packed_sequences/smoke" in line for line in lineage.verify(tree, lake.tables, lake.artifacts))
    finally:
        tokens.write_bytes(before)


def test_a_document_is_followed_to_its_steps_and_back(lake: Lake) -> None:
    from midtrain_dagster.audit.document import document, step

    batch = step(lake.artifacts, "smoke", 3)
    identifier = batch["id"][0]
    known = document(lake.tables, lake.artifacts, identifier, ["smoke"])
    assert known["decisions"]["smoke"]["kept"] is True
    assert 3 in known["seen_by"][0]["steps"]


def test_a_synthetic_document_names_its_parent(lake: Lake) -> None:
    from midtrain_dagster.audit.document import document

    made = lake.tables.read("raw_documents", "asked").row(0, named=True)
    known = document(lake.tables, lake.artifacts, made["id"], ["smoke"])
    assert known["parents"][0]["source"] == "prose"
    assert known["document"]["generator"]["model"] == "fake"
    assert known["parents"][0]["id"] == made["parent_ids"][0]


def test_cards_say_what_went_in_and_what_came_out(lake: Lake) -> None:
    import yaml
    from huggingface_hub import DatasetCard, ModelCard

    data = lake.artifacts.current("data_card/smoke").path
    card = DatasetCard((data / "README.md").read_text())
    assert set(card.data.license) >= {"cc0-1.0", "mit"}
    assert card.data.size_categories == "n<1K"
    assert "| prose |" in card.text
    described = json.loads((data / "croissant.json").read_text())
    (file,) = described["distribution"]
    content = (data / file["contentUrl"]).read_bytes()
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    fields = {field["source"]["extract"]["column"] for field in described["recordSet"][0]["field"]}
    documents = pl.read_parquet(data / "documents.parquet")
    assert fields == set(documents.columns)
    assert documents["license"].null_count() < len(documents)
    model = (lake.artifacts.current("model_card/smoke").path / "README.md").read_text()
    results = yaml.safe_load(model.split("---")[1])["model-index"][0]["results"]
    domains = pl.read_parquet(lake.artifacts.current("evaluation_report/smoke").path / "domains.parquet")
    told = {row["dataset"]["name"]: row["metrics"][0]["value"] for row in results}
    assert len(told) == len(results)
    for domain, after in domains.select("domain", "mid").iter_rows():
        assert told[f"held-out {domain} text"] == pytest.approx(after, abs=1e-5)
    assert ModelCard(model).data.library_name == "transformers"
    assert "Withdrawn since" not in model


def test_the_account_names_every_asset_and_the_page_opens(lake: Lake, first: Run) -> None:
    lines = lake.ledger.lines().filter(pl.col("run") == first.result.run_id)
    assert set(lines["asset"]) == set(first.made)
    assert lines["cpu_seconds"].min() >= 0
    assert lines.filter(pl.col("asset") == "midtrained_checkpoint/smoke")["cpu_seconds"].item() > 0.1
    page = (lake.artifacts.current("cost_report/smoke").path / "costs.html").read_text()
    for word in ("For each point gained", "By stage", "midtrained_checkpoint/smoke"):
        assert word in page


def test_columns_say_where_they_come_from(first: Run) -> None:
    def deps(asset: str, column: str) -> set[tuple[str, str]]:
        found = first.made[asset].metadata["dagster/column_lineage"].value.deps_by_column[column]
        return {(dep.asset_key.to_user_string(), dep.column_name) for dep in found}

    assert deps("clean_documents/prose", "text_hash") == {("raw_documents/prose", "text")}
    assert deps("clean_documents/prose", "url") == {("raw_documents/prose", "url")}
    assert ("clean_documents/code", "text") in deps("document_ratings/code", "codelike")
    assert ("duplicate_clusters", "exact_cluster") in deps("selected_documents/smoke", "reason")


def test_new_documents_alone_are_worked_on(root: Path, instance: dg.DagsterInstance, first: Run) -> None:
    """Runs last: it changes the project."""
    with (root / "prose.jsonl").open("a") as file:
        for number in range(1000, 1100):
            file.write(json.dumps({"id": f"new{number}", "text": prose(number)}) + "\n")
    grown = Run(root, instance)
    assert grown.failures() == {}
    worked = grown.said("worked on")
    assert worked["raw_documents/prose"] == 100
    assert worked["clean_documents/prose"] == 100
    assert worked["contamination_matches/prose"] == 100
    assert worked["document_ratings/prose"] == 100
    assert worked["duplicate_clusters"] >= 100
    for stage in ("raw_documents", "clean_documents", "contamination_matches", "document_ratings"):
        assert worked[f"{stage}/code"] == 0
    assert grown.versions()["clean_documents/code"] == first.versions()["clean_documents/code"]
    assert grown.versions()["midtrained_checkpoint/smoke"] != first.versions()["midtrained_checkpoint/smoke"]


def test_a_takedown_goes_through_the_graph(root: Path, instance: dg.DagsterInstance, first: Run) -> None:
    """After the growth above: what is withdrawn is gone from every table and model made from then on, and stays gone."""
    from midtrain_dagster.audit import lineage
    from midtrain_dagster.audit.takedown import affected
    from midtrain_dagster.withdrawals import Rule, withdraw

    lake = Lake(root, "lake")
    old = lake.artifacts.current("midtrained_checkpoint/smoke")
    packed = lake.artifacts.current("packed_sequences/smoke")
    identifier = pl.read_parquet(packed.path / "train" / "documents.parquet").filter(source="prose")["id"][0]
    found = affected(lake.tables, lake.artifacts, (Rule("id", identifier),), "none", ["smoke"])
    assert any(row["artifact"].endswith(f"@{old.fingerprint}") for row in found.artifacts)
    withdraw(lake.tables, found.documents, (Rule("id", identifier),), "asked for", "the author", datetime.now(UTC))
    with (root / "prose.jsonl").open("a") as file:  # the source changes, and still holds the document
        file.write(json.dumps({"id": "later", "text": prose(5000)}) + "\n")
    after = Run(root, instance)
    assert after.failures() == {}
    for table in ("raw_documents", "clean_documents", "quality_signals", "document_ratings", "duplicate_clusters"):
        assert identifier not in set(lake.tables.read(table)["id"]), table
    assert identifier not in set(lake.tables.read("selected_documents/smoke")["id"])
    new = lake.artifacts.current("packed_sequences/smoke")
    for documents in new.path.glob("**/documents.parquet"):
        assert identifier not in set(pl.read_parquet(documents)["id"])
    told = "\n".join(lineage.lines(lineage.tree(lake.tables, lake.artifacts, "midtrained_checkpoint/smoke", old.fingerprint)))
    assert "WITHDRAWN since" in told
    assert "asked for" in told
    current = "\n".join(lineage.lines(lineage.tree(lake.tables, lake.artifacts, "midtrained_checkpoint/smoke")))
    assert "WITHDRAWN" not in current
    assert after.checks["nothing_withdrawn_was_read"]


# One step of every stage, and the longest twice.
KILLED_IN = (
    "raw_documents/prose",
    "clean_documents/code",
    "raw_documents/asked",
    "duplicate_clusters",
    "contamination_matches/prose",
    "document_ratings/code",
    "selected_documents/smoke",
    "packed_sequences/smoke",
    "midtrained_checkpoint/smoke",
    "midtrained_checkpoint/smoke",
    "midtrained_evaluation/smoke",
    "evaluation_report/smoke",
)
COMMAND = [sys.executable, "-c", "from midtrain_dagster.cli import main; main()", "run", "--recipe", "smoke"]


@pytest.mark.timeout(1800)
def test_killed_in_every_stage_and_run_again(
    tmp_path: Path, first: Run, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`midtrain run` is killed by SIGKILL somewhere inside a step, run again, killed in the next, and so on; the last run, left
    alone, ends with the data versions of an undisturbed one, and every table holds what its record says."""
    write_project(tmp_path)
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)  # where the paths of dagster.yaml begin
    spent = {s.step_key: s.end_time - s.start_time for s in instance.get_run_step_stats(first.result.run_id)}
    rng = random.Random(20261127)
    with dg.DagsterInstance.from_config(str(tmp_path)) as shown:
        for asset in KILLED_IN:
            step = asset.replace("/", "__")
            seconds = rng.uniform(0.0, spent[step])
            assert kill_in_step(tmp_path, shown, step, seconds), f"{asset} ended before it was killed"
        last = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True)
        assert last.returncode == 0, last.stderr[-2000:]
        for asset, version in first.versions().items():
            event = shown.get_latest_materialization_event(dg.AssetKey(asset.split("/")))
            assert event is not None, asset
            assert event.asset_materialization.tags["dagster/data_version"] == version, asset
    lake = Lake(tmp_path, "lake")
    for table in ("raw_documents", "clean_documents", "quality_signals", "document_ratings", "contamination_matches"):
        for record in lake.tables.records(table):
            rows = lake.tables.read(table, record.asset.rsplit("/", 1)[1])
            assert (digest(rows), rows.height) == (record.digest, record.rows), record.asset


def kill_in_step(root: Path, instance: dg.DagsterInstance, step: str, seconds: float) -> bool:
    """Start `midtrain run`, SIGKILL it that many seconds after the step began; False where the run ended before."""
    known = instance.get_runs_count()
    with (root / "killed.log").open("w") as log:
        run = subprocess.Popen(COMMAND, cwd=root, stdout=log, stderr=log)
        while run.poll() is None:
            runs = instance.get_runs(limit=1) if instance.get_runs_count() > known else []
            logs = instance.all_logs(runs[0].run_id, of_type=dg.DagsterEventType.STEP_START) if runs else []
            if any(entry.step_key == step for entry in logs):
                time.sleep(seconds)
                break
            time.sleep(0.05)
        killed = run.poll() is None
        run.kill()
        run.wait()
    return killed
