"""The questions made searchable: hashed units, word weights, an n-gram table, and postings of rare words."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate.allow_list import read_allow_list
from midtrain_dagster.decontaminate.functions import Task, task
from midtrain_dagster.decontaminate.tails import tails
from midtrain_dagster.decontaminate.words import Words, split
from midtrain_dagster.documents import text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.decontamination import Decontamination

VERSION = 1
CHUNK = 40  # words of a unit that are looked for together
HOT_POSTINGS = 256  # an n-gram in more units than this cannot seed a match
POSTINGS_SHARE = 120  # a word in more than one chunk in so many (and in 50) has no postings: it would cost more than it tells
VOTERS = 16  # words of a chunk, the rarest, that vote for it: more would cost more and tell little
MOST_POSTINGS = 200  # as POSTINGS_SHARE, of whole units
PRIOR_QUESTIONS, PRIOR_FUNCTION_WORD = 2000, 500  # so that weights mean the same for 10 questions and for 20,000
KNOWN_SPARE = 4  # bits: of words that no question has, one in 16 to 32 passes for known
BEGINNING = 3  # words of a short question that must stand in a document before its lines are compared
SHORT = 14  # words of a question that is looked for as a line of its own
SHORT_STEM = 24  # words; a shorter question is also looked for together with its options
FUNCTION_WORDS = (
    "a about after all also an and any are as at be because been before between both but by can could did do does "
    "each for from had has have he her his how i if in into is it its may more most no not of on one only or other "
    "out over she should so some such than that the their them then there these they this those through to two under "
    "up use used was we were what when where which who whom whose why will with would you your following given find "
    "many much value true false return statement none "
)
SPELLED = re.compile("[\u0e00-\u0e7f\u1000-\u109f\u3040-\u30ff]")
NUMBER = re.compile(r"\d+")
NAME = re.compile(r"(?<=[a-z0-9,;:)] )[A-Z][a-z]+|(?<=^)[A-Z][a-z]+(?=['’]s)")


class Table(NamedTuple):
    """Open-addressing table of unique 64-bit keys with a bitmap before it."""

    bits: int
    bitmap_bits: int
    keys: np.ndarray
    values: np.ndarray  # int32 number of the key, -1 where empty
    bitmap: np.ndarray


class Seeds(NamedTuple):
    """The n-grams of all units, and where each stands."""

    n: int
    table: Table
    offsets: np.ndarray  # int64, n-grams + 1
    units: np.ndarray  # int32 unit of each posting
    places: np.ndarray  # int32 word position in the unit


class Bags(NamedTuple):
    """Rare words → the chunks of units that hold them."""

    table: Table
    weights: np.ndarray  # float32 per vocabulary word
    offsets: np.ndarray
    posts: np.ndarray  # int32 chunk
    chunk_unit: np.ndarray  # int32 unit of each chunk
    chunk_weight: np.ndarray  # float32, of its distinct words that have postings


class Vocabulary(NamedTuple):
    """Every stem of the units: its weight, and the units that have it (none for the most common)."""

    table: Table
    weights: np.ndarray  # float32
    offsets: np.ndarray  # int64
    posts: np.ndarray  # int32 unit
    side: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # per unit: distinct stems, weights, number flags; offsets


@dataclass
class Index:
    """What `match` looks documents up in. Units are what is looked for: a question, or a question with its options."""

    questions: pl.DataFrame  # QUESTIONS_SCHEMA
    settings: Decontamination
    fingerprint: str  # of the questions and this module's version: the key of stored matches
    units: Words
    unit_question: np.ndarray  # int32 row of `questions`
    unit_part: list[str]  # "question" or "question+choices"
    answers: Words
    choices: Words
    passages: Words
    numbers: Words  # per unit, distinct
    names: Words
    weights: np.ndarray  # float32 of each word of `units`: 1 is as rare as can be, a function word under 0.2
    required_run: np.ndarray  # int32 per unit: the n of the GPT-3 rule for its benchmark
    word_weight: dict[int, float] = field(repr=False)
    _seeds: dict[int, Seeds] = field(default_factory=dict, repr=False)
    _vectors: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)
    outcomes: dict[int, list[tuple[str, str]]] = field(
        default_factory=dict, repr=False
    )  # of a unit's solution: arguments, result
    _tasks: dict[int, Task | None] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.unit_question)

    def seeds(self, n: int) -> Seeds:
        """The table of n-grams, built when first asked for."""
        if n not in self._seeds:
            self._seeds[n] = _seeds(self.units, n)
        return self._seeds[n]

    def vectors(self, units: list[int], encoder: Any, said: Callable[[str], str]) -> dict[int, np.ndarray]:
        """Embeddings of what some units say; each is encoded once for an encoder."""
        missing = [u for u in units if (id(encoder), u) not in self._vectors]
        for unit, vector in zip(missing, encoder.encode([said(self.text(u)) for u in missing]) if missing else [], strict=True):
            self._vectors[id(encoder), unit] = np.asarray(vector, np.float32)
        return {u: self._vectors[id(encoder), u] for u in units}

    def task(self, unit: int) -> Task | None:
        """A unit as a function with its solution, None where it is not one."""
        if unit not in self._tasks:
            question, answer = self.questions.select("question", "answer").row(int(self.unit_question[unit]))
            self._tasks[unit] = task(question, answer or "")
        return self._tasks[unit]

    @cached_property
    def bags(self) -> Bags:
        """Postings of rare words."""
        return _bags(self)

    @cached_property
    def known_words(self) -> np.ndarray:
        """Bitmap (uint8) of the words of all units, by their lowest bits: what no question says ends every n-gram."""
        from midtrain_dagster.decontaminate.scan_kernels import mark_words

        words = np.unique(self.units.words)
        bits = max(10, len(words).bit_length() + KNOWN_SPARE)
        bitmap = np.zeros(1 << (bits - 3), np.uint8)
        mark_words(words, bits, bitmap)
        return bitmap

    @cached_property
    def beginnings(self) -> Table:
        """The first BEGINNING words of every short question: where one may stand as a line of its own."""
        lengths = np.diff(self.units.offsets)
        first = self.units.offsets[:-1][(lengths >= BEGINNING) & (lengths <= SHORT)]
        bounds = np.arange(len(first) + 1) * BEGINNING
        return _table(
            np.unique(_hashes(self.units.words[(first[:, None] + np.arange(BEGINNING)).ravel()], bounds, BEGINNING)[0])
        )

    @cached_property
    def is_code(self) -> np.ndarray:
        """Which units are a function to write."""
        code = self.questions["question"].str.contains("def ", literal=True).to_numpy()
        return np.asarray(code[self.unit_question], np.bool_)

    @cached_property
    def tails(self) -> np.ndarray:
        """The word of each unit from which on it asks."""
        return tails(self.units, self.ends_loosely)

    @cached_property
    def ends_loosely(self) -> np.ndarray:
        """Which units end with examples or options, in any order, and not with what they ask."""
        return self.is_code | (np.array(self.unit_part) != "question")

    @cached_property
    def spelled(self) -> np.ndarray:
        """Which units are mostly in a script whose letters are words here, for nothing stands between its words: Thai, Burmese, kana."""
        letters = [len(SPELLED.findall(self.text(unit))) for unit in range(len(self))]
        return np.array(letters) * 2 > np.diff(self.units.offsets)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of units as wholes, for short passages."""
        return _vocabulary(self)

    @cached_property
    def parts(self) -> tuple[tuple[Words, np.ndarray], ...]:
        """Answers, options and passages with the weights of their words; a word of no question is as rare as can be."""
        everything = (self.answers, self.choices, self.passages)
        return tuple((p, np.array([self.word_weight.get(s, 1.0) for s in p.stems.tolist()], np.float32)) for p in everything)

    @cached_property
    def unit_weight(self) -> np.ndarray:
        """Weight of each unit's distinct words."""
        first, offsets = _distinct(self.units)[1:]
        mass = np.concatenate([[0.0], np.cumsum(self.weights[first], dtype=np.float64)])
        return (mass[offsets[1:]] - mass[offsets[:-1]]).astype(np.float32)

    @cached_property
    def telling_weight(self) -> np.ndarray:
        """`unit_weight` without the numbers: eight small numbers in a row are found in any table."""
        stems, offsets = self.numbers.stems.tolist(), self.numbers.offsets
        mass = np.concatenate([[0.0], np.cumsum([self.word_weight.get(s, 0.0) for s in stems])])
        return (self.unit_weight - (mass[offsets[1:]] - mass[offsets[:-1]])).astype(np.float32)

    def text(self, unit: int) -> str:
        """A unit's text."""
        w = self.units
        return w.data[w.text_offsets[unit] : w.text_offsets[unit + 1]].tobytes().decode("utf-8", "replace")


