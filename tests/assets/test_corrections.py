"""What is said of documents that are there already can be corrected: in the project file, and in the source itself."""

import json
from pathlib import Path
from typing import Any

import pytest
from curation_project import Curated, curated
from test_curation_assets import story

from assets.reading import selection_digest

SOURCE = {"name": "coast", "kind": "jsonl", "location": "in/*.jsonl", "domain": "prose", "license": "MIT"}


def write(root: Path, name: str, numbers: range, **more: Any) -> None:
    (root / "in").mkdir(exist_ok=True)
    rows = [{"id": f"{name}{number}", "text": story(number), **more} for number in numbers]
    (root / "in" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def said(made: Curated, column: str) -> list[dict[Any, int]]:
    """How often each value of a column is in the tables that have it, from collection on."""
    tables = (made.lake.tables.read(name) for name in ("raw_documents", "clean_documents"))
    return [dict(table[column].value_counts().iter_rows()) for table in tables]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "a", range(4))
    write(tmp_path, "b", range(4, 8))
    return tmp_path


def test_another_domain_and_licence_in_the_project_file_reach_the_documents(root: Path) -> None:
    before = selection_digest(curated(root, [SOURCE]).lake, "chosen")
    made = curated(root, [{**SOURCE, "domain": "math", "license": "CC-BY-4.0"}])
    assert (said(made, "domain"), said(made, "license")) == ([{"math": 8}] * 2, [{"CC-BY-4.0": 8}] * 2)
    assert selection_digest(made.lake, "chosen") != before  # so a mixture by domain is made anew
    assert made.said["duplicate_clusters"]["worked on"] == 0  # the texts are what they were
    again = curated(root, [{**SOURCE, "domain": "math", "license": "CC-BY-4.0"}])
    assert {name for name, about in again.said.items() if not about["up to date"]} == set()


def test_a_licence_that_a_file_corrects_is_taken_over_for_its_documents_alone(root: Path) -> None:
    columns = {"columns": {"license": "license"}}
    curated(root, [{**SOURCE, **columns}])
    write(root, "b", range(4, 8), license="CC0-1.0")
    made = curated(root, [{**SOURCE, **columns}])
    assert said(made, "license") == [{"MIT": 4, "CC0-1.0": 4}] * 2
    assert made.said["clean_documents/coast"]["worked on"] == 4
