"""A withdrawn document is gone for good, with what was made of it; every checkpoint that read it says so."""

from datetime import UTC, datetime
from pathlib import Path

import lakes
import numpy as np
import polars as pl
import pytest

from midtrain_dagster.audit import spans
from midtrain_dagster.audit.document import step, uses
from midtrain_dagster.audit.spans import Packed, Reading
from midtrain_dagster.audit.takedown import affected, marks
from midtrain_dagster.documents import document_id
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.tables import Record, Tables, digest
from midtrain_dagster.withdrawals import Rule, enforce, meets, withdraw

A = document_id("web", "https://example.org/a")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def take_down(tables, artifacts, *rules: Rule, copies: str = "none"):
    touched = affected(tables, artifacts, rules, copies, [lakes.RECIPE])
    withdraw(tables, touched.documents, rules, "the author asked", "legal", NOW)
    return touched


def addresses(tables: Tables) -> list[str]:
    return sorted(tables.read("raw_documents")["url"])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("id", A), ["https://example.org/a"]),
        (Rule("url", "http://example.org/a#top"), ["https://example.org/a"]),
        (Rule("url", "https://example.org/*"), ["https://example.org/a", "https://example.org/b"]),
        (Rule("url", "https://example.org/"), []),
        (Rule("domain", "example.org"), ["https://example.org/a", "https://example.org/b", "https://www.example.org/c"]),
        (Rule("domain", "ample.org"), []),
        (Rule("domain", "math"), []),
        (Rule("license", "none"), ["https://other.net/a", "https://other.net/b"]),
        (Rule("license", "cc-by-4.0"), ["https://example.org/a", "https://example.org/b", "https://www.example.org/c"]),
        (Rule("url", "'; drop table x; --"), []),
    ],
)
def test_a_rule_finds_what_it_says(tmp_path: Path, rule: Rule, expected: list[str]) -> None:
    tables, _ = lakes.filled(tmp_path)
    frame = tables.read("raw_documents", "web").with_columns(told=meets([rule]))
    assert sorted(frame.drop_nulls("told")["url"]) == expected


def test_what_is_affected_is_shown_before_anything_is_written(tmp_path: Path) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    touched = affected(tables, artifacts, (Rule("id", A),), "none", [lakes.RECIPE]).values()
    assert touched["by_source"] == {"web": 1, "written": 2}  # with the document made from it, and the one made from that
    assert touched["made_from_them"] == 2
    assert touched["copies_not_withdrawn"] == {"exact": 1}
    assert touched["tables"] == {"raw_documents": 3}
    packed, checkpoint = touched["artifacts"]
    assert packed == {"artifact": "packed_sequences/mine@p1", "documents": 1}
    assert checkpoint["artifact"] == "midtrained_checkpoint/mine@c1"
    assert (checkpoint["documents"], checkpoint["times"], checkpoint["tokens"]) == (1, 1, 6)
    assert checkpoint["share_of_tokens"] == pytest.approx(6 / 32)
    assert len(addresses(tables)) == 7
    assert not tables.exists("takedowns")


def test_every_table_that_names_a_document_is_counted(tmp_path: Path) -> None:
    """Whatever a stage calls its table: nobody has to add it to a list."""
    tables, artifacts = lakes.filled(tmp_path)
    made = {"of_tomorrow": {"id": [A, A, "another"]}, "asked/mine": {"parent_id": [A]}, "about_nobody": {"question_id": [A]}}
    for name, columns in made.items():
        rows = pl.DataFrame(columns).with_columns(source=pl.lit("all"))
        tables.commit(name, "all", rows, Record(name, "1", "", digest(rows), len(rows), {}, {}), replace=True)
    touched = affected(tables, artifacts, (Rule("id", A),), "none", [])
    assert touched.tables == {"asked/mine": 1, "of_tomorrow": 2, "raw_documents": 3}
    take_down(tables, artifacts, Rule("id", A))
    again = affected(tables, artifacts, (Rule("id", A),), "none", [])
    assert "withdrawn_documents" not in again.tables  # the tombstones stay


def test_a_withdrawn_document_does_not_come_back(tmp_path: Path) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    take_down(tables, artifacts, Rule("id", A))
    left = ["https://example.org/b", "https://other.net/a", "https://other.net/b", "https://www.example.org/c"]
    assert addresses(tables) == left
    again = lakes.refresh(tables, "web", [*lakes.rows("web", lakes.WEB), *lakes.rows("web", {"https://new.org/": "new"})])
    assert (again.worked, again.gone) == (1, 0)
    lakes.refresh(tables, "written", [*lakes.written(), *lakes.rows("written", {"made:3": "x"}, {"made:3": [A]})])
    assert addresses(tables) == sorted([*left, "https://new.org/"])
    assert set(tables.read("rejected_records").filter(reason="withdrawn")["detail"]) == {
        f"id {A}",
        *(f"id {row['id']}" for row in lakes.written()),
        f"made from {A}",
    }


