"""What a region of a document and a question have in common, measured; nothing is decided here."""

import numpy as np
import polars as pl

from midtrain_dagster.cores import spread
from midtrain_dagster.decontaminate.candidates import Regions
from midtrain_dagster.decontaminate.index import Index, Seeds
from midtrain_dagster.decontaminate.words import Words

LONGEST = 400  # words of a question, and four times that of a document, that one alignment looks at
VERBATIM = 20
FRAME_WORDS = 4
WORDS_A_THREAD = 20_000  # of regions, each aligned with a question: some five milliseconds
SLACK = 2  # words by which what is asked may begin before its place
NEAR = 50  # words beside the span where an answer counts

MEASURED = (  # what the kernel measures, in its order
    "first_word",
    "end_word",
    "longest_run",
    "lcs_words",
    "order_overlap",
    "question_overlap",
    "answer_overlap",
    "choices_overlap",
    "passage_overlap",
    "span_words",
    "numbers_changed",
    "names_changed",
    "frame_overlap",
    "tail_overlap",
    "placed_words",
    "placed_overlap",
    "placed_run",
)

EVIDENCE_SCHEMA = pl.Schema(
    {
        "row": pl.Int64,
        "unit": pl.Int64,
        "first_word": pl.Int64,
        "end_word": pl.Int64,
        "ngram_hits": pl.Int64,
        "longest_run": pl.Int64,
        "lcs_words": pl.Int64,
        "lcs_ratio": pl.Float64,  # of the shorter of question and document
        "order_overlap": pl.Float64,  # weight of the common words in order, over the question's
        "question_overlap": pl.Float64,  # weight of the question's distinct words inside the span
        "answer_overlap": pl.Float64,  # null: no answer
        "choices_overlap": pl.Float64,
        "passage_overlap": pl.Float64,
        "span_words": pl.Int64,
        "question_words": pl.Int64,
        "question_weight": pl.Float64,
        "telling_weight": pl.Float64,
        "numbers": pl.Int64,
        "numbers_changed": pl.Int64,
        "names_changed": pl.Int64,
        "frame_overlap": pl.Float64,  # as order_overlap, of what is left when changed numbers and names are set aside
        "tail_overlap": pl.Float64,  # weight of the words with which the question asks (`tails`), at the span's end or just after
        "placed_words": pl.Int64,  # words of the question that keep their distance from each other
        "placed_overlap": pl.Float64,  # their weight, over the question's
        "placed_run": pl.Int64,  # the longest run of them
    }
)


def measure(documents: Words, regions: Regions, index: Index, least: float = 0.0, keep_all: bool = False) -> pl.DataFrame:
    """EVIDENCE_SCHEMA, one row a region, in order; without those that hold less than `least` of their unit's weight or nothing of it."""
    from midtrain_dagster.decontaminate.alignment_kernels import measure_regions

    units = index.units
    where = np.stack([regions.rows, regions.units, regions.first, regions.end], axis=1).astype(np.int64)
    document = documents.words, documents.stems, documents.offsets
    unit_words = (
        units.words,
        units.stems,
        index.weights,
        units.offsets,
        index.unit_question,
        index.tails,
        np.where(index.ends_loosely, NEAR, SLACK),
    )
    slots = index.numbers.words, index.numbers.offsets, index.names.words, index.names.offsets
    parts = tuple((part.stems, weights, part.offsets) for part, weights in index.parts)
    measured = np.concatenate(
        spread(
            lambda a, b: measure_regions(where[a:b], np.float32(least), LONGEST, NEAR, document, unit_words, slots, parts),
            np.concatenate([[0], np.cumsum(where[:, 3] - where[:, 2])]),
            WORDS_A_THREAD,
        )
    )
    rows, unit = regions.rows.astype(np.int64), regions.units.astype(np.int64)
    length = np.diff(units.offsets)[unit]
    shorter = np.maximum(1, np.minimum(length, np.diff(documents.offsets)[rows]))
    columns = dict(zip(MEASURED, measured.T, strict=True)) | {
        "row": rows,
        "unit": unit,
        "ngram_hits": regions.hits,
        "lcs_ratio": measured[:, 3] / shorter,
        "question_words": length,
        "question_weight": index.unit_weight[unit],
        "telling_weight": index.telling_weight[unit],
        "numbers": np.diff(index.numbers.offsets)[unit],
    }
    frame = pl.DataFrame({name: columns[name] for name in EVIDENCE_SCHEMA}).fill_nan(None)
    frame = frame.cast(dict(EVIDENCE_SCHEMA))  # type: ignore[arg-type]
    return frame if keep_all else frame.filter(pl.col("lcs_words") > 0)


