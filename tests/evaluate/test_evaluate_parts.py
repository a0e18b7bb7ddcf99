"""Known answers for the parts: packing, rows, pass@k, comparison, pieces of documents, scoring functions."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate import rows, verdicts
from midtrain_dagster.evaluate.bits_per_byte import _pieces, by_domain
from midtrain_dagster.evaluate.catalog import MMLU
from midtrain_dagster.evaluate.code import pass_at_k, pass_at_k_of, passes
from midtrain_dagster.evaluate.compare import changes, compare
from midtrain_dagster.evaluate.domains import compare_domains, retention
from midtrain_dagster.evaluate.embedded import cloze_tasks, function_call_rows, needle_rows
from midtrain_dagster.evaluate.packing import trees
from midtrain_dagster.evaluate.responses import Responses
from midtrain_dagster.evaluate.samples import SAMPLES_SCHEMA
from midtrain_dagster.evaluate.tasks import scoring
from midtrain_dagster.evaluate.verdicts import Judging, holm
from midtrain_dagster.files import name_of_rows


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=12), st.integers(1, 30))
def test_every_path_is_its_sequence_and_sees_only_itself(sequences: list[list[int]], budget: int):
    seen: list[int] = []
    for members, tree in trees(sequences, budget):
        seen += members
        assert len(tree.tokens) <= max(budget, max(len(sequences[i]) for i in members))
        for index, path in zip(members, tree.paths, strict=True):
            assert tree.tokens[path].tolist() == sequences[index]
            assert tree.positions[path].tolist() == list(range(len(path)))
            assert np.flatnonzero(tree.mask[path[-1]]).tolist() == sorted(path.tolist())
    assert sorted(seen) == list(range(len(sequences)))


def test_shared_prefixes_are_laid_out_once():
    ((_, tree),) = trees([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 9]], budget=100)
    assert len(tree.tokens) == 6


def test_rows_are_found_by_set_and_split(tmp_path: Path):
    (tmp_path / "gsm8k_test.jsonl").write_text('{"question": "a"}\n\n{"question": "b"}\n')
    (tmp_path / "GSM8K-train.json").write_text('[{"question": "c"}]')
    (tmp_path / "arc_easy").mkdir()
    (tmp_path / "arc_easy" / "validation.jsonl.gz").write_bytes(gzip.compress(b'{"question": "d"}\n'))
    pl.DataFrame({"question": ["e"]}).write_parquet(tmp_path / "nq_open.parquet")
    found = rows.find(tmp_path, ["gsm8k"])
    assert {split: [p.name for p in paths] for split, paths in found.items()} == {
        "test": ["gsm8k_test.jsonl"],
        "train": ["GSM8K-train.json"],
    }
    assert [row.values["question"] for row in rows.read(found["test"])] == ["a", "b"]
    assert list(rows.find(tmp_path, ["arc_easy"])) == ["validation"]
    assert rows.read(rows.find(tmp_path, ["nq_open"])["test"])[0].values == {"question": "e"}
    assert rows.find(tmp_path, ["gsm"]) == {}
    for name in ("mbpp/full/test-00000-of-00001.parquet", "scrolls/gov_report/validation.jsonl", "bbh/word_sorting.json"):
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).touch()
    assert list(rows.find(tmp_path, ["mbpp"])) == ["test"]
    names = {name_of_rows(path) for path in (tmp_path / "hub").rglob("*.*")}
    assert names == {"mbpp_test-00000-of-00001", "gov_report_validation", "word_sorting"}  # never two sets by one name
    assert list(rows.find(tmp_path, ["scrolls_gov_report"])) == ["validation"]
    assert list(rows.find(tmp_path, ["bbh_word_sorting"])) == ["test"]
    assert rows.find(tmp_path / "gsm8k_test.jsonl", ["anything"]) == {"test": [tmp_path / "gsm8k_test.jsonl"]}
    (tmp_path / "bad_test.jsonl").write_text('{"a": 1}\nnot json\n')
    with pytest.raises(MidtrainError, match="line 2"):
        rows.read(rows.find(tmp_path, ["bad"])["test"])
    with pytest.raises(MidtrainError, match="no such directory"):
        rows.find(tmp_path / "missing", ["gsm8k"])


def test_mmlu_rows_without_subject_are_told_apart_by_order():
    names = {subject: subject for subject in MMLU}
    some = [rows.Row("mmlu_validation", i, {"question": str(i)}) for i in range(1531)]
    divided = rows.by_subject(some, names)
    assert [len(divided[s]) for s in ("abstract_algebra", "anatomy", "world_religions")] == [11, 14, 19]
    assert divided["anatomy"][0].number == 11
    assert rows.by_subject(some[:-1], names) is None
    assert sum(rows.MMLU_TEST) == 14042


def test_pass_at_k_is_unbiased():
    assert pass_at_k_of(1, 1, 1) == 1
    assert pass_at_k_of(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k_of(5, 2, 2) == pytest.approx(1 - 3 / 10)  # 3 of the 10 pairs hold no right one
    with pytest.raises(ValueError, match="at least 5"):
        pass_at_k_of(4, 1, 5)
    assert pass_at_k(["assert f(1) == 2"], [["def f(x): return x + 1", "def f(x): return x"]], [1]) == {"pass@1": 0.5}


def test_a_program_that_leaves_early_does_not_pass():
    assert passes("assert 1 + 1 == 2")
    assert not passes("import os; os._exit(0)")
    assert not passes("raise SystemExit(0)")
    assert not passes("assert False")


def _samples(scores: list[float], bits: list[float]) -> pl.DataFrame:
    count = len(scores)
    columns = {
        "benchmark": ["b"] * count,
        "domain": ["math"] * count,
        "question_id": [f"q{i:03}" for i in range(count)],
        "file": ["b_test"] * count,
        "row": list(range(count)),
        "metric": ["acc"] * count,
        "primary": [True] * count,
        "score": scores,
        "gold_bits": bits,
        "gold_bytes": [10] * count,
    }
    return pl.DataFrame({name: columns.get(name, [None] * count) for name in SAMPLES_SCHEMA}, schema=SAMPLES_SCHEMA)


def test_a_gain_that_comes_from_leaked_questions_is_marked():
    base = _samples([0.0] * 100, [20.0] * 100)
    mid = _samples([1.0] * 30 + [0.0] * 70, [20.0] * 100)
    row = compare(base, mid, [f"q{i:03}" for i in range(30)]).row(by_predicate=pl.col("metric") == "acc", named=True)
    assert (row["base"], row["mid"], row["difference"]) == (0.0, pytest.approx(0.3), pytest.approx(0.3))
    assert row["verdict"] == "gained"
    assert row["p_value"] == pytest.approx(2 * 0.5**30)  # McNemar: 30 of 30
    assert (row["set_aside"], row["clean_questions"], row["clean_difference"]) == (30, 70, 0.0)
    assert row["clean_verdict"] == "unchanged"
    assert row["gain_disappears"]
    by_place = compare(base, mid, pl.DataFrame({"benchmark": ["b_test"], "row": [0]}))
    assert by_place["set_aside"].to_list() == [1, 1]


def test_verdicts():
    rng = np.random.default_rng(0)
    base = _samples([0.0] * 40, list(rng.normal(30, 3, 40)))
    better = _samples([0.0] * 40, [bits - 2 - 0.01 * i for i, bits in enumerate(base["gold_bits"])])
    bits = compare(base, better).row(by_predicate=pl.col("metric") == "gold_bits_per_byte", named=True)
    assert bits["verdict"] == "gained"  # fewer bits are better
    assert bits["high"] < 0
    assert compare(better, base)["verdict"].to_list() == ["unchanged", "lost"]
    few = compare(_samples([0.0, 1.0, 0.0], [1.0] * 3), _samples([1.0, 0.0, 1.0], [1.0] * 3))
    assert few.row(by_predicate=pl.col("metric") == "acc", named=True)["verdict"] == "cannot tell"
    assert compare(base.head(0), base)["verdict"].to_list() == []
    every = compare(base, better, base["question_id"].to_list())
    assert every["clean_verdict"].to_list() == ["cannot tell"] * 2
    assert every["clean_base"].to_list() == [None, None]


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_largest_changes_come_first():
    base, mid = _samples([0.0, 0.0, 1.0], [10.0, 10.0, 10.0]), _samples([0.0, 1.0, 1.0], [9.0, 10.0, 4.0])
    assert changes(base, mid, 2)["question_id"].to_list() == ["q001", "q002"]


@given(st.integers(1, 200), st.integers(4, 64))
def test_every_token_is_scored_once_within_the_window(length: int, window: int):
    scored = [i for begin, first, stop in _pieces(length, window) for i in range(first, stop)]
    assert scored == list(range(1, length))
    for begin, first, stop in _pieces(length, window):
        assert begin < first
        assert stop - begin <= window
        assert first == 1 or first - begin >= window // 2


def test_bits_per_byte_by_domain():
    measured = pl.DataFrame({"id": ["a", "b", "c"], "domain": ["x", "x", "y"], "bits": [10.0, 30.0, 0.0], "bytes": [10, 10, 0]})
    table = by_domain(measured, Judging(resamples=500))
    assert table["bits_per_byte"].to_list() == [2.0, None]
    assert table["low"][0] == pytest.approx(1.0)
    assert table["high"][0] == pytest.approx(3.0)


def test_answers_survive_a_cut_line(tmp_path: Path):
    log = Responses(tmp_path / "log.jsonl")
    log.add({"a": [1.5, True]})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('["b", "ha')
    again = Responses(tmp_path / "log.jsonl")
    assert "b" not in again
    again.add({"b": "half"})
    assert Responses(tmp_path / "log.jsonl")["b"] == "half"
    assert Responses(tmp_path / "log.jsonl")["a"] == [1.5, True]


def test_scoring():
    answer = json.dumps({"name": "f", "arguments": {"x": 1}})
    assert scoring.exact_call({"answer": answer}, [f"Sure: {answer} done"]) == {"exact_call": 1.0, "right_name": 1.0}
    assert scoring.exact_call({"answer": answer}, ['{"name": "f", "arguments": {}}']) == {"exact_call": 0.0, "right_name": 1.0}
    assert scoring.best_f1({"answers": ["the red cat"]}, ["Red dog"])["f1"] == pytest.approx(0.5)
    code = {"code": "def f(x): return x * 2", "input": "3", "output": "6"}
    assert scoring.output_predicted(code, ["6"]) == {"exact_match": 1.0}
    assert scoring.output_predicted(code, ["7"]) == {"exact_match": 0.0}
    assert scoring.input_predicted(code, ["1 + 2"]) == {"pass@1": 1.0}


def test_made_questions_are_seeded(tmp_path: Path):
    assert function_call_rows(1, 5) == function_call_rows(1, 5) != function_call_rows(2, 5)
    assert all(row["answer"] in row["context"] for row in needle_rows(0, 6))
    words = " ".join(f"filler{chr(97 + i % 26)}word" for i in range(50)).replace("filler", "some")
    code = 'def f(x):\n    """Doubles."""\n    y = x * 2\n    return y\n'
    documents = pl.DataFrame({"id": ["1", "2"], "text": [f"{words} ending.", code], "domain": ["prose", "code"]})
    written = cloze_tasks(documents, tmp_path)
    cloze = json.loads(written["cloze"].read_text())
    assert cloze["choices"][cloze["answer"]] == "ending"
    assert json.loads(written["code_completion"].read_text())["completion"] == "    y = x * 2\n    return y"


def test_domains_count_each_benchmark_alike():
    few = _samples([0.0] * 10, [20.0] * 10)
    many = _samples([1.0] * 90, [10.0] * 90).with_columns(
        benchmark=pl.lit("c"), question_id="c" + pl.col("question_id"), domain=pl.lit("general")
    )
    base = pl.concat([few, many])
    mid = pl.concat([few.with_columns(score=pl.lit(1.0)), many])
    table = compare_domains(base, mid, judging=Judging(resamples=500))
    scores = {row["domain"]: row for row in table.iter_rows(named=True) if row["metric"] == "score"}
    assert (scores["math"]["base"], scores["math"]["mid"]) == (0.0, 1.0)
    assert (scores["overall"]["base"], scores["overall"]["mid"]) == (0.5, 1.0)  # not 0.9: questions are not the weight
    assert scores["overall"]["benchmarks"] == 2
    assert scores["general"]["verdict"] == "unchanged"
    assert scores["math"]["verdict"] == scores["overall"]["verdict"] == "gained"
    assert retention(table, ("general",), 0.02)["verdict"].to_list() == ["retained", "retained"]
    fallen = retention(compare_domains(mid, base, judging=Judging(resamples=500)), ("math",), 0.02)
    assert fallen.filter(metric="score").select("fall", "verdict").row(0) == (1.0, "lost")
    assert retention(table, ("code",), 0.02).is_empty()
    noisy = compare_domains(
        _samples([1.0, 0.0] * 4, [1.0] * 8), _samples([0.0, 1.0] * 4, [1.0] * 8), judging=Judging(resamples=500)
    )
    assert retention(noisy, ("math",), 0.02).filter(metric="score")["verdict"].to_list() == ["cannot tell"]


def test_many_comparisons_do_not_hide_what_is_beyond_doubt():
    """With few resamples the smallest p that they can say would not survive the correction for a hundred comparisons."""
    bits = [20.0 + i % 3 for i in range(40)]
    moved = [value - 2 - i % 2 for i, value in enumerate(bits)]
    base = pl.concat(
        [
            _samples([0.0] * 40, bits).with_columns(benchmark=pl.lit(f"b{i}"), question_id=f"{i}" + pl.col("question_id"))
            for i in range(100)
        ]
    )
    mid = base.with_columns(gold_bits=pl.Series(moved * 100))
    table = compare(base, mid, judging=Judging(resamples=200)).filter(metric="gold_bits_per_byte")
    assert set(table["verdict"]) == {"gained"}


def test_a_few_questions_that_move_alike_prove_nothing():
    """Two questions, each easier by nearly the same: Student's t alone would call that beyond doubt."""
    table = compare(_samples([0.0] * 2, [9.0, 9.1]), _samples([0.0] * 2, [4.0, 4.1001]), judging=Judging(resamples=500))
    row = table.filter(metric="gold_bits_per_byte").row(0, named=True)
    assert row["p_value"] == 0.5
    assert row["verdict"] == "cannot tell"
    many = compare(
        _samples([0.0] * 12, [9.0, 9.1] * 6), _samples([0.0] * 12, [4.0, 4.1001] * 6), judging=Judging(resamples=500)
    )
    assert many.filter(metric="gold_bits_per_byte")["verdict"].to_list() == ["gained"]


def test_what_did_not_change_is_no_change():
    assert changes(_samples([0.0] * 3, [1.0] * 3), _samples([0.0] * 3, [1.0] * 3)).is_empty()


def test_a_question_that_stands_twice_is_set_aside_twice():
    docs = ['{"id": "1", "question": "a"}', '{"id": "2", "question": "a"}', '{"id": "3", "question": "b"}']
    base = _samples([0.0] * 3, [1.0] * 3).with_columns(doc=pl.Series(docs))
    assert compare(base, base, ["q000"])["set_aside"].to_list() == [2, 2]
    assert compare(base, base, ["q002"])["set_aside"].to_list() == [1, 1]


def test_resampling_in_pieces_draws_the_same(monkeypatch):
    columns = np.random.default_rng(1).normal(size=(3, 50))
    whole = verdicts.resampled(np.random.default_rng(0), columns, 100)
    assert whole.shape == (3, 100)
    monkeypatch.setattr(verdicts, "CELLS", 700)  # 14 draws of 50 rows at a time
    np.testing.assert_allclose(verdicts.resampled(np.random.default_rng(0), columns, 100), whole)
