"""Short passages against questions as wholes: a rewritten question keeps its rare words and numbers, in other words and order.

A rephrase of one question is much closer to it than to any other question; another problem made from the same template
is about as close to several, and its numbers differ. So what is measured is not only how alike passage and question are but
by how much the best question leads the next one (`lead`), and whether the numbers agree.
"""

import re

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate import behaviour
from midtrain_dagster.decontaminate.embedding import Encoder
from midtrain_dagster.decontaminate.index import Index, Vocabulary
from midtrain_dagster.decontaminate.languages import Foreign, foreign
from midtrain_dagster.decontaminate.passages import Passages
from midtrain_dagster.decontaminate.scores import TELLING
from midtrain_dagster.decontaminate.words import Words

TOP = 8  # questions compared exactly
RIVALS = 5  # of these, how many an encoder reads
FLOOR = 0.3  # a passage less alike than this to every question is not encoded: of clean paragraphs 2 in 100 are
ENCODED = 2000  # characters; encoders read 256 tokens
LEAST = 1.2  # of shared weight, in words as rare as can be, to be compared at all
NUMBERS_LEFT = 0.75  # of a passage's and the question's numbers, in a translation
SAME_SUBJECT = 0.33  # cosine of a function to be run
NEAREST = 10  # programming questions that a function is compared with
SAME_MEANING = 0.7  # of a foreign passage, on the encoder's own scale, to be looked at further
SAYING = 8  # words of a question that may be known by its meaning alone
TRANSLATIONS = 5  # questions that a foreign passage is compared with
AT_ONCE = 256  # foreign passages that are encoded together
SAME = 0.75  # two questions this alike are taken for one: neither is the other's rival


RESEMBLANCE_SCHEMA = pl.Schema(
    {
        "row": pl.Int64,
        "unit": pl.Int64,
        "first_word": pl.Int64,
        "end_word": pl.Int64,
        "shared_weight": pl.Float64,  # of the distinct words of both, in words as rare as can be
        "foreign": pl.Boolean,  # the passage is hardly in English
        "alike": pl.Float64,  # shared weight over the geometric mean of passage and question, 0 to 1
        "lead": pl.Float64,  # of `alike` over the next question's
        "number_count": pl.Float64,  # distinct numbers of the question
        "numbers_kept": pl.Float64,  # share of the question's distinct numbers in the passage; null: it has none
        "numbers_own": pl.Float64,  # share of the passage's numbers that are the question's
        "cosine": pl.Float64,  # null: no encoder
        "cosine_lead": pl.Float64,
        "translation": pl.Float64,  # cosine on the encoder's own scale, of a foreign document; null: it reads English alone
        "translation_lead": pl.Float64,  # of `translation` over the next question's
        "code": pl.Boolean,  # the question is a function to write
        "behaves": pl.Float64,  # agreement of a function in the passage with the question's solution; null: not compared
    }
)

FUNCTION = re.compile(r"^[ \t]*(?:async )?def \w+\(", re.MULTILINE)
DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
EXAMPLES = re.compile(r"\n\s*(?:>>>|\w+\(.*\)\s*(?:==|=>|->|➞|→|=)|(?:for )?examples?\b)", re.IGNORECASE)


