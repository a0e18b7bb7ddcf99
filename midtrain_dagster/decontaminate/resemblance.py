"""Short passages against questions as wholes: a rewritten question keeps its rare words and numbers, in other words and order.

A rephrase of one question is much closer to it than to any other question; another problem made from the same template
is about as close to several, and its numbers differ. So what is measured is not only how alike passage and question are but
by how much the best question leads the next one (`lead`), and whether the numbers agree.
"""

import re

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate.embedding import Encoder
from midtrain_dagster.decontaminate.index import Index, Vocabulary
from midtrain_dagster.decontaminate.passages import Passages
from midtrain_dagster.decontaminate.words import Words

TOP = 8  # questions compared exactly
RIVALS = 5  # of these, how many an encoder reads
FLOOR = 0.3  # a passage less alike than this to every question is not encoded: of clean paragraphs 2 in 100 are
ENCODED = 2000  # characters; encoders read 256 tokens
LEAST = 1.2  # of shared weight, in words as rare as can be, to be compared at all
SAME = 0.75  # two questions this alike are taken for one: neither is the other's rival


RESEMBLANCE_SCHEMA = pl.Schema(
    {
        "row": pl.Int64,
        "unit": pl.Int64,
        "first_word": pl.Int64,
        "end_word": pl.Int64,
        "alike": pl.Float64,  # shared weight over the geometric mean of passage and question, 0 to 1
        "lead": pl.Float64,  # of `alike` over the next question's
        "number_count": pl.Float64,  # distinct numbers of the question
        "numbers_kept": pl.Float64,  # share of the question's distinct numbers in the passage; null: it has none
        "numbers_own": pl.Float64,  # share of the passage's numbers that are the question's
        "cosine": pl.Float64,  # null: no encoder
        "cosine_lead": pl.Float64,
    }
)

DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
EXAMPLES = re.compile(r"\n\s*(?:>>>|\w+\(.*\)\s*(?:==|=>|->|➞|→|=)|(?:for )?examples?\b)", re.IGNORECASE)


def resemblances(found: Passages, index: Index, encoder: Encoder | None = None) -> pl.DataFrame:
    """RESEMBLANCE_SCHEMA: for each passage the one question that it resembles most, if there is one.

    Candidates are the TOP questions by shared rare words. With an encoder, those passages that share enough with one of them
    (FLOOR) are encoded, together with RIVALS candidates, and the best is the nearest by cosine and words together.
    """
    pairs = _pairs(found, index)
    pairs = pairs.filter(pl.col("alike").max().over("passage") >= FLOOR)
    pairs = pairs.filter(pl.int_range(pl.len()).over("passage") < RIVALS)
    cosine = pl.Series("cosine", [None] * len(pairs), dtype=pl.Float64)
    if encoder is not None and len(pairs):
        cosine = pl.Series("cosine", _cosines(pairs, found, index, encoder))
    pairs = pairs.with_columns(cosine).sort(
        "passage", pl.col("cosine").fill_null(0.0) + 0.5 * pl.col("alike"), "unit", descending=[False, True, False]
    )
    return _best(pairs, index)


def _pairs(found: Passages, index: Index) -> pl.DataFrame:
    """Passages with their TOP questions, the most alike first."""
    from midtrain_dagster.decontaminate.resemblance_kernels import most_alike, shared_words

    vocabulary = index.vocabulary
    stems, terms, weights, numbers, offsets = _sides(found.words, vocabulary)
    best = most_alike(
        terms, offsets, vocabulary.weights, vocabulary.offsets, vocabulary.posts, index.unit_weight, np.float32(LEAST), TOP
    )
    passage, rank = np.nonzero(best >= 0)
    unit = best[passage, rank].astype(np.int64)
    shared = shared_words(np.stack([unit, passage], axis=1), vocabulary.side, (stems, weights, numbers, offsets))
    question, own, both, q_numbers, own_numbers, numbers_both = shared.T
    frame = pl.DataFrame(
        {
            "passage": passage,
            "row": found.rows[passage],
            "unit": unit,
            "question": index.unit_question[unit].astype(np.int64),
            "first_word": found.first[passage],
            "end_word": found.end[passage],
            "alike": both / np.sqrt(np.maximum(question * own, 1e-9)),
            "number_count": q_numbers,
            "numbers_kept": np.where(q_numbers > 0, numbers_both / np.maximum(q_numbers, 1e-9), np.nan),
            "numbers_own": np.where(own_numbers > 0, numbers_both / np.maximum(own_numbers, 1e-9), np.nan),
        }
    )
    frame = frame.with_columns(pl.col("numbers_kept", "numbers_own").fill_nan(None))
    return frame.sort("passage", "alike", "unit", descending=[False, True, False])


