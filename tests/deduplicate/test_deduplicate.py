"""Planted duplicates are found; the clusters do not depend on order, shards or increments."""

import json
import random
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from typer.testing import CliRunner

from midtrain_dagster import documents
from midtrain_dagster.deduplicate.bands import banding, bands_for
from midtrain_dagster.deduplicate.cluster import CLUSTERS, cluster, similarity, survivors
from midtrain_dagster.deduplicate.passages import passages, repeated
from midtrain_dagster.deduplicate.semantic import of_all, semantic_clusters, vectors
from midtrain_dagster.deduplicate.signatures import SIGNATURES, signatures
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.deduplication import Deduplication

WORDS = [f"w{i}" for i in range(3000)]


def corpus() -> pl.DataFrame:
    """20 originals, of each an exact copy in other dress and a near one (Jaccard about 0.95), and one far one."""
    chance = random.Random(7)
    rows = []
    for number in range(20):
        words = chance.choices(WORDS, k=300)
        near = [*words[:297], "other", "end", f"here{number}"]
        far = words[:150] + chance.choices(WORDS, k=150)
        rows += [(f"{number:02}-a", " ".join(words)), (f"{number:02}-b", ", ".join(words).upper() + "!")]
        rows += [(f"{number:02}-c", " ".join(near)), (f"{number:02}-d", " ".join(far))]
    return documents.documents({"id": key, "text": text} for key, text in rows)


def test_planted_duplicates_are_found_and_nothing_else():
    found = cluster(signatures(corpus()))
    assert found.schema == CLUSTERS
    for number in range(20):
        mine = found.filter(pl.col("id").str.starts_with(f"{number:02}-"))
        assert mine["exact_cluster"].to_list() == [f"{number:02}-{x}" for x in "aacd"]
        assert mine["near_cluster"].to_list() == [f"{number:02}-{x}" for x in "aaad"]
        assert mine["cluster_size"].to_list() == [3, 3, 3, 1]


@given(st.randoms(use_true_random=False), st.integers(1, 5))
@settings(deadline=None, max_examples=8)
def test_clusters_are_the_same_for_every_order_shard_and_increment(chance, shards):
    everything = corpus()
    order = list(range(len(everything)))
    chance.shuffle(order)
    shuffled = everything[order]
    parts = [signatures(shuffled[i::shards]) for i in range(shards)]
    assert cluster(pl.concat(parts)).equals(cluster(signatures(everything)))


def test_clusters_from_stored_files_equal_those_in_memory(tmp_path):
    everything = signatures(corpus())
    paths = [tmp_path / "b.parquet", tmp_path / "it's.parquet"]
    everything[40:].write_parquet(paths[0])
    everything[:40].write_parquet(paths[1])
    assert cluster(paths).equals(cluster(everything))


def test_hashes_are_signed_and_clusters_take_their_bits_either_way():
    signed = signatures(corpus())
    assert (signed["exact_hash"].dtype, signed["bands"].dtype) == (pl.Int64, pl.List(pl.Int64))
    unsigned = signed.with_columns(
        pl.col("exact_hash").reinterpret(signed=False), pl.col("bands").list.eval(pl.element().reinterpret(signed=False))
    )
    assert cluster(unsigned).equals(cluster(signed))


def test_signatures_do_not_depend_on_the_batch():
    everything = signatures(corpus())
    assert everything.schema == SIGNATURES
    assert pl.concat([signatures(corpus()[i : i + 7]) for i in range(0, 80, 7)]).equals(everything)
    assert signatures(corpus()[:0]).schema == SIGNATURES


@pytest.mark.parametrize("overlap", [0.5, 0.7, 0.9])
def test_the_estimate_is_the_jaccard_within_its_error(overlap):
    chance, errors = random.Random(3), []
    for _ in range(20):
        words = [f"v{i}" for i in chance.sample(range(100_000), 1000)]
        cut = round(1000 * 2 * overlap / (1 + overlap))
        other = words[:cut] + [f"u{i}" for i in chance.sample(range(100_000), 1000 - cut)]
        grams = [{tuple(t[i : i + 5]) for i in range(len(t) - 4)} for t in (words, other)]
        exact = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        signed = signatures(documents.documents([{"id": "a", "text": " ".join(words)}, {"id": "b", "text": " ".join(other)}]))
        errors.append(similarity(signed["sketch"][:1], signed["sketch"][1:])[0] - exact)
    standard = (overlap * (1 - overlap) / 128) ** 0.5
    assert abs(np.mean(errors)) < 4 * standard / 20**0.5
    assert np.std(errors) < 1.7 * standard