def test_an_unchanged_source_is_not_read_again_because_of_a_takedown(tmp_path: Path) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    take_down(tables, artifacts, Rule("id", A))
    again = lakes.refresh(tables, "web", lakes.rows("web", lakes.WEB))
    assert (again.changed, again.rows) == (False, 4)


def test_a_rule_bars_pages_that_were_never_seen(tmp_path: Path) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    take_down(tables, artifacts, Rule("domain", "example.org"))
    lakes.refresh(tables, "mirror", lakes.rows("mirror", {"http://new.example.org/z": "z", "http://fine.org/": "y"}))
    assert addresses(tables) == ["http://fine.org/", "https://other.net/a", "https://other.net/b"]


def test_copies_go_too_where_asked(tmp_path: Path) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    touched = take_down(tables, artifacts, Rule("id", A), copies="exact")
    assert f"copy of {A}" in touched.documents["via"].to_list()
    assert "https://other.net/a" not in addresses(tables)


def test_checkpoints_that_read_it_are_marked_and_others_are_not(tmp_path: Path) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    checkpoint, packed = artifacts.current("midtrained_checkpoint/mine"), artifacts.current("packed_sequences/mine")
    assert marks(tables, "mine", checkpoint, packed) == []
    take_down(tables, artifacts, Rule("url", "https://other.net/b"))  # packed, but the run ended before it
    assert marks(tables, "mine", checkpoint, packed) == []
    take_down(tables, artifacts, Rule("id", A))
    (mark,) = marks(tables, "mine", checkpoint, packed)
    assert (mark["reason"], mark["requested_by"], mark["documents"], mark["tokens"]) == ("the author asked", "legal", 1, 6)


def test_killed_between_tombstone_and_withdrawal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    commit = Tables.commit

    def dies(self, name, *arguments, **more):
        if name == "raw_documents":
            raise KeyboardInterrupt
        return commit(self, name, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "commit", dies)
        with pytest.raises(KeyboardInterrupt):
            take_down(tables, artifacts, Rule("id", A))
    assert "https://example.org/a" in addresses(tables)
    assert enforce(tables, "web") == 1
    assert enforce(tables, "web") == 0
    assert "https://example.org/a" not in addresses(tables)


def test_a_document_that_its_source_no_longer_has_is_found_in_what_was_made_of_it(tmp_path: Path) -> None:
    tables, artifacts = lakes.filled(tmp_path)
    lakes.refresh(tables, "web", lakes.rows("web", {"https://other.net/b": "another page"}))
    touched = affected(tables, artifacts, (Rule("id", A),), "none", [lakes.RECIPE])
    assert [row["artifact"] for row in touched.values()["artifacts"]] == [
        "packed_sequences/mine@p1",
        "midtrained_checkpoint/mine@c1",
    ]


def test_steps_follow_the_order_in_which_a_run_read(tmp_path: Path) -> None:
    _, artifacts = lakes.filled(tmp_path, order=[5, 3, 0, 1])
    (use,) = uses(artifacts, "mine", A)
    assert (use["sequences"], use["steps"], use["times"], use["tokens"]) == ([0, 5], [1, 2], 2, 12)
    assert step(artifacts, "mine", 1)["sequence"].to_list() == [3, 5]
    assert uses(artifacts, "mine", document_id("web", "https://other.net/b")) == []  # sequence 4 was never read
    with pytest.raises(MidtrainError, match="steps 1 to 2"):
        step(artifacts, "mine", 3)


def test_data_that_repeats_is_counted_each_time(tmp_path: Path) -> None:
    _, artifacts = lakes.filled(tmp_path, steps=(6, 12, 13))
    (use,) = uses(artifacts, "mine", A)
    assert (use["steps"], use["times"]) == ([1, 2, 3], 5)
    run = Reading("", np.asarray([0, 6, 12, 13]), None, 6)
    assert run.times(np.arange(6)).tolist() == [3, 2, 2, 2, 2, 2]


def test_the_index_answers_as_a_look_at_every_span_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, artifacts = lakes.filled(tmp_path)
    folder = artifacts.current("packed_sequences/mine").path / "train"
    rng = np.random.default_rng(0)
    many = np.zeros((5000, 6), np.int64)
    many[:, 0], many[:, 4] = np.sort(rng.integers(0, 900, 5000)), rng.integers(0, 700, 5000)
    np.save(folder / "spans.npy", many)
    packed = Packed(folder, tmp_path / "cache")
    plain = {number: packed.of_documents(np.asarray([number])) for number in (0, 13, 699)}
    monkeypatch.setattr(spans, "FEW", 0)
    monkeypatch.setattr(spans, "BLOCK", 999)
    for number, rows in plain.items():
        assert np.array_equal(packed.of_documents(np.asarray([number])), rows)
        assert len(rows)
    wanted = np.asarray([13, 699])
    assert len(packed.of_documents(wanted)) == len(plain[13]) + len(plain[699])
    assert packed.of_sequences(np.asarray([3, 7]))[:, 0].tolist() == many[np.isin(many[:, 0], [3, 7]), 0].tolist()