def _best(pairs: pl.DataFrame, index: Index) -> pl.DataFrame:
    """Each passage's first pair, and by how much it leads the next question that is not nearly the same one."""
    from midtrain_dagster.decontaminate.resemblance_kernels import shared_words

    best = pairs.group_by("passage", maintain_order=True).first()
    named = best.select("passage", best_unit="unit", best_question="question")
    rivals = pairs.join(named, on="passage", how="left", maintain_order="left").filter(
        pl.col("question") != pl.col("best_question")
    )
    between = shared_words(
        np.ascontiguousarray(rivals.select("best_unit", "unit").to_numpy().astype(np.int64)),
        index.vocabulary.side,
        index.vocabulary.side,
    )
    twins = between[:, 2] / np.sqrt(np.maximum(between[:, 0] * between[:, 1], 1e-9)) >= SAME
    next_best = (
        rivals.filter(pl.Series(~twins))
        .group_by("passage")
        .agg(rival_alike=pl.col("alike").max(), rival_cosine=pl.col("cosine").max())
    )
    best = best.join(next_best, on="passage", how="left", maintain_order="left")
    return best.with_columns(
        lead=pl.col("alike") - pl.col("rival_alike").fill_null(0.0),
        cosine_lead=pl.col("cosine") - pl.col("rival_cosine").fill_null(0.0),
    ).select([pl.col(name).cast(kind) for name, kind in RESEMBLANCE_SCHEMA.items()])


def _cosines(pairs: pl.DataFrame, found: Passages, index: Index, encoder: Encoder) -> np.ndarray:
    """Cosine of every pair, to four digits: an encoder's last digits depend on what else is in its batch."""
    texts = found.words
    wanted = pairs["passage"].unique(maintain_order=True).to_list()
    bounds = texts.text_offsets
    own = [texts.data[bounds[i] : bounds[i + 1]].tobytes().decode("utf-8", "replace") for i in wanted]
    vectors = np.asarray(encoder.encode([prose(text)[:ENCODED] for text in own]), np.float32)
    questions = index.vectors(pairs["unit"].unique().sort().to_list(), encoder, prose)
    at = {passage: k for k, passage in enumerate(wanted)}
    return np.array(
        [round(float(vectors[at[p]] @ questions[u]), 4) for p, u in pairs.select("passage", "unit").iter_rows()], np.float64
    )


def prose(text: str) -> str:
    """What a text says: of a function, its docstring up to the examples, for they and the names may be others; else all of it."""
    found = DOCSTRING.search(text) if "def " in text else None
    said = EXAMPLES.split(found.group(2), maxsplit=1)[0].strip() if found else ""
    return said if len(said.split()) >= 4 else text


def _sides(words: Words, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct stems of each text, their vocabulary numbers, weights and number flags, and offsets."""
    from midtrain_dagster.decontaminate.kernels import lookup
    from midtrain_dagster.decontaminate.resemblance_kernels import digits_only, distinct

    stems, first = np.empty(len(words.stems), np.uint64), np.empty(len(words.stems), np.int64)
    offsets = np.empty(len(words.offsets), np.int64)
    count = distinct(words.stems, words.offsets, stems, offsets, first)
    stems, first = stems[:count], first[:count]
    numbers, terms = np.empty(count, np.bool_), np.empty(count, np.int32)
    digits_only(words.data, words.starts[first], words.ends[first], numbers)
    table = vocabulary.table
    lookup(stems, table.bits, table.bitmap_bits, table.keys, table.values, table.bitmap, terms)
    known = np.append(vocabulary.weights, np.float32(1.0))  # a word of no question is as rare as can be
    return stems, terms, known[terms], numbers, offsets