def test_short_and_empty_texts_are_compared_exactly_only():
    rows = [("a", "yes"), ("b", "Yes!"), ("c", ""), ("d", "?!"), ("e", "?!"), ("f", "no")]
    found = cluster(signatures(documents.documents({"id": key, "text": text} for key, text in rows)))
    assert found["exact_cluster"].to_list() == ["a", "a", "c", "d", "d", "f"]
    assert found["near_cluster"].to_list() == found["exact_cluster"].to_list()


def test_verify_decides_in_place_of_the_estimate():
    signed = signatures(corpus())
    alone = cluster(signed, verify=lambda pairs: pl.Series([False] * len(pairs)))
    assert alone["near_cluster"].equals(alone["exact_cluster"].rename("near_cluster"))


def test_the_same_id_twice_is_an_error():
    signed = signatures(corpus()[:3])
    with pytest.raises(MidtrainError, match="00-a"):
        cluster(pl.concat([signed, signed[:1]]))


def test_survivors_follow_the_rule():
    rows = [("a", "one two three four five six"), ("b", "One, two -- three: four; five; six!"), ("c", "other words")]
    signed = signatures(documents.documents({"id": key, "text": text} for key, text in rows))
    found = cluster(signed)
    assert survivors(found, signed)["survivor"].to_list() == ["b", "b", "c"]
    assert survivors(found, signed)["duplicate"].to_list() == [True, False, False]
    assert survivors(found, signed, Deduplication(survivor="first"))["survivor"].to_list() == ["a", "a", "c"]
    rated = pl.DataFrame({"id": ["a", "b"], "preference": [3, 1]})
    assert survivors(found, signed, preference=rated)["survivor"].to_list() == ["a", "a", "c"]


def test_bands_meet_their_error():
    chosen = bands_for(0.8, 128)
    assert (chosen.bands, chosen.rows) == (21, 6)
    assert chosen.false_negative <= 0.0005
    assert chosen.probability(0.8) == pytest.approx(1 - (1 - 0.8**6) ** 21)
    assert bands_for(0.5, 128).rows < chosen.rows
    assert banding(Deduplication(bands=14, rows=8))[:2] == (14, 8)
    for wrong in ({"bands": 20, "rows": 20}, {"bands": 4}):
        with pytest.raises(MidtrainError):
            banding(Deduplication(**wrong))


def test_repeated_passages_are_those_of_many_documents_of_one_source(tmp_path):
    menu, notice = "Home | About us | Contact and imprint", "All of this may be copied\nby anyone who keeps the notice."
    rows = [{"id": f"{i}", "source": "web", "text": f"{menu}\nThe story of number {i}.\nshort\n \n{notice}"} for i in range(4)]
    rows += [{"id": "7", "source": "web", "text": f"  {menu.upper()}"}]
    rows += [{"id": "8", "source": "other", "text": menu}, {"id": "9", "source": "web", "text": ""}]
    settings = Deduplication(line_documents=4)
    parts = [passages(documents.documents(some), settings) for some in (rows[:3], rows[3:])]
    found = repeated(pl.concat(parts), settings)
    assert found["lines"].to_list() == [4, 4, 4, 4, 1, 1, 0]
    assert found["repeated_lines"].to_list() == [3, 3, 3, 3, 1, 0, 0]
    assert found["repeated_line_character_ratio"].to_list() == pytest.approx([93 / 115] * 4 + [1, 0, 0])
    assert found["paragraphs"].to_list() == [2, 2, 2, 2, 1, 1, 0]
    assert found["repeated_paragraphs"].to_list() == [1, 1, 1, 1, 0, 0, 0]
    assert found["repeated_paragraph_character_ratio"][0] == pytest.approx(len(notice) / (len(notice) + 66))
    texts = dict(zip((row["id"] for row in rows), (row["text"] for row in rows), strict=True))
    placed = {key: [texts[key][a:b] for a, b in spans] for key, spans in found.select("id", "line_spans").iter_rows()}
    again = [menu, *notice.split("\n")]
    assert placed == {"0": [], "1": again, "2": again, "3": again, "7": [menu.upper()], "8": [], "9": []}  # 0 keeps the first
    paragraphs = [[texts[key][a:b] for a, b in spans] for key, spans in found.select("id", "paragraph_spans").iter_rows()]
    assert paragraphs == [[], [notice], [notice], [notice], [], [], []]
    pl.concat(parts).write_parquet(tmp_path / "passages.parquet")
    assert repeated(f"read_parquet('{tmp_path}/passages.parquet')", settings).equals(found)


