"""Matches follow the questions: only those that are new are looked for in every document that was looked at before."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from small_project import QUESTIONS, prose, write_lines

from midtrain_dagster import definitions as composed
from midtrain_dagster.decontaminate import match as matching
from midtrain_dagster.project import project as projects
from resources.lake import Lake

KEYS = ("raw_documents/prose", "clean_documents/prose", "benchmark_questions", "contamination_matches/prose")
KEPT = ["benchmark", "id", "question_id", "score", "start", "end"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(documents, questions) of every call that looks for questions in documents."""
    calls: list[tuple[int, int]] = []
    own = matching.match

    def counted(documents, index, *rest, **named):  # type: ignore[no-untyped-def]
        if len(documents):
            calls.append((len(documents), len(index.questions)))
        return own(documents, index, *rest, **named)

    monkeypatch.setattr("assets.decontaminate.match", counted)
    return calls


def _refresh(file: Path) -> pl.DataFrame:
    project = projects.load(file)
    job = composed.definitions(project, file.parent).resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        selection = [dg.AssetKey(key.split("/")) for key in KEYS]
        assert job.execute_in_process(instance=instance, asset_selection=selection).success
    return Lake(file.parent, "lake").tables.read("contamination_matches", "prose").select(KEPT).sort(KEPT)


@pytest.mark.parametrize("gate", [None, "words >= 5"])
def test_only_new_questions_are_looked_for(project: Path, asked: list[tuple[int, int]], gate: str | None) -> None:
    root = project.parent
    values = yaml.safe_load(project.read_text())
    if gate:
        values["curation"] = {"gates": {"decontaminate": gate}}
        project.write_text(yaml.safe_dump(values))
    write_lines(root / "rows" / "gardener_test.jsonl", QUESTIONS[1:])
    first = _refresh(project)
    documents = asked[0][0]
    assert asked == [(documents, 2)]

    _refresh(project)
    assert len(asked) == 1, "nothing is new, and documents without a match are not looked at again"

    write_lines(root / "rows" / "gardener_test.jsonl", QUESTIONS)
    followed = _refresh(project)
    touched = followed["id"].n_unique()
    assert asked[1:] == [(documents, 1), (touched, 3)], "all questions are looked for where there is something to find alone"
    assert set(followed["question_id"]) > set(first["question_id"])

    write_lines(root / "rows" / "gardener_test.jsonl", QUESTIONS[1:])
    assert _refresh(project).equals(first)
    assert asked[3:] == [(touched, 2)]
    write_lines(root / "prose.jsonl", [{"id": "new", "text": f"{prose(1)}\n\n{QUESTIONS[1]['question']}"}])
    assert not set(_refresh(project)["id"]) & set(first["id"])
    assert asked[4:] == [(1, 2)]
