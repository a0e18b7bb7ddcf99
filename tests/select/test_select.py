"""Which documents are kept, and the reason that the others carry."""

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.selection import (
    Contamination,
    Deduplication,
    DownSample,
    Quota,
    Rule,
    Selection,
    Sources,
    Temperature,
    Threshold,
    UpSample,
)
from midtrain_dagster.select.funnel import funnel, summed
from midtrain_dagster.select.query import build
from midtrain_dagster.select.select import select


def connection(**relations: pl.DataFrame) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    for name, frame in relations.items():
        con.register(name, frame.to_arrow())
    return con


def corpus(size: int = 40, source: str = "web", prefix: str = "d") -> pl.DataFrame:
    ids = [f"{prefix}{n:04}" for n in range(size)]
    return pl.DataFrame(
        {
            "id": ids,
            "text_hash": [f"h{i}" for i in ids],
            "source": source,
            "domain": [("web", "code", "math")[n % 3] for n in range(size)],
            "characters": [100 + n for n in range(size)],
            "tokens": [10 + n for n in range(size)],
        }
    )


def attribute(documents: pl.DataFrame, **columns: list) -> pl.DataFrame:
    return documents.select("id", "text_hash").with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def fate(con: duckdb.DuckDBPyConnection, selection: Selection, seed: int = 0, rulesets=None) -> dict[str, str | None]:
    rows = select(con, selection, seed, rulesets).documents
    assert (rows["kept"] == rows["reason"].is_null()).all()
    assert ((rows["repetitions"] > 0) == rows["kept"]).all()
    return dict(zip(rows["id"], rows["reason"], strict=True))


def test_nothing_asked_keeps_everything():
    documents = corpus(3)
    rows = select(connection(documents=documents), Selection(), 0).documents
    assert rows["kept"].all()
    assert rows["repetitions"].to_list() == [1, 1, 1]
    assert rows["tokens"].to_list() == documents["tokens"].to_list()


def test_the_first_rule_that_fails_is_the_reason():
    documents = corpus(4)
    con = connection(documents=documents, signals=attribute(documents, words=[1, 5, 10, 20], lines=[1, 1, 1, 9]))
    rules = (Rule(name="words", keep="words >= 5"), Rule(name="lines", keep="signal.lines > 1", where="domain <> 'math'"))
    assert fate(con, Selection(rules=rules)) == {"d0000": "words", "d0001": "lines", "d0002": None, "d0003": None}


def test_sources_are_included_and_excluded():
    con = connection(documents=pl.concat([corpus(1, s, s) for s in "abc"]))
    assert fate(con, Selection(sources=Sources(include=("a", "b"), exclude=("b",)))) == {
        "a0000": None,
        "b0000": "source",
        "c0000": "source",
    }


def test_what_was_not_measured_is_no_verdict_and_nan_is_not_large():
    documents = corpus(5)
    ratings = attribute(documents, edu=[3.0, 1.0, float("nan"), None, 3.0])
    ratings = ratings.with_columns(text_hash=pl.when(pl.col("id") == "d0004").then(pl.lit("older")).otherwise("text_hash"))
    con = connection(documents=documents, ratings=ratings)
    missing = "rate.edu: not measured"
    dropped = {"d0000": None, "d0001": "rate.edu", "d0002": missing, "d0003": missing, "d0004": missing}
    assert fate(con, Selection(ratings={"edu": Threshold(at_least=2.5)})) == dropped
    kept = fate(con, Selection(ratings={"edu": Threshold(at_least=2.5, unmeasured="keep")}))
    assert [i for i, reason in kept.items() if reason] == ["d0001"]


def test_contamination_goes_by_the_highest_score():
    documents = corpus(3)
    matches = pl.DataFrame({"id": ["d0000", "d0000", "d0001"], "question": ["q1", "q2", "q1"], "score": [0.2, 0.9, 0.4]})
    con = connection(documents=documents, matches=matches)
    assert fate(con, Selection(contamination=Contamination(score=0.5))) == {
        "d0000": "contamination",
        "d0001": None,
        "d0002": None,
    }
    assert fate(con, Selection(rules=(Rule(name="two", keep="match.questions < 2"),)))["d0000"] == "two"
    with pytest.raises(MidtrainError, match="matches, which were not given"):
        fate(connection(documents=documents), Selection(contamination=Contamination()))