def build(questions: pl.DataFrame, settings: Decontamination | None = None, among: pl.DataFrame | None = None) -> Index:
    """Index some questions, with words as rare as they are `among` more questions, where those are named.

    Raises MidtrainError when there is no question to look for.
    """
    if questions.is_empty():
        raise MidtrainError("decontaminate: there are no questions to look for; name files with rows in --questions")
    settings = settings or Decontamination()
    texts, owners, parts = _unit_texts(questions)
    units = split(pl.Series(texts, dtype=pl.String))
    _blank(units, settings.allow_list)
    weigh = _word_weights(units, np.array(owners), len(questions)) if among is None else build(among, settings).word_weight
    options = questions["choices"].list.join("\n", ignore_nulls=True)
    return Index(
        questions=questions,
        settings=settings,
        fingerprint=text_hash(f"{VERSION}\0" + "\0".join(questions["question_id"].sort())),
        units=units,
        unit_question=np.array(owners, np.int32),
        unit_part=parts,
        answers=split(questions["answer"]),
        choices=split(options),
        passages=split(questions["passage"]),
        numbers=_found(NUMBER, texts),
        names=_found(NAME, texts),
        weights=np.array([weigh[w] for w in units.stems.tolist()], np.float32),
        required_run=_required_runs(questions, units, np.array(owners)),
        word_weight=weigh,
    )


