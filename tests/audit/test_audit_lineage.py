"""What is stored is compared with what was written down about it, old versions too."""

from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster.artifacts import Artifacts
from midtrain_dagster.audit.lineage import table_nodes, verify
from midtrain_dagster.documents import documents
from midtrain_dagster.repair import damages
from midtrain_dagster.tables import Record, Tables, digest

ROWS = documents([{"id": name, "text": f"About {name}, at length.", "source": "web"} for name in ("eels", "weirs")])


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")


def put(tables: Tables, rows: pl.DataFrame, source: str, mark: str) -> None:
    record = Record(f"rated/{source}", mark, "", digest(rows), len(rows), {}, {})
    tables.commit("rated", source, rows, record, replace=True)


def problems(tables: Tables, version: int) -> list[str]:
    artifacts = Artifacts(Path(tables.root))
    return [problem for node in table_nodes(tables, "rated", version, {}) for problem in verify(node, tables, artifacts)]


def test_a_column_that_a_table_gets_later_damages_nothing(tables: Tables) -> None:
    """A rater is added: versions and sources that do not have its column are what they were."""
    put(tables, ROWS, "web", "first")
    put(tables, ROWS.with_columns(edu=pl.lit(3.5)), "web", "second")
    put(tables, ROWS.with_columns(source=pl.lit("books"), math=pl.lit(True)), "books", "first")
    assert [problems(tables, version) for version in (0, 1, 2)] == [[], [], []]
    assert damages(tables) == []


def test_a_text_that_is_another_is_found_though_its_hash_is_as_it_was(tables: Tables) -> None:
    put(tables, ROWS, "web", "first")
    (file,) = tables.files("rated")
    stored = pl.read_parquet(file, hive_partitioning=False)
    stored.with_columns(text=pl.col("text").str.replace("eels", "seals")).write_parquet(file)
    assert problems(tables, 0) == ["rated/web@0: 1 texts are not those that were stored"]
    assert [damage.why for damage in damages(tables)] == ["1 texts are not those that were stored"]


def test_a_value_is_content_and_its_column_too() -> None:
    score = ROWS.with_columns(edu=pl.lit(3.5))
    digests = {digest(rows) for rows in (ROWS, score, score.rename({"edu": "math"}), score.with_columns(edu=pl.lit("3.5")))}
    assert len(digests) == 4
    assert digest(ROWS.with_columns(edu=pl.lit(None, pl.Float64))) == digest(ROWS)