def test_quality_rulesets_come_from_the_caller():
    documents = corpus(2)
    con = connection(documents=documents, signals=attribute(documents, words=[10, 99]))
    rulesets = {"gopher": [Rule(name="too short", keep="words >= 50")]}
    assert fate(con, Selection(quality=("gopher",)), rulesets=rulesets) == {"d0000": "gopher: too short", "d0001": None}
    with pytest.raises(MidtrainError, match="no ruleset c4; there are: gopher"):
        fate(con, Selection(quality=("c4",)), rulesets=rulesets)


@pytest.mark.parametrize(
    ("survivor", "expected"),
    [(("longest",), "d0002"), (("best_rated",), "d0000"), (("preferred_source", "longest"), "d0001")],
)
def test_one_duplicate_survives_by_rule(survivor, expected):
    documents = corpus(4).with_columns(source=pl.Series(["b", "a", "b", "b"]))
    con = connection(
        documents=documents,
        clusters=attribute(documents, exact=[None, None, None, None], near=["n", "n", "n", None]).with_columns(
            pl.col("exact").cast(pl.String)
        ),
        ratings=attribute(documents, edu=[5.0, 1.0, 2.0, 0.0]),
    )
    rule = Deduplication(survivor=survivor, rater="edu", preferred_sources=("a",))
    reasons = fate(con, Selection(deduplication=rule))
    assert [i for i, reason in reasons.items() if reason is None] == sorted([expected, "d0003"])
    assert set(filter(None, reasons.values())) == {"duplicate: near"}


def test_a_duplicate_survives_where_the_better_one_fails_for_itself():
    documents = corpus(2)
    con = connection(documents=documents, clusters=attribute(documents, near=[1, 1]))
    selection = Selection(rules=(Rule(name="long", keep="characters < 101"),), deduplication=Deduplication(by=("near",)))
    assert fate(con, selection) == {"d0000": None, "d0001": "long"}


def test_down_sampling_keeps_its_share_and_nobody_elses_fate_matters():
    small, large = corpus(3000), pl.concat([corpus(3000), corpus(500, "new", "n")])
    selection = Selection(down_sample=(DownSample(name="half", fraction=0.5, where="domain = 'web'"),))
    alone, beside = fate(connection(documents=small), selection), fate(connection(documents=large), selection)
    assert alone == {i: beside[i] for i in alone}
    web = [alone[i] for i, domain in zip(small["id"], small["domain"], strict=True) if domain == "web"]
    assert all(alone[i] is None for i, domain in zip(small["id"], small["domain"], strict=True) if domain != "web")
    assert 0.45 < sum(reason is None for reason in web) / len(web) < 0.55
    assert fate(connection(documents=small), selection, seed=1) != alone


def test_quotas_hold_per_value_and_the_best_come_first():
    documents = corpus(30)
    con = connection(documents=documents, ratings=attribute(documents, edu=[float(n) for n in range(30)]))
    quota = Quota(by="domain", limits={"web": 2, "code": 0}, best="rate.edu")
    kept = [i for i, reason in fate(con, Selection(quotas=(quota,))).items() if reason is None]
    domains = dict(zip(documents["id"], documents["domain"], strict=True))
    assert [i for i in kept if domains[i] == "web"] == ["d0024", "d0027"]
    assert not [i for i in kept if domains[i] == "code"]
    assert len([i for i in kept if domains[i] == "math"]) == 10
    rows = select(con, Selection(quotas=(Quota(by="source", unit="tokens", limit=200),)), 3).documents
    assert 0 < rows.filter("kept")["tokens"].sum() <= 200