def verbatim(documents: Words, evidence: pl.DataFrame, index: Index) -> pl.Series:
    """Whether a unit of at least VERBATIM characters stands at its span sign for sign, white space and case aside.

    What words cannot tell apart, as `(-1 + 2)` and `1, 2`, its signs do.
    """
    found = []
    for unit, order, first, end in evidence.select("unit", "order_overlap", "first_word", "end_word").iter_rows():
        own = "".join(index.text(unit).lower().split()) if order > 0.98 else ""
        begin, stop = int(documents.starts[first]), int(documents.ends[max(first, end - 1)])
        around = documents.data[max(0, begin - 40) : stop + 40].tobytes().decode("utf-8", "ignore") if own else ""
        found.append(len(own) >= VERBATIM and own in "".join(around.lower().split()))
    return pl.Series(found, dtype=pl.Boolean)


def framed(documents: Words, evidence: pl.DataFrame) -> pl.Series:
    """Whether the span stands by itself: from near the beginning of a line or document to near the end of one.

    Who quotes a name or a phrase does so inside a sentence; a copied question has lines of its own. "Near" is a tenth of the question,
    at least FRAME_WORDS, for the first and last words may have been exchanged.
    """
    found = []
    for row, first, end, length in evidence.select("row", "first_word", "end_word", "question_words").iter_rows():
        slack = max(FRAME_WORDS, length // 10)
        low, high = documents.offsets[row], documents.offsets[row + 1]
        begins, ends = first - slack <= low, end + slack >= high
        if not begins:
            begins = 10 in documents.data[documents.ends[first - slack - 1] : documents.starts[first]]
        if not ends:
            ends = 10 in documents.data[documents.ends[max(low, end - 1)] : documents.starts[end + slack]]
        found.append(bool(begins and ends))
    return pl.Series(found, dtype=pl.Boolean)


def ngram_overlap(documents: Words, evidence: pl.DataFrame, index: Index, n: int) -> np.ndarray:
    """Weight of a unit's distinct n-grams inside each span, by inverse frequency among the questions: allenai/decon's O."""
    seeds = index.seeds(n)
    unit_of = seeds.units
    number_of = np.repeat(np.arange(len(seeds.offsets) - 1), np.diff(seeds.offsets))
    weight = np.log(len(index.questions) + 1) - np.log(np.diff(seeds.offsets)) + 1e-6
    order = np.argsort(unit_of, kind="stable")
    bounds = np.searchsorted(unit_of[order], np.arange(len(index) + 1))
    out = np.zeros(len(evidence))
    for i, (unit, first, end) in enumerate(evidence.select("unit", "first_word", "end_word").iter_rows()):
        own = np.unique(number_of[order[bounds[unit] : bounds[unit + 1]]])
        found = np.intersect1d(own, _numbers(documents.words[first:end], seeds))
        out[i] = weight[found].sum() / weight[own].sum() if len(own) else 0.0
    return out


def _numbers(words: np.ndarray, seeds: Seeds) -> np.ndarray:
    from midtrain_dagster.decontaminate.kernels import scan

    table, bounds = seeds.table, np.array([0, len(words)], np.int64)
    return scan(words, bounds, seeds.n, table.bits, table.bitmap_bits, table.keys, table.values, table.bitmap)[2]