def new_questions(questions: pl.DataFrame, known: pl.Series) -> pl.DataFrame:
    """The questions whose ids are not among those that stored matches were made with."""
    return questions.filter(~pl.col("question_id").is_in(known.implode()))


def _found(pattern: re.Pattern[str], texts: list[str]) -> Words:
    """The distinct words of every text that match: what a template fills in."""
    return split(pl.Series([" ".join(dict.fromkeys(pattern.findall(text[:4000]))) for text in texts], dtype=pl.String))


def _unit_texts(questions: pl.DataFrame) -> tuple[list[str], list[int], list[str]]:
    texts = questions["question"].to_list()
    owners, parts = list(range(len(texts))), ["question"] * len(texts)
    for i, (question, choices) in enumerate(questions.select("question", "choices").iter_rows()):
        if choices and len(question.split()) < SHORT_STEM:
            texts.append(question + "\n" + "\n".join(c or "" for c in choices))
            owners.append(i)
            parts.append("question+choices")
    return texts, owners, parts


def _blank(units: Words, allow_list: Path | None) -> None:
    """Allowed phrases are made words that no document has, so that no method finds them."""
    phrases = [tuple(split(pl.Series([p])).words.tolist()) for p in read_allow_list(allow_list).phrases]
    for phrase in phrases:
        n = len(phrase)
        if not n or n > len(units.words):
            continue
        starts = np.flatnonzero(
            np.all([units.words[i : len(units.words) - n + 1 + i] == w for i, w in enumerate(phrase)], axis=0)
        )
        covered = (starts[:, None] + np.arange(n)).ravel()
        units.words[covered] = units.stems[covered] = covered.astype(np.uint64) + np.uint64(1)


def _word_weights(units: Words, owners: np.ndarray, count: int) -> dict[int, float]:
    """Weight of a stem: inverse question frequency, scaled so that the rarest is 1, with function words known beforehand."""
    owner_of_word = np.repeat(owners, np.diff(units.offsets))
    pairs = pl.DataFrame({"stem": units.stems, "owner": owner_of_word}).unique()
    frequency = pairs.group_by("stem").len()
    common = set(split(pl.Series(FUNCTION_WORDS.split())).stems.tolist())
    total = count + PRIOR_QUESTIONS
    scale = np.log(total)
    return {
        stem: float(np.log(total / (df + (PRIOR_FUNCTION_WORD + 0.2 * count if stem in common else 0))) / scale)
        for stem, df in frequency.iter_rows()
    }


def _required_runs(questions: pl.DataFrame, units: Words, owners: np.ndarray) -> np.ndarray:
    """GPT-3's n (2005.14165, appendix C): the 5th percentile of the benchmark's lengths in words, within 8 to 13."""
    lengths = np.diff(units.offsets)
    benchmark = questions["benchmark"].to_numpy()[owners]
    required = np.zeros(len(owners), np.int32)
    for name in sorted(set(benchmark)):
        own = benchmark == name
        required[own] = int(np.clip(np.percentile(lengths[own], 5), 8, 13))
    return required