def test_temperature_zero_takes_the_best_and_a_budget_is_kept():
    documents = corpus(200)
    con = connection(documents=documents, ratings=attribute(documents, edu=[float(n) for n in range(200)]))
    best = fate(con, Selection(temperature=Temperature(rater="edu", temperature=0, documents=20)))
    assert [i for i, reason in best.items() if reason is None] == documents["id"].to_list()[180:]
    warm = select(con, Selection(temperature=Temperature(rater="edu", temperature=1, tokens=2000)), 0).documents
    assert 0 < warm.filter("kept")["tokens"].sum() <= 2000
    shares = Selection(temperature=Temperature(rater="edu", fraction=0.5, by="domain"))
    kept = select(con, shares, 0).documents.filter("kept").join(documents.select("id", "domain"), on="id")
    assert sorted(kept["domain"].value_counts()["count"]) == [33, 33, 33]


def test_temperature_draws_in_proportion_to_the_softmax():
    """One of two documents, z = ±1: the better one wins with σ(2/τ), Gumbel-max (arXiv 1903.06059)."""
    pairs = pl.concat([corpus(2, prefix=f"p{n}-").with_columns(source=pl.lit(str(n))) for n in range(4000)])
    con = connection(documents=pairs, ratings=attribute(pairs, edu=[1.0, -1.0] * 4000))
    draw = Temperature(rater="edu", temperature=2, mean=0, deviation=1, documents=1, by="source")
    kept = select(con, Selection(temperature=draw), 0).documents.filter("kept")
    assert len(kept) == 4000
    assert kept["id"].str.ends_with("0000").mean() == pytest.approx(0.7311, abs=0.025)


def test_repetitions_are_the_largest_under_the_cap():
    documents = corpus(3000)
    steps = (UpSample(where="domain = 'math'", repetitions=2.5), UpSample(where="domain = 'code'", repetitions=9))
    rows = select(connection(documents=documents), Selection(up_sample=steps, max_repetition=4), 0).documents
    by_domain = {
        domain: frame["repetitions"].to_list() for (domain,), frame in rows.join(documents, on="id").group_by("domain")
    }
    assert set(by_domain["web"]) == {1}
    assert set(by_domain["code"]) == {4}
    assert set(by_domain["math"]) == {2, 3}
    assert sum(by_domain["math"]) / len(by_domain["math"]) == pytest.approx(2.5, abs=0.06)


def test_two_rows_for_one_document_are_noticed():
    documents = corpus(2)
    ratings = attribute(documents, edu=[1.0, 2.0])
    con = connection(documents=documents, ratings=pl.concat([ratings, ratings]))
    with pytest.raises(MidtrainError, match="2 documents became 4 rows"):
        select(con, Selection(ratings={"edu": Threshold(at_least=0)}), 0)


def test_a_query_reads_alone_what_it_needs_and_says_it():
    documents = corpus(2)
    con = connection(documents=documents, ratings=attribute(documents, edu=[1.0, 2.0], other=[1.0, 2.0]))
    query = build(con, Selection(ratings={"edu": Threshold(at_least=1.5)}), 0)
    assert 'rate."edu" >= 1.5' in query
    assert "other" not in query
    assert (
        con.execute(query).fetchall()
        == con.execute(select(con, Selection(ratings={"edu": Threshold(at_least=1.5)}), 0).query).fetchall()
    )


@pytest.mark.parametrize(
    ("by", "values"),
    [
        ("document.domain", ["web", "code"]),
        ("document.language", ["en", "de"]),
        ("document.source", ["a", "b"]),
        ("cluster.near", ["x", "y"]),
    ],
)
def test_quotas_go_by_domain_language_source_and_cluster(by, values):
    """Two groups of thirty; the first may keep twelve, the other all."""
    group = [values[n % 2] for n in range(60)]
    documents = corpus(60).with_columns(domain=pl.Series(group), language=pl.Series(group), source=pl.Series(group))
    con = connection(documents=documents, clusters=attribute(documents, near=group))
    rows = select(con, Selection(quotas=(Quota(by=by, limits={values[0]: 12}),)), 0).documents
    groups = dict(zip(documents["id"], group, strict=True))
    kept = [groups[i] for i in rows.filter("kept")["id"]]
    assert (kept.count(values[0]), kept.count(values[1])) == (12, 30)
    assert set(rows.filter(~pl.col("kept"))["reason"]) == {"quota"}


