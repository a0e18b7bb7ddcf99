"""Whatever the increments, clusters are those from scratch."""

import random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.deduplicate.cluster import CLUSTERS, cluster
from midtrain_dagster.deduplicate.signatures import SIGNATURES
from midtrain_dagster.deduplicate.touched import touched
from midtrain_dagster.project.deduplication import Deduplication

# Six of eight bytes must agree, which is not transitive: who is compared with whom matters.
LOOSE = Deduplication(jaccard=0.75, permutations=1024, memory="200MB")
IDS = st.integers(0, 25).map(lambda number: f"d{number:02}")


def signature(identifier: str, version: int) -> dict:
    """A document that shares bands, bytes and sometimes words with many others; another one for each version of its text."""
    chance = random.Random(f"{identifier} {version}")
    return {
        "id": identifier,
        "text_hash": f"{identifier}-{version}",
        "exact_hash": chance.randrange(40),
        "words": 10,
        "characters": 50,
        "bands": [10 * band + chance.randrange(5) for band in range(3)],
        "sketch": bytes(chance.choices((1, 2), (3, 1), k=8)),
    }


def frame(texts: dict[str, int]) -> pl.DataFrame:
    return pl.DataFrame([signature(*text) for text in texts.items()], schema=SIGNATURES, orient="row")


def step(clusters: pl.DataFrame, before: dict[str, int], after: dict[str, int], how: Deduplication) -> pl.DataFrame:
    """The clusters after a change, the untouched ones kept."""
    new = frame({key: text for key, text in after.items() if before.get(key) != text})
    gone = frame({key: text for key, text in before.items() if after.get(key) != text})
    found = touched(clusters, frame(after), new, gone, how)
    kept = clusters.join(found, on="id", how="anti").join(gone, on="id", how="anti")
    assert set(found["id"]) >= set(new["id"])
    return pl.concat([kept, found]).sort("id")


@given(st.lists(st.dictionaries(IDS, st.integers(0, 3)), min_size=2, max_size=3), st.booleans())
@settings(deadline=None, max_examples=12)
def test_any_increments_with_removals_and_changes_equal_from_scratch(states, confirm):
    """Each state is every document there is, and the version of its text."""
    how = LOOSE.model_copy(update={"confirm": confirm})
    clusters, before = pl.DataFrame(schema=CLUSTERS), dict[str, int]()
    for after in states:
        clusters = step(clusters, before, after, how)
        assert clusters.equals(cluster(frame(after), how))
        before = after


def test_many_documents_one_at_a_time_equal_from_scratch():
    """A dense tangle: nearly every step opens a bucket's first place, joins clusters or splits them."""
    chance = random.Random(0)
    texts = {f"d{number:02}": chance.randrange(4) for number in range(24)}
    clusters = cluster(frame(texts), LOOSE)
    split = 0
    for number in range(12):
        after = dict(texts)
        if number % 2:
            after.pop(chance.choice(sorted(after)))
        after[f"d{chance.randrange(100):02}"] = chance.randrange(4)
        found = step(clusters, texts, after, LOOSE)
        assert found.equals(cluster(frame(after), LOOSE))
        old, new = (dict(some.select("id", "near_cluster").iter_rows()) for some in (clusters, found))
        split += any(old[a] == old[b] and new[a] != new[b] for a in old for b in old if a in new and b in new)
        clusters, texts = found, after
    assert split  # or the hard case was not tried


def test_untouched_clusters_are_left_alone():
    def document(identifier: str, *bands: int) -> dict:
        return {**signature(identifier, 0), "exact_hash": ord(identifier), "bands": list(bands), "sketch": b"12345678"}

    old = [document("b", 1), document("c", 1), document("e", 2), document("f", 2), document("g", 3)]
    present = pl.DataFrame(old, schema=SIGNATURES, orient="row")
    clusters = cluster(present, LOOSE)
    assert clusters["near_cluster"].to_list() == ["b", "b", "e", "e", "g"]
    new = pl.DataFrame([document("a", 1), document("h", 4)], schema=SIGNATURES, orient="row")
    found = touched(clusters, pl.concat([present, new]), new, new.clear(), LOOSE)
    assert found.select("id", "near_cluster", "cluster_size").rows() == [
        ("a", "a", 3),
        ("b", "a", 3),
        ("c", "a", 3),
        ("h", "h", 1),
    ]