def _table(keys: np.ndarray) -> Table:
    from midtrain_dagster.decontaminate.kernels import build_table

    bits = max(4, int(np.ceil(np.log2(max(1, len(keys)) * 2))))
    bitmap_bits = min(27, max(10, bits + 3))
    table_keys, values = np.zeros(1 << bits, np.uint64), np.full(1 << bits, -1, np.int32)
    bitmap = np.zeros(1 << (bitmap_bits - 3), np.uint8)
    build_table(keys, bits, bitmap_bits, table_keys, values, bitmap)
    return Table(bits, bitmap_bits, table_keys, values, bitmap)


def _hashes(words: np.ndarray, offsets: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """All n-grams inside rows of words, and the position of the first word of each."""
    from midtrain_dagster.decontaminate.kernels import ngram_hashes

    hashes, where = np.empty(len(words), np.uint64), np.empty(len(words), np.int64)
    count = ngram_hashes(words, offsets, n, hashes, where)
    return hashes[:count], where[:count]


def _seeds(units: Words, n: int) -> Seeds:
    hashes, where = _hashes(units.words, units.offsets, n)
    keys, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    cold = counts <= HOT_POSTINGS
    renumber = np.cumsum(cold) - 1
    kept = cold[inverse]
    number, place = renumber[inverse[kept]], where[kept]
    order = np.lexsort((place, number))
    unit = np.searchsorted(units.offsets, place[order], "right") - 1
    return Seeds(
        n,
        _table(keys[cold]),
        np.concatenate([[0], np.cumsum(counts[cold])]).astype(np.int64),
        unit.astype(np.int32),
        (place[order] - units.offsets[unit]).astype(np.int32),
    )


def _distinct(units: Words) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each unit's distinct stems, where each of them stands first, and offsets by unit."""
    from midtrain_dagster.decontaminate.resemblance_kernels import distinct

    count = len(units.stems)
    stems, first, offsets = np.empty(count, np.uint64), np.empty(count, np.int64), np.empty(len(units.offsets), np.int64)
    count = distinct(units.stems, units.offsets, stems, offsets, first)
    return stems[:count], first[:count], offsets


def _vocabulary(index: Index) -> Vocabulary:
    from midtrain_dagster.decontaminate.resemblance_kernels import digits_only

    units = index.units
    stems, first, offsets = _distinct(units)
    numbers = np.empty(len(stems), np.bool_)
    digits_only(units.data, units.starts[first], units.ends[first], numbers)
    keys, where, number, counts = np.unique(stems, return_index=True, return_inverse=True, return_counts=True)
    posted = (counts <= max(MOST_POSTINGS, len(index) // POSTINGS_SHARE))[number]
    order = np.argsort(number[posted], kind="stable")
    posts = np.repeat(np.arange(len(index)), np.diff(offsets))[posted][order]
    bounds = np.searchsorted(number[posted][order], np.arange(len(keys) + 1))
    weights = index.weights[first]
    return Vocabulary(
        _table(keys), weights[where], bounds.astype(np.int64), posts.astype(np.int32), (stems, weights, numbers, offsets)
    )


def _bags(index: Index) -> Bags:
    units = index.units
    length = np.diff(units.offsets)
    unit = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(units.stems)) - units.offsets[unit]
    pieces = np.maximum(1, np.round(length / CHUNK)).astype(np.int64)  # chunks of a unit, of nearly equal length
    piece = place * pieces[unit] // np.maximum(1, length[unit])
    chunk = (np.concatenate([[0], np.cumsum(pieces)])[unit] + piece).astype(np.int32)
    pairs = pl.DataFrame({"stem": units.stems, "chunk": chunk, "weight": index.weights}).unique(["stem", "chunk"])
    pairs = pairs.with_columns(posts=pl.len().over("stem")).filter(pl.col("posts") <= max(50, len(length) // POSTINGS_SHARE))
    rarest = pairs.sort("chunk", "posts", "stem").filter(pl.int_range(pl.len()).over("chunk") < VOTERS).sort("stem", "chunk")
    stems, counts = np.unique(rarest["stem"].to_numpy(), return_counts=True)
    first = np.concatenate([[0], np.cumsum(counts)])
    weights = rarest["weight"].to_numpy()
    total = np.bincount(rarest["chunk"].to_numpy(), weights, minlength=int(pieces.sum())).astype(np.float32)
    return Bags(
        _table(stems),
        weights[first[:-1]].astype(np.float32),
        first.astype(np.int64),
        rarest["chunk"].to_numpy().astype(np.int32),
        np.repeat(np.arange(len(length)), pieces).astype(np.int32),
        total,
    )