@settings(max_examples=25, deadline=None)
@given(
    some=st.sets(st.integers(0, 59), min_size=1),
    at_least=st.floats(0, 5),
    fraction=st.floats(0, 1),
    repetitions=st.floats(1, 4),
    seed=st.integers(0, 3),
)
def test_a_fate_by_thresholds_is_a_documents_own(some, at_least, fraction, repetitions, seed):
    """Whatever part of the table is there, and whatever stands beside it: rule, rating, share and repetitions of a document stay."""
    selection = Selection(
        rules=(Rule(name="long", keep="tokens >= 20"),),
        ratings={"edu": Threshold(at_least=at_least)},
        contamination=Contamination(score=0.5),
        down_sample=(DownSample(name="fewer", fraction=fraction, where="domain = 'web'"),),
        up_sample=(UpSample(where="domain = 'code'", repetitions=repetitions),),
    )

    def table(documents: pl.DataFrame) -> pl.DataFrame:
        numbers = documents["id"].str.slice(-4).cast(pl.Int64)
        ratings = attribute(documents, edu=((numbers * 7 % 50) / 10).to_list())
        matches = pl.DataFrame({"id": documents["id"], "score": (numbers % 10) / 10})
        return select(connection(documents=documents, ratings=ratings, matches=matches), selection, seed).documents

    everything = table(pl.concat([corpus(60), corpus(25, "another", "n")]))
    part = table(corpus(60)[sorted(some)])
    assert part.equals(everything.join(part.select("id"), on="id", how="semi").sort("id"))


@settings(max_examples=20, deadline=None)
@given(added=st.integers(1, 40), limit=st.integers(1, 30), budget=st.integers(20, 900), seed=st.integers(0, 3))
def test_a_new_source_does_not_reshuffle_the_others(added, limit, budget, seed):
    """Duplicates inside a source, quotas of each source, a temperature with fixed moments: those of other sources keep their fate."""
    selection = Selection(
        deduplication=Deduplication(by=("near",), survivor=("best_rated",), rater="edu"),
        down_sample=(DownSample(fraction=0.8),),
        temperature=Temperature(rater="edu", temperature=1, mean=0, deviation=1, by="document.source", tokens=budget),
        quotas=(Quota(by="document.source", limit=limit, best="rate.edu"),),
    )

    def table(documents: pl.DataFrame) -> pl.DataFrame:
        edu = [float(hash_ % 11) for hash_ in range(len(documents))]
        clusters = [f"{source}-{row % 9}" for row, source in enumerate(documents["source"])]
        con = connection(
            documents=documents, ratings=attribute(documents, edu=edu), clusters=attribute(documents, near=clusters)
        )
        return select(con, selection, seed).documents

    old = corpus(60).with_columns(source=pl.Series(["a", "b"] * 30))
    before, after = table(old), table(pl.concat([old, corpus(added, "new", "n")]))
    assert after.join(before.select("id"), on="id", how="semi").sort("id").equals(before)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    at_least=st.integers(0, 40),
    fraction=st.floats(0, 1),
    limit=st.integers(0, 20),
    seed=st.integers(0, 5),
)
def test_kept_and_left_out_are_all_for_every_source(sizes, at_least, fraction, limit, seed):
    documents = pl.concat(
        [corpus(size, source, source) for size, source in zip(sizes, "abc", strict=False)], how="vertical_relaxed"
    )
    con = connection(documents=documents)
    selection = Selection(
        rules=(Rule(name="long", keep=f"tokens >= {at_least}"),),
        down_sample=(DownSample(fraction=fraction),),
        quotas=(Quota(by="domain", limit=limit),),
    )
    selected = select(con, selection, seed)
    assert selected.documents["id"].to_list() == sorted(documents["id"])
    counted = funnel(selected.documents)
    assert counted.equals(summed(con, selected.query))
    for source, frame in documents.group_by("source"):
        of_source = counted.filter(pl.col("source") == source[0])
        assert of_source["documents"].sum() == len(frame)
        assert of_source["tokens"].sum() == frame["tokens"].sum()
    assert select(con, selection, seed).documents.equals(selected.documents)