def test_semantic_clusters_join_what_points_the_same_way():
    class Encoder:
        def encode(self, texts):
            vectors = np.array([[1, 0], [0, 1], [0.999, 0.0447]], dtype=np.float32)
            return vectors[[int(text) for text in texts]]

    rows = documents.documents([{"id": "c", "text": "0"}, {"id": "b", "text": "1"}, {"id": "a", "text": "2"}])
    found = semantic_clusters([vectors(rows, Encoder())])
    assert found["semantic_cluster"].to_list() == ["a", "b", "a"]
    near = pl.DataFrame({"id": list("abcd"), "near_cluster": list("abcb"), "text_hash": "", "source": "web"})
    assert of_all(near, found).select("id", "semantic_cluster").rows() == [("a", "a"), ("b", "b"), ("c", "a"), ("d", "b")]


@pytest.mark.parametrize("exact", [1, 10_000])
def test_semantic_clusters_of_many_are_those_of_all_pairs_whatever_the_parts(exact):
    """Both above and below the size from which only neighbouring cells are compared, over more than one tile."""
    chance = np.random.default_rng(3)
    means = chance.normal(size=(1700, 16))
    points = (means[chance.integers(0, len(means), 5000)] + chance.normal(size=(5000, 16)) * 0.08).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    ids = [f"{n:04}" for n in chance.permutation(5000)]
    rows = pl.DataFrame({"id": ids, "text_hash": "", "vector": points.tolist()})
    groups = connected_components(csr_matrix(points @ points.T >= 0.95), directed=False)[1]
    least = rows.with_columns(group=pl.Series(groups)).select("id", least=pl.col("id").min().over("group"))
    settings = Deduplication(semantic_exact=exact)
    found = semantic_clusters([rows[:10], rows[:0], rows[10:4000], rows[4000:]], settings)["semantic_cluster"].to_list()
    assert found == least.sort("id")["least"].to_list()
    assert 1000 < len(set(found)) < 2000
    assert semantic_clusters([], settings).is_empty()


def test_the_command_works_in_increments(tmp_path):
    import typer

    from midtrain_dagster.commands import deduplicate as command

    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)

    def run(name: str, rows: pl.DataFrame, *more: str) -> dict:
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.select("id", "text").to_dicts()))
        arguments = ["deduplicate", "--in", str(tmp_path / f"{name}.jsonl"), "--out", str(tmp_path / name), *more]
        return json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout.strip().splitlines()[-1])

    everything = corpus()
    whole = run("whole", pl.concat([everything, everything[:2]]), "--lines")
    assert pl.read_parquet(tmp_path / "whole/repeated_text.parquet")["repeated_lines"].sum() == 0
    assert whole["documents_with_repeated_lines"] == 0
    assert (whole["read"], whole["kept"], whole["rejected"]) == (82, 80, 2)
    assert (whole["exact_duplicates"], whole["near_duplicates"], whole["clusters"]) == (20, 40, 20)
    run("old", everything[::2])
    new = run("new", everything[1::2], "--known", str(tmp_path / "old/signatures.parquet"))
    assert new["known"] == 40
    assert pl.read_parquet(tmp_path / "new/clusters.parquet").equals(pl.read_parquet(tmp_path / "whole/clusters.parquet"))


MEASURE = """
import json, random, resource, sys
from pathlib import Path
import polars as pl
from midtrain_dagster import files
from midtrain_dagster.deduplicate.command import run
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.deduplication import Deduplication

files.BATCH_BYTES = 1 << 20
root = Path(sys.argv[1])

def row(number):  # every fourth repeats the one before it, but for a word
    own = random.Random(number - 1 if number % 4 == 1 else number)
    return f"{number:08}", " ".join(f"{own.getrandbits(20):x}" for _ in range(40)) + " end" * (number % 4 == 1)

def write(name, count):
    with files.ParquetSink(root / name) as sink:
        for start in range(0, count, 4000):
            sink.write(pl.DataFrame([row(n) for n in range(start, start + 4000)], schema=["id", "text"], orient="row"))

def peak(name):
    quiet = Progress(lambda *_: None, "deduplicate", "documents", None, interval=1e9)
    counts = run([root / name], [], root / "out" / name, Deduplication(memory="64MB"), quiet)
    return counts["kept"], counts["near_duplicates"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

write("one", 16_000)
write("eight", 128_000)
for name in ("one", "eight"):
    (root / name).rename(root / f"{name}.parquet")
print(json.dumps([peak("one.parquet"), peak("eight.parquet")]))
"""


def test_peak_memory_is_flat_from_one_to_eight_times_the_data(tmp_path):
    """What is not spilled grows with the data: with room for all of it, the same eight-fold takes some 200 MiB more."""
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    (rows, near, one), (many, more, eight) = json.loads(answer.stdout.splitlines()[-1])
    assert (rows, near, many, more) == (16_000, 4000, 128_000, 32_000)
    assert eight - one < 80, f"{one:.0f} MiB for {rows} documents, {eight:.0f} MiB for {many}"
