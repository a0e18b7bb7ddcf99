"""The report on made samples: what it says in the first screen, marks what leaks explain, and leaves nothing silent."""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from midtrain_dagster.evaluate.compare import changes, compare
from midtrain_dagster.evaluate.curve import agreement, curve, first
from midtrain_dagster.evaluate.domains import compare_domains
from midtrain_dagster.evaluate.report import benchmarks, headline, held_out, kept, learning, long_context, questions, words
from midtrain_dagster.evaluate.report.page import page
from midtrain_dagster.evaluate.samples import SAMPLES_SCHEMA
from midtrain_dagster.evaluate.verdicts import Judging
from midtrain_dagster.recipes import named as recipes

RECIPE = recipes.load("demo")


def samples(name: str, domain: str, scores: list[float], bits: list[float], **doc: Any) -> pl.DataFrame:
    rows = [
        {
            "benchmark": name,
            "domain": domain,
            "task": name,
            "question_id": f"{name}{i}",
            "file": f"{name}_test",
            "row": i,
            "doc": json.dumps({"question": f"{name} {i}?", **{key: value[i % len(value)] for key, value in doc.items()}}),
            "prompt": f"<b>{name}</b> {i}? Answer:",
            "gold": " yes",
            "output": " yes" if score else " no",
            "filter": "none",
            "metric": "acc",
            "primary": True,
            "score": score,
            "gold_bits": bits[i],
            "gold_bytes": 4,
        }
        for i, score in enumerate(scores)
    ]
    return pl.DataFrame(rows, schema=SAMPLES_SCHEMA)


BITS = [8.0 + i % 3 for i in range(20)]
BASE = pl.concat([samples("gsm8k", "math", [0.0] * 20, BITS), samples("arc_easy", "general", [1.0] * 20, BITS)])
MID = pl.concat(
    [samples("gsm8k", "math", [1.0] * 12 + [0.0] * 8, BITS), samples("arc_easy", "general", [0.0] * 12 + [1.0] * 8, BITS)]
)


def texts(shift: float) -> pl.DataFrame:
    rows = [
        (f"{d}{i}", d, 2000.0 + 10 * i - (shift if d == "math" else 0), 1000, 300)
        for d in ("math", "prose", "code")
        for i in range(12)
    ]
    return pl.DataFrame(rows, schema=["id", "domain", "bits", "bytes", "tokens"], orient="row")


def test_the_first_screen_says_gained_lost_and_what_leaks_explain():
    leaked = pl.DataFrame({"benchmark": "gsm8k_test", "row": list(range(12))})
    table = compare(BASE, MID, leaked, judging=Judging(resamples=500))
    domains = compare_domains(BASE, MID, leaked, judging=Judging(resamples=500))
    contrast = held_out.contrast(texts(0), texts(200), RECIPE)
    assert dict(contrast.select("domain", "verdict").iter_rows()) == {
        "math": "gained",
        "prose": "unchanged",
        "code": "unchanged",
    }
    retained = kept.kept(contrast, domains, RECIPE)
    said = headline.sentences(contrast, table, retained)
    assert said[0][0] == "gained"
    assert "math better: 10" in said[0][1] or "math better: 9" in said[0][1]
    assert ("lost", "It forgot more than the recipe accepts: general knowledge and language (score).") in said
    assert ("gained", "It answers better on GSM8K.") in said
    assert ("lost", "It answers worse on ARC-Easy.") in said
    assert any("gain on GSM8K is not there any more" in sentence for _, sentence in said)
    training = {"tokens": 1, "steps": 1, "seconds": 1.0}
    html = page(
        "<demo>",
        "made",
        headline.section(contrast, table, retained, training),
        [
            kept.section(retained, RECIPE),
            benchmarks.section(table, domains, {"gsm8k": ["3 shots where the convention is 5"]}, 0.95),
            benchmarks.not_run({"mmlu": "no rows"}),
            questions.section(changes(BASE, MID)),  # type: ignore[list-item]
        ],
    )
    for words_ in (
        "the gain disappears",
        "3 shots where the convention is 5",
        "<td>MMLU</td><td>no rows</td>",
        "&lt;b&gt;arc_easy",
    ):
        assert words_ in html
    assert html.count("<details") == 10 + 1
    assert "<b>arc_easy" not in html  # what a model or a row says is text, never markup


def test_nothing_measured_is_said_and_not_drawn():
    nothing = pl.DataFrame(schema=SAMPLES_SCHEMA)
    table, domains = compare(nothing, nothing), compare_domains(nothing, nothing)
    contrast = held_out.contrast(texts(0), texts(0), RECIPE)
    said = headline.sentences(contrast, table, kept.kept(contrast, domains, RECIPE))
    assert ("cannot tell", "No benchmark ran.") in said
    html = page("x", "", benchmarks.section(table, domains, {}, 0.95), [])
    assert "No benchmark ran." in html
    assert "<img" not in html
    assert questions.section(changes(nothing, nothing)) is None
    assert long_context.section(long_context.lengths(nothing), long_context.lengths(nothing)) is None


def test_lengths_and_curves():
    probes = samples("ruler", "long_context", [1.0, 0.0, 1.0, 1.0], [8.0, 12.0, 8.0, 12.0], length=[512, 1024])
    table = long_context.lengths(probes)
    assert table.select("length", "questions", "score", "gold_bits_per_byte").rows() == [
        (512, 2, 1.0, 2.0),
        (1024, 2, 0.5, 3.0),
    ]
    part = long_context.section(table, table)
    assert part is not None
    assert len(part.values["parts"][0]["pictures"]) == 2
    scores = curve({0: first(BASE, 5), 4: first(MID, 5)})
    by_domain = learning.by_domain(scores).filter(metric="score", domain="math")
    assert by_domain.select("step", "value").rows() == [(0, 0.0), (4, 1.0)]
    held = learning.held_out_curve(
        {
            0: pl.DataFrame({"domain": ["math"], "bits_per_byte": [2.0]}),
            4: pl.DataFrame({"domain": ["math"], "bits_per_byte": [1.5]}),
        }
    )
    drawn = learning.section(held, scores, agreement([BASE, MID], 5), 5)
    assert len(drawn.values["pictures"]) == 3
    assert all(row["all_questions"] == 20 for row in drawn.values["rows"])
    assert "How far the first questions stand for all" in page("x", "", drawn, [])


def test_numbers_as_people_read_them():
    assert words.score(0.5, "acc") == "50.0 %"
    assert words.change(-0.0123, "gold_bits_per_byte") == "−0.012"
    assert words.change(-0.0001, "acc") == "0.0"
    assert words.score(None, "acc") == "–"


def test_the_command_prints_the_table_and_the_ten_largest_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from midtrain_dagster.cli import main

    for name, some in (("a", BASE), ("b", MID)):
        (tmp_path / name).mkdir()
        some.write_parquet(tmp_path / name / "samples.parquet")
    pl.DataFrame({"benchmark": "gsm8k_test", "row": list(range(12))}).write_parquet(tmp_path / "leaked.parquet")
    command = [
        "midtrain",
        "compare",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--contaminated",
        str(tmp_path / "leaked.parquet"),
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "out")])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert {row["benchmark"] for row in result["comparisons"]} == {"gsm8k", "arc_easy"}
    assert [row["domain"] for row in result["domains"]][-1] == "overall"
    assert len(result["changes"]) == 10
    assert "the gain disappears" in told.err
    assert told.err.count("before:") == 10
    assert (tmp_path / "out" / "comparison.parquet").exists()
    monkeypatch.setattr(sys, "argv", ["midtrain", "compare", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