def resemblances(
    found: Passages, documents: Words, index: Index, encoder: Encoder | None = None, abroad: Foreign | None = None
) -> pl.DataFrame:
    """RESEMBLANCE_SCHEMA: for each passage the one question that it resembles most, if there is one.

    Candidates are the TOP questions by shared rare words. With an encoder, those passages that share enough with one of them
    (FLOOR) are encoded, together with RIVALS candidates, and the best is the nearest by cosine and words together. Where functions
    are run, every passage with one is encoded, for it may share no word with the question that it solves, and compared with the NEAREST
    tasks. `abroad`: documents in languages that the encoder reads; their passages are compared with the questions
    nearest in meaning.
    """
    vectors = _Vectors(found, index, encoder)
    pairs = _pairs(found, index, *_most_alike(found, index))
    translated = pl.col("foreign") & (pl.min_horizontal("numbers_kept", "numbers_own") >= NUMBERS_LEFT)
    pairs = pairs.filter((pl.col("alike").max().over("passage") >= FLOOR) | translated)
    pairs = pairs.filter(pl.int_range(pl.len()).over("passage") < RIVALS)
    if encoder is not None:
        if behaviour.sandbox_for(index.settings) is not None:
            tasks = _pairs(found, index, *_nearest_tasks(found, index, vectors))
            pairs = pl.concat([pairs, tasks]).unique(["passage", "unit"], keep="first", maintain_order=True)
        if abroad is not None:
            meant = _pairs(found, index, *_nearest_in_meaning(found, index, vectors, abroad))
            pairs = pl.concat([pairs, meant]).unique(["passage", "unit"], keep="first", maintain_order=True)
        cosine = vectors.cosines(pairs["passage"], pairs["unit"])
        pairs = pairs.with_columns(cosine=pl.Series(cosine, dtype=pl.Float64))
    best = _best(_ordered(pairs, found, documents, index), index)
    return best if abroad is None else _as_translations(best, abroad)


def _ordered(pairs: pl.DataFrame, found: Passages, documents: Words, index: Index) -> pl.DataFrame:
    """Pairs with `code` and `behaves`, each passage's nearest first."""
    said = pl.col("cosine").is_null() | (pl.col("cosine") >= SAME_SUBJECT)
    pairs = pairs.with_columns(code=pl.Series(index.is_code[pairs["unit"].to_numpy()], dtype=pl.Boolean))
    pairs = pairs.with_columns(behaves=behaviour.of_spans(pairs, pl.col("code") & said, documents, index))
    near = pl.col("behaves").fill_null(0.0).clip(behaviour.SAME, 1) + pl.col("cosine").fill_null(0.0) + 0.5 * pl.col("alike")
    return pairs.sort("passage", near, "unit", descending=[False, True, False])


class _Vectors:
    """Embeddings of passages and questions, each made when it is first asked for."""

    def __init__(self, found: Passages, index: Index, encoder: Encoder | None):
        self.found, self.index, self.encoder = found, index, encoder
        self._passages: dict[int, np.ndarray] = {}

    def passages(self, numbers: list[int]) -> np.ndarray:
        """(n, d)."""
        assert self.encoder is not None
        missing = sorted(set(numbers) - set(self._passages))
        texts = [prose(_text(self.found.words, i))[:ENCODED] for i in missing]
        self._passages.update(zip(missing, np.asarray(self.encoder.encode(texts), np.float32), strict=True))
        return np.stack([self._passages[i] for i in numbers])

    def forget(self, numbers: list[int]) -> None:
        """Passages that nothing is near to: a large foreign text has very many."""
        for number in numbers:
            self._passages.pop(number, None)

    def questions(self, units: list[int]) -> np.ndarray:
        """(n, d)."""
        known = self.index.vectors(sorted(set(units)), self.encoder, prose)
        return np.stack([known[u] for u in units])

    def cosines(self, passages: pl.Series, units: pl.Series) -> list[float]:
        """Of each pair, to four digits: an encoder's last digits depend on what else is in its batch."""
        if not len(passages):
            return []
        both = self.passages(passages.to_list()) * self.questions(units.to_list())
        return [round(float(cosine), 4) for cosine in both.sum(axis=1)]


def _text(words: Words, row: int) -> str:
    return words.data[words.text_offsets[row] : words.text_offsets[row + 1]].tobytes().decode("utf-8", "replace")


