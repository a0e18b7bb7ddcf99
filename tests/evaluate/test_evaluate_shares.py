"""The report's section on the mixture: it says what the runs support, and puts prediction and outcome side by side."""

from typing import Any

import polars as pl
import pytest

from midtrain_dagster.evaluate.report import shares
from midtrain_dagster.evaluate.report.page import Section, page

PLAN: dict[str, Any] = {
    "method": "olmix",
    "paper": "arXiv 2602.12237",
    "runs": 15,
    "parameters": [83136],
    "tokens of a run": 32768,
    "repeats": 3,
    "supported": True,
    "reason": "measured gain 0.1500 nats exceeds the repeat noise of 0.0900",
    "recipe's shares": {"math": 0.25, "code": 0.75},
    "proposed shares": {"math": 0.55, "code": 0.45},
    "shares": {"math": 0.55, "code": 0.45},
    "expected losses": {"math": [4.6, 4.5, 4.9], "code": [5.4, 5.2, 5.5]},
    "recipe's expected losses": {"math": 4.9, "code": 5.3},
    "recipe's measured losses": {"math": 4.95, "code": 5.31},
    "measured losses": {"math": 4.7, "code": 5.6},
    "laws at the chosen mixture": {
        "target": {"share": 0.55, "predicted": 4.65, "low": 4.4, "high": 4.9, "measured": 4.7},
        "general": {"share": 0.45, "predicted": 5.3, "low": 5.2, "high": 5.4, "measured": 5.6},
    },
}
LAW = {
    "target": {"form": "bimix", "paper": "arXiv 2405.14908"},
    "general": {"form": "d_cpt", "paper": "arXiv 2406.01375"},
    "held-out mae, nats": {"target": 0.0812, "general": None},
}
MOVED = pl.DataFrame({"domain": ["math", "code"], "role": ["target", "general"], "relative_change": [-0.113, 0.021]})


def drawn(plan: dict[str, Any], use_plan: bool) -> str:
    part = shares.section(plan, LAW, {"fit": b"png"}, use_plan, MOVED)
    return " ".join(page("x", "", part, []).split())


def test_a_supported_plan_is_said_to_be_mixed_with_its_evidence():
    said = drawn(PLAN, True)
    assert "Another mixture is supported: measured gain 0.1500 nats exceeds" in said
    assert "It was mixed." in said
    assert "15 proxy runs of 83,136 parameters and up to 32,768 tokens" in said
    for number in ("55.0 %", "4.500 … 4.900", "4.650", "0.0812", "−11.3 %", "+2.1 %"):
        assert number in said
    rows = shares.domains(PLAN)
    assert [(r["domain"], r["inside"]) for r in rows] == [("math", True), ("code", False)]
    assert [(r["side"], r["inside"]) for r in shares.sides(PLAN, LAW, MOVED)] == [("target", True), ("general", False)]


def test_what_is_not_supported_or_not_taken_leaves_the_recipe_s_shares():
    no = {**PLAN, "supported": False, "reason": "the data does not support a change", "shares": PLAN["recipe's shares"]}
    no.pop("measured losses")
    said = drawn(no, True)
    assert "The recipe&#39;s own mixture stands: the data does not support a change." in said
    assert "not run" in said
    assert {r["component"]: r["chosen"] for r in shares.components(no, False)} == no["recipe's shares"]
    assert "use_plan: false" in drawn(PLAN, False)
    section: Section = shares.section(PLAN, LAW, {}, False, MOVED)
    assert [r["chosen"] for r in section.values["components"]] == pytest.approx([0.75, 0.25])
