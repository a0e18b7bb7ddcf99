"""What a recipe does about contamination, through its assets: leave out, cut out, take back; and the last look before training."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from small_project import QUESTIONS, prose, write_project

from assets.cards import packed_documents
from assets.decontaminate import assets, gathering, matched
from assets.judging import TOLD
from assets.last_look import decoded
from midtrain_dagster import definitions as composed
from midtrain_dagster.decontaminate import behaviour
from midtrain_dagster.decontaminate.index import build
from midtrain_dagster.decontaminate.questions import of_rows
from midtrain_dagster.documents import documents, text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import project as projects
from midtrain_dagster.recipes.decontamination import METHODS, Decontamination
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.sandbox import Sandbox
from midtrain_dagster.sequences import Sequences
from resources.embedder import Embedder
from resources.lake import Lake

ROOT = Path(__file__).parents[2]
PACKED = "packed_sequences/mine"
MADE_FROM_PACKED = {"training_plan/mine", "midtrained_checkpoint/mine", "midtrained_evaluation/mine", "evaluation_report/mine"}


SMOKE = yaml.safe_load((ROOT / "midtrain_dagster" / "recipes" / "smoke.yaml").read_text())
QUESTION = QUESTIONS[0]["question"]
BEFORE, AFTER = (" ".join(prose(n) for n in numbers) for numbers in ((501, 502), (503, 504)))


class Made:
    """One run of some assets, and of their checks, under a recipe with these settings."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, last: str, **settings: Any):
        recipe = {**SMOKE, "name": "mine", "mixture": {"method": "natural", "component_column": "domain"}, **settings}
        (root / "mine.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        self.recipe = Recipe.check(recipe, "mine.yaml")
        definitions = composed.definitions(projects.load(root / "midtrain.yaml"), root)
        chosen = dg.AssetSelection.keys(last.split("/")).upstream()
        job = dg.Definitions(
            assets=definitions.assets,
            asset_checks=definitions.asset_checks,
            resources=definitions.resources,
            jobs=[dg.define_asset_job("some", selection=chosen)],
        ).resolve_job_def("some")
        self.result = job.execute_in_process(instance=instance, raise_on_error=False)
        self.made = {
            event.asset_key.to_user_string(): {k: v.value for k, v in event.materialization.metadata.items()}
            for event in self.result.get_asset_materialization_events()
            if event.asset_key
        }
        self.checks = {check.check_name: check for check in self.result.get_asset_check_evaluations()}
        self.lake = Lake(root, "lake")

    def failures(self) -> dict[str, str]:
        events = [e for e in self.result.all_events if e.event_type_value == "STEP_FAILURE"]
        return {e.step_key: (e.step_failure_data.error.cause or e.step_failure_data.error).message for e in events}

    def fate(self, identifier: str) -> dict[str, Any]:
        return dict(self.lake.tables.read("selected_documents/mine").filter(id=identifier).row(0, named=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The small project without generator and rater, and with a page that holds a question in its middle."""
    file = write_project(tmp_path)
    with (tmp_path / "prose.jsonl").open("a") as lines:
        lines.write(json.dumps({"id": "page", "text": f"{BEFORE}\n\n{QUESTION}\n\n{AFTER}"}) + "\n")
    values = yaml.safe_load(file.read_text()) | {"generators": [], "raters": [], "recipes": ["mine.yaml"]}
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path


@pytest.fixture
def instance(tmp_path: Path) -> Any:
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as found:
        yield found


def page(lake: Lake) -> dict[str, Any]:
    rows = lake.tables.scan("clean_documents").filter(pl.col("text").str.starts_with(BEFORE)).collect()
    return dict(rows.row(0, named=True))


def trained_texts(lake: Lake) -> pl.DataFrame:
    packed, base = lake.artifacts.current(PACKED), lake.artifacts.current("base_checkpoint/mine")
    return pl.concat(decoded(Sequences.open(packed.path / "train"), base.path / "model"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_out_the_page_that_holds_a_question(root: Path, instance: dg.DagsterInstance, method: str) -> None:
    made = Made(root, instance, "selected_documents/mine", decontamination={"method": method})
    assert made.failures() == {}
    held = page(made.lake)["id"]
    matches = made.lake.tables.read("contamination_matches")
    assert set(matches["method"]) == {method}
    assert held in set(matches["id"])
    assert made.fate(held)["reason"] == "contamination"
    fates = made.lake.tables.read("selected_documents/mine")["reason"]
    assert (fates == "contamination").sum() <= 4  # the page, and what the small project plants


def test_an_allow_list_takes_back_a_decision_and_not_its_evidence(root: Path, instance: dg.DagsterInstance) -> None:
    last = "selected_documents/mine"
    first = Made(root, instance, last)
    assert first.failures() == {}
    held = page(first.lake)["id"]
    assert first.fate(held)["reason"] == "contamination"
    matches = first.lake.tables.read("contamination_matches").filter(id=held).sort("question_id")
    pairs = [f"{held}\t{question}" for question in matches["question_id"].unique(maintain_order=True)]
    evidence = first.lake.tables.version("contamination_matches")

    (root / "allowed.txt").write_text("\n".join(["# not a copy", *pairs]))
    allowing = {"decontamination": {"allow_list": "allowed.txt"}}
    second = Made(root, instance, last, **allowing)
    assert second.fate(held)["kept"]
    assert second.lake.tables.version("contamination_matches") == evidence
    record = second.lake.tables.record(last, last)
    assert record is not None
    assert record.about["allow-list"] == pairs

    (root / "allowed.txt").write_text("another-document\n")  # the same path, other content
    third = Made(root, instance, last, **allowing)
    assert third.fate(held)["reason"] == "contamination"
    assert third.lake.tables.version("contamination_matches") == evidence
    assert third.made[last]["up to date"] is False
    assert Made(root, instance, last, **allowing).made[last]["up to date"] is True


def test_a_question_is_cut_out_of_the_packed_text_and_accounted_for(root: Path, instance: dg.DagsterInstance) -> None:
    cutting = {"action": "cut", "cutting": {"margin": 20, "shortest": 100}}
    made = Made(root, instance, PACKED, decontamination=cutting)
    assert made.failures() == {}
    before = page(made.lake)
    assert made.fate(before["id"])["kept"]
    account = made.lake.tables.read("cut_spans/mine")
    account = account.filter(id=before["id"])
    gone = before["text"][account["start"][0] : account["end"][0]]
    assert QUESTION.rstrip("?") in gone
    assert (account["reason"][0], account["benchmark"][0]) == ("contamination", "gardener_test")
    packed = made.lake.artifacts.current(PACKED).path / "train" / "documents.parquet"
    assert pl.read_parquet(packed).filter(id=before["id"])["text_hash"][0] == account["left_hash"][0]
    read = trained_texts(made.lake).filter(id=before["id"])["text"][0].removesuffix("<|endoftext|>")
    assert text_hash(read) == account["left_hash"][0]
    assert BEFORE[:100] in read
    assert AFTER[-100:] in read
    assert "tulips" not in read
    assert made.fate(before["id"])["characters"] == len(read)
    said = packed_documents(made.lake, made.recipe).filter(id=before["id"]).row(0, named=True)
    assert (said["characters"], said["cut_out"]) == (len(read), len(before["text"]) - len(read))
    assert said["cut_out"] > len(QUESTION)
    assert made.checks["no_benchmark_question_left"].passed
    assert made.checks["no_benchmark_question_left"].metadata["questions looked for"].value == 3

    dropped = Made(root, instance, PACKED)
    assert dropped.fate(before["id"])["reason"] == "contamination"
    assert dropped.lake.tables.read("cut_spans/mine").is_empty()
    assert "tulips" not in " ".join(trained_texts(dropped.lake)["text"])


def test_a_document_of_which_too_little_is_left_is_left_out(root: Path, instance: dg.DagsterInstance) -> None:
    made = Made(root, instance, "selected_documents/mine", decontamination={"action": "cut", "cutting": {"margin": 5000}})
    assert made.fate(page(made.lake)["id"])["reason"] == "contamination"
    assert made.lake.tables.read("cut_spans/mine").is_empty()


def test_what_a_source_repeats_is_cut_out_of_all_its_documents_but_one(root: Path, instance: dg.DagsterInstance) -> None:
    """Also beside a question: cutting a notice out of a contaminated document does not make it clean."""
    notice = "This page is part of the archive and may be copied by anyone who keeps this notice."
    texts = [f"{prose(n)}\n\n{notice}\n\n{prose(n + 1)}" for n in (601, 603, 605)]
    with (root / "prose.jsonl").open("a") as lines:
        for n, text in enumerate([*texts, notice, f" {notice}\n", f"{notice}\n\n{AFTER}\n\n{QUESTION}\n\n{BEFORE}"]):
            lines.write(json.dumps({"id": f"archive {n}", "text": text}) + "\n")
    cutting = {"selection": {**SMOKE["selection"], "deduplication": {"cut": ["paragraphs"]}}}
    unasked = Made(root, instance, "selected_documents/mine", **cutting)
    assert "deduplication: {repeated: true}" in unasked.failures()["selected_documents__mine"]

    project = yaml.safe_load((root / "midtrain.yaml").read_text())
    (root / "midtrain.yaml").write_text(yaml.safe_dump({**project, "deduplication": {"repeated": True, "line_documents": 3}}))
    made = Made(root, instance, PACKED, **cutting)
    assert made.failures() == {}
    before = made.lake.tables.scan("clean_documents").filter(pl.col("text").str.contains("this notice")).sort("id").collect()
    assert len(before) == 6
    account = made.lake.tables.read("cut_spans/mine").join(before.select("id"), on="id", how="semi").sort("id")
    assert account["id"].to_list() == before["id"].to_list()[1:]  # the first keeps it
    assert account["reason"].unique().to_list() == ["repeated"]
    read = trained_texts(made.lake)
    for key, text, left in before.join(account, on="id").select("id", "text", "left").iter_rows():
        if QUESTION in text:
            assert made.fate(key)["reason"] == "contamination"
        elif left == 0:
            assert made.fate(key)["reason"] == "repeated text"
        elif made.fate(key)["kept"]:
            assert read.filter(id=key)["text"][0].removesuffix("<|endoftext|>") == text.replace(f"\n\n{notice}", "")
    assert account.filter(pl.col("left") > 0)["id"].is_in(read["id"]).any()
    assert "".join(read["text"]).count(notice) <= 1


def test_a_planted_question_fails_the_last_check_and_nothing_is_trained_on_it(root: Path, instance: dg.DagsterInstance) -> None:
    """The threshold is out of reach, so selection lets the question through; the packed sequences are looked at all the same."""
    blind = {"selection": {"contamination": {"score": 1.5}}}
    made = Made(root, instance, "evaluation_report/mine", **blind)
    assert not made.result.success
    held = page(made.lake)["id"]
    assert made.fate(held)["kept"]
    check = made.checks["no_benchmark_question_left"]
    assert not check.passed
    assert check.metadata["questions found"].value >= 1
    assert held in check.metadata["found"].value
    assert not MADE_FROM_PACKED & set(made.made)
    assert PACKED in made.made

    leaks = made.lake.tables.scan("clean_documents").filter(pl.col("text").str.contains("tulips")).collect()
    (root / "allowed.txt").write_text("".join(f"{identifier}\n" for identifier in leaks["id"]))
    allowed = Made(root, instance, PACKED, decontamination={"allow_list": "allowed.txt"}, **blind)
    assert allowed.checks["no_benchmark_question_left"].passed
    clean = Made(root, instance, PACKED)
    assert clean.checks["no_benchmark_question_left"].passed
    assert clean.checks["no_benchmark_question_left"].metadata["documents scanned"].value > 20


def test_the_report_shows_what_a_threshold_would_take(root: Path, instance: dg.DagsterInstance) -> None:
    made = Made(root, instance, "contamination_report")
    assert made.failures() == {}
    said = made.made["contamination_report"]
    assert "| gardener_test | prose | 3 | 3 | 2 | 1 |" in said["by benchmark and source"]
    assert "| gardener_test | prose | verbatim | 1 | 2 | 1 |" in said["by evidence"]
    assert "| 1 | True | 2 | 1 | 2 | 2 |" in said["by level of score"]
    assert "| mine | cascade | 0.5 | drop | 2 | 0 |" in said["what recipes do"]
    assert f"**{QUESTION[:40]}" in said["pairs at 1.0"]
    assert page(made.lake)["id"] in said["pairs at 1.0"]


def test_recipes_that_cannot_share_their_evidence_are_refused() -> None:
    """A second recipe with another method would find no match of its own, and train on everything."""
    first, loose = (
        Recipe.check({**SMOKE, "name": n, "decontamination": d}, n) for n, d in (("one", {}), ("two", {"method": "ngram"}))
    )
    with pytest.raises(MidtrainError, match=r"recipes one and two cannot share .* by cascade, the other by ngram"):
        gathering([first, loose])
    deep = {"name": "deep", "selection": {"contamination": {"score": 0.2}}, "decontamination": {"keep_above": 0.1}}
    lower = Recipe.check({**SMOKE, **deep}, "deep")
    with pytest.raises(MidtrainError, match=r"keeps no match under 0\.3, the other's threshold is 0\.2"):
        gathering([first, lower])
    assert gathering([lower, first]) == lower.decontamination


JUDGED = "contamination_matches/prose"
IN_DOUBT = (
    "A gardener sets out 12 rows of roses with 7 bushes in each row and gives away 9 bushes to a cousin who helped her carry "
    "the soil. How many bushes does she keep for her own garden?"
)


def with_judge(root: Path, script: dict[str, str], **more: Any) -> None:
    """A page in doubt, and a teacher that answers by this script."""
    with (root / "prose.jsonl").open("a") as lines:
        lines.write(json.dumps({"id": "roses", "text": IN_DOUBT}) + "\n")
    values = yaml.safe_load((root / "midtrain.yaml").read_text())
    (root / "midtrain.yaml").write_text(yaml.safe_dump({**values, "teacher": {"kind": "fake", "script": script}, **more}))


def test_a_judge_decides_what_is_in_doubt_and_is_paid_once(root: Path, instance: dg.DagsterInstance) -> None:
    with_judge(root, {"roses": "No, it is another."})

    def made(last: str = JUDGED, **settings: Any) -> tuple[Made, dict[str, Any]]:
        run = Made(root, instance, last, decontamination=settings)
        assert run.failures() == {}
        return run, run.made[JUDGED]

    def roses(run: Made) -> dict[str, Any]:
        texts = run.lake.tables.scan("clean_documents").filter(pl.col("text").str.starts_with(IN_DOUBT)).select("id").collect()
        found = run.lake.tables.read("contamination_matches").join(texts, on="id", how="semi")
        return dict(found.sort("score").select("judged", "score").to_dicts()[0])

    alone, said = made()
    assert "no clear answer of the judge" not in said
    assert roses(alone)["score"] > 0.5

    judging, said = made("contamination_report", judge={"questions": 1})
    assert [said[name] for name in TOLD.values()] == [1, 0, 1, 0]
    assert said["cost/teacher_requests"] == 1
    assert roses(judging) == {"judged": False, "score": pytest.approx(0.495)}
    assert "judged another question" in str(judging.made["contamination_report"])
    _, still = made(judge={"questions": 1})
    assert (still["up to date"], still[TOLD["asked"]]) == (True, 0)

    with (root / "prose.jsonl").open("a") as lines:
        lines.write(json.dumps({"id": "roses again", "text": f"{IN_DOUBT}\n\n{BEFORE}"}) + "\n")
    _, said = made(judge={"questions": 1})
    assert said[TOLD["asked"]] == 1, "documents that are as they were are not asked about again"
    _, said = made(judge={"questions": 1, "certain": 0.89})
    assert (said["up to date"], said[TOLD["asked"]], said["cost/teacher_requests"]) == (False, 2, 0), "what it said is kept"


def test_a_judge_needs_a_teacher_and_recipes_one_judge(root: Path) -> None:
    asking, others = (
        Recipe.check({**SMOKE, "name": n, "decontamination": {"judge": j}}, n)
        for n, j in (("one", {}), ("two", {"certain": 0.8}))
    )
    plain = Recipe.check({**SMOKE, "name": "plain"}, "plain")
    project = projects.load(root / "midtrain.yaml").model_copy(update={"teacher": None})
    with pytest.raises(MidtrainError, match=r"recipe one: decontamination\.judge asks the project's teacher.*add a `teacher:`"):
        assets(project, [asking], [])
    assert assets(project, [plain], [])
    for some in ([asking, others], [asking, plain], [plain, asking]):
        with pytest.raises(MidtrainError, match=r"cannot share a project's evidence .* they ask a judge about other matches"):
            gathering(some)
    strict = Recipe.check(
        {**SMOKE, "name": "strict", "selection": {"contamination": {"score": 0.8}}, "decontamination": {"judge": {}}}, "s"
    )
    with pytest.raises(MidtrainError, match=r"decides about a threshold, of the first 0\.5, of the other 0\.8"):
        gathering([asking, strict])


def test_only_with_a_judge_the_matches_wait_for_the_teacher(root: Path) -> None:
    project = projects.load(root / "midtrain.yaml")
    pools = {}
    for name, judge in (("plain", None), ("judging", {})):
        recipe = Recipe.check({**SMOKE, "name": name, "decontamination": {"judge": judge}}, name)
        found = next(one for one in assets(project, [recipe], []) if one.key.to_user_string() == JUDGED)
        pools[name] = (found.op.pool, "teacher" in found.required_resource_keys)
    assert pools == {"plain": (None, False), "judging": ("teacher", True)}


def test_evidence_says_whether_functions_were_run_and_is_made_again_where_they_can_be(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> dict[str, Any]:
        return Made(root, instance, "contamination_matches/prose").made["contamination_matches/prose"]

    monkeypatch.setattr(behaviour, "sandbox", lambda: None)
    without = made()
    assert without["functions run in"].startswith("not run: nothing isolates them on this machine")
    assert made()["up to date"] is True
    monkeypatch.setattr(behaviour, "sandbox", lambda: Sandbox("bubblewrap"))
    within = made()
    assert (within["functions run in"], within["up to date"]) == ("bubblewrap", False)

    index = build(of_rows("own", [{"question": QUESTION}]), Decontamination())
    none = documents([{"id": "1", "text": BEFORE}]).clear()
    assert matched(index, Embedder(), True, none).is_empty()
    with pytest.raises(MidtrainError, match="some machines of this run isolate functions"):
        matched(index, Embedder(), False, none)


def test_a_threshold_under_the_evidence_is_refused() -> None:
    with pytest.raises(MidtrainError, match=r"keeps no match under 0\.3; lower decontamination\.keep_above"):
        Recipe.check({**SMOKE, "selection": {"contamination": {"score": 0.2}}}, "deep")