def _most_alike(found: Passages, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """(passage, unit) of each passage's TOP questions by their words, the most alike first."""
    from midtrain_dagster.decontaminate.resemblance_kernels import most_alike

    known = index.vocabulary
    _, terms, _, _, offsets = _sides(found.words, known)
    best = most_alike(terms, offsets, known.weights, known.offsets, known.posts, index.unit_weight, np.float32(LEAST), TOP)
    passage, rank = np.nonzero((best >= 0) & ~index.spelled[best])
    return passage, best[passage, rank].astype(np.int64)


def _nearest_tasks(found: Passages, index: Index, vectors: _Vectors) -> tuple[np.ndarray, np.ndarray]:
    """(passage, unit) of each passage that has a function, and the programming questions of nearest meaning."""
    tasks = np.flatnonzero(index.is_code)
    written = [i for i in range(len(found.rows)) if FUNCTION.search(_text(found.words, i))] if len(tasks) else []
    if not written:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    cosine = vectors.passages(written) @ vectors.questions(tasks.tolist()).T
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :NEAREST]
    at, _ = np.nonzero(np.take_along_axis(cosine, order, axis=1) >= SAME_SUBJECT)
    near = np.take_along_axis(cosine, order, axis=1) >= SAME_SUBJECT
    return np.array(written, np.int64)[at], tasks[order[near]]


def _nearest_in_meaning(found: Passages, index: Index, vectors: _Vectors, abroad: Foreign) -> tuple[np.ndarray, np.ndarray]:
    """(passage, unit) of each foreign passage and the questions of nearest meaning, if one is near: the two need not share a word."""
    passages = np.flatnonzero(np.isin(found.rows, abroad.rows))
    asked = telling_units(index)
    near = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    if not len(passages) or not len(asked):
        return near[0]
    questions = vectors.questions(asked.tolist())
    for at in range(0, len(passages), AT_ONCE):
        some = passages[at : at + AT_ONCE]
        cosine = vectors.passages(some.tolist()) @ questions.T
        close = abroad.reading.closeness(cosine.max(axis=1)) >= SAME_MEANING
        order = np.argsort(-cosine[close], axis=1, kind="stable")[:, :TRANSLATIONS]
        near.append((np.repeat(some[close], order.shape[1]), asked[order].ravel()))
        vectors.forget(some[~close].tolist())
    passage, unit = (np.concatenate(side) for side in zip(*near, strict=True))
    return passage, unit


def telling_units(index: Index) -> np.ndarray:
    """The questions that say enough to be known by their meaning alone: not a phrase, as any text has them."""
    enough = (index.telling_weight >= TELLING) & (np.diff(index.units.offsets) >= SAYING)
    found: np.ndarray = np.flatnonzero(enough & ~index.is_code & ~index.spelled)
    return found


def _as_translations(best: pl.DataFrame, abroad: Foreign) -> pl.DataFrame:
    """With the cosines of foreign documents' passages on the encoder's own scale."""
    own = pl.col("row").is_in(abroad.rows.tolist())
    near, lead = abroad.reading.closeness(pl.col("cosine")), abroad.reading.share(pl.col("cosine_lead"))
    return best.with_columns(translation=pl.when(own).then(near), translation_lead=pl.when(own).then(lead))


def _pairs(found: Passages, index: Index, passage: np.ndarray, unit: np.ndarray) -> pl.DataFrame:
    """What passages and units have in common by their words, each passage's most alike unit first."""
    from midtrain_dagster.decontaminate.resemblance_kernels import shared_words

    stems, _, weights, numbers, offsets = _sides(found.words, index.vocabulary)
    shared = shared_words(np.stack([unit, passage], axis=1), index.vocabulary.side, (stems, weights, numbers, offsets))
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
            "shared_weight": both,
            "foreign": foreign(found.words)[passage],
            "cosine": np.full(len(unit), np.nan),
            "translation": np.full(len(unit), np.nan),
            "translation_lead": np.full(len(unit), np.nan),
        }
    )
    frame = frame.with_columns(
        pl.col("numbers_kept", "numbers_own", "cosine", "translation", "translation_lead").fill_nan(None)
    )
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
