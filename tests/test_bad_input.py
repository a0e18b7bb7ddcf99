"""Bad input is met with a clear error, or with a counted, kept reject; nothing is lost silently."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.collect.warc import write_warc
from midtrain_dagster.project import project as projects
from resources.lake import Lake


def materialize(file: Path, *keys: str) -> dg.ExecuteInProcessResult:
    project = projects.load(file)
    definitions = composed.definitions(project, file.parent)
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        return job.execute_in_process(
            instance=instance, raise_on_error=False, asset_selection=[dg.AssetKey(key.split("/")) for key in keys]
        )


def with_source(file: Path, **source: object) -> Path:
    """The project with one more source."""
    values = yaml.safe_load(file.read_text())
    values["sources"].append({"name": "extra", "domain": "web", **source})
    file.write_text(yaml.safe_dump(values))
    return file


def failure(result: dg.ExecuteInProcessResult) -> str:
    events = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    assert len(events) == 1
    error = events[0].step_failure_data.error
    return (error.cause or error).message


def rejects(file: Path) -> dict[str, int]:
    rows = Lake(file.parent, "lake").tables.read("rejected_records", "extra")
    return dict(rows.group_by("reason").len().iter_rows())


def test_a_truncated_warc(project: Path) -> None:
    from datetime import UTC, datetime

    path = project.parent / "cut.warc.gz"
    body = (
        "<html><body><main>"
        + "".join(f"<p>Paragraph {i} of a page that says something.</p>" for i in range(40))
        + "</main></body></html>"
    )
    write_warc(path, [(f"https://example.org/{i}", body, datetime(2026, 1, 1, tzinfo=UTC)) for i in range(5)])
    path.write_bytes(path.read_bytes()[:-200])
    result = materialize(with_source(project, kind="warc", location="cut.warc.gz"), "raw_documents/extra")
    assert result.success
    assert sum(rejects(project).values()) >= 1
    assert Lake(project.parent, "lake").tables.read("raw_documents", "extra").height >= 1


def test_a_line_that_is_no_json(project: Path) -> None:
    (project.parent / "bad.jsonl").write_text(
        '{"id": "a", "text": "fine"}\n{"id": "b", "text": \n{"id": "c", "text": "fine too"}\n'
    )
    result = materialize(with_source(project, kind="jsonl", location="bad.jsonl"), "raw_documents/extra")
    assert result.success
    assert rejects(project) == {"not JSON": 1}
    assert Lake(project.parent, "lake").tables.read("raw_documents", "extra").height == 2


def test_an_empty_source_goes_through_every_stage(project: Path) -> None:
    (project.parent / "empty.jsonl").write_text("")
    file = with_source(project, kind="jsonl", location="empty.jsonl")
    keys = ["raw_documents/extra", "clean_documents/extra", "contamination_matches/extra", "benchmark_questions"]
    assert materialize(file, *keys).success
    assert Lake(file.parent, "lake").tables.read("clean_documents", "extra").height == 0


def test_a_source_path_that_does_not_exist(project: Path) -> None:
    result = materialize(with_source(project, kind="jsonl", location="nowhere.jsonl"), "raw_documents/extra")
    assert "nowhere.jsonl: there is no such file or directory" in failure(result)


def test_a_model_directory_without_weights(project: Path) -> None:
    (project.parent / "model").mkdir()
    (project.parent / "model" / "config.json").write_text('{"model_type": "llama"}')
    from midtrain_dagster.recipes import named as recipes

    text = (recipes.folder() / "smoke.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("base:"))
    (project.parent / "mine.yaml").write_text(text.replace(line, "base: {kind: local, path: model}"))
    values = yaml.safe_load(project.read_text()) | {"recipes": ["mine.yaml"]}
    project.write_text(yaml.safe_dump(values))
    assert "a model directory without weights" in failure(materialize(project, "base_checkpoint/smoke"))


@pytest.mark.parametrize(
    "broken", ["sources: 3", "sources: []", "nonsense: [", "sources:\n  - {name: a, kind: telepathy, location: x}"]
)
def test_a_broken_project_file_is_named(tmp_path: Path, broken: str) -> None:
    from midtrain_dagster.errors import MidtrainError

    (tmp_path / "midtrain.yaml").write_text(broken)
    with pytest.raises(MidtrainError, match=r"midtrain\.yaml"):
        projects.load(tmp_path / "midtrain.yaml")
