"""What a region of a document and a question have in common, measured; nothing is decided here."""

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate.candidates import Regions
from midtrain_dagster.decontaminate.index import Index, Seeds
from midtrain_dagster.decontaminate.words import Words

LONGEST = 400  # words of a question, and four times that of a document, that one alignment looks at
NEAR = 50  # words beside the span where an answer counts

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
        "numbers": pl.Int64,
        "numbers_changed": pl.Int64,
        "names_changed": pl.Int64,
    }
)


def measure(documents: Words, regions: Regions, index: Index) -> pl.DataFrame:
    """EVIDENCE_SCHEMA, one row a region, in order."""
    rows = [_one(documents, index, *parts) for parts in zip(*(part.tolist() for part in regions), strict=True)]
    return pl.DataFrame(rows, schema=EVIDENCE_SCHEMA, orient="row")


def _one(documents: Words, index: Index, row: int, unit: int, first: int, end: int, hits: int) -> tuple[object, ...]:
    from midtrain_dagster.decontaminate.kernels import align, coverage

    question = int(index.unit_question[unit])
    begin, stop = int(index.units.offsets[unit]), int(index.units.offsets[unit + 1])
    q_words, q_stems, weights = (a[begin:stop][:LONGEST] for a in (index.units.words, index.units.stems, index.weights))
    end = min(end, first + 4 * LONGEST)
    d_words, d_stems = documents.words[first:end], documents.stems[first:end]
    left, right, common, mass, run, _, _ = align(q_words, q_stems, weights, d_words, d_stems)
    total = float(weights.sum())
    slack = 3 + (right - left) // 10
    low, high = max(0, left - slack), min(len(d_stems), right + slack)
    overlap = float(coverage(q_stems, weights, d_stems[low:high]))
    beside = documents.stems[
        max(documents.offsets[row], first + left - NEAR) : min(documents.offsets[row + 1], first + right + NEAR)
    ]
    after = documents.stems[first + left : min(documents.offsets[row + 1], first + right + max(NEAR, 2 * len(q_words)))]
    numbers, names = index.slots(unit)
    inside = set(d_words[low:high].tolist())
    return (
        row,
        unit,
        first + left,
        first + right,
        hits,
        int(run),
        int(common),
        common / max(1, min(len(q_words), int(documents.offsets[row + 1] - documents.offsets[row]))),
        float(mass) / total if total else 0.0,
        overlap,
        _part(index.answers, question, index, beside),
        _part(index.choices, question, index, after),
        _part(index.passages, question, index, beside),
        right - left,
        len(q_words),
        float(index.unit_weight[unit]),
        len(numbers),
        len([n for n in numbers if n not in inside]),
        len([n for n in names if n not in inside]),
    )


def _part(parts: Words, question: int, index: Index, window: np.ndarray) -> float | None:
    """Weight of an answer's, option list's or passage's words that stand beside the span; null where there is none."""
    from midtrain_dagster.decontaminate.kernels import coverage

    stems = parts.stems[parts.offsets[question] : parts.offsets[question + 1]][:LONGEST]
    if not len(stems):
        return None
    weights = np.array([index.word_weight.get(stem, 1.0) for stem in stems.tolist()], np.float32)
    return float(coverage(stems, weights, window))


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
