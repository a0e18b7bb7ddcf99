"""RULER-style probes of long context at chosen lengths (2404.06654): needles, traced variables, common words.

Seeded and synthetic, so that what a model reads cannot have been in its training text. Rows hold `input`, `outputs` (all must
be said), `kind`, `length` (as asked for) and `depth` (0 to 1, of the first needle, where it is one).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from midtrain_dagster.errors import MidtrainError

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
KEYS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "kelp", "lotus")
NAMES = ("VAR_A", "VAR_B", "VAR_C", "VAR_D", "VAR_E")
COMMON, RARE = 30, 3  # times that a common and another word stand in a list, as in RULER
KINDS = ("niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "vt", "cwe")

Count = Callable[[str], int]


def words_of(text: str) -> int:
    """The length of a text where no tokenizer is at hand."""
    return len(text.split())


def ruler_rows(
    seed: int, n: int, lengths: Sequence[int], kinds: Sequence[str] = KINDS, count: Count = words_of
) -> list[dict[str, Any]]:
    """`n` rows of each kind and length, lengths in turn, so that the first rows are of every length; `count` says how long a text is (a tokenizer's length, say).

    A row is at most `length` long, and within one filler paragraph of it. Raises MidtrainError for a length without room for the task.
    """
    rows = []
    for number in range(n):
        for kind in kinds:
            for length in lengths:
                rng = Random(f"{seed}\0{kind}\0{length}\0{number}")
                made = _common_words(rng, length, count) if kind == "cwe" else _needles(rng, kind, length, count)
                rows.append({**made, "kind": kind, "length": length})
    return rows


def _needles(rng: Random, kind: str, length: int, count: Count) -> dict[str, Any]:
    needles, question, outputs = _chain(rng) if kind == "vt" else _numbers(rng, kind)
    places = sorted(rng.random() for _ in needles)

    def text(fillers: int) -> str:
        paragraphs = [FILLER] * fillers
        for needle, place in sorted(zip(needles, places, strict=True), key=lambda pair: pair[1], reverse=True):
            paragraphs.insert(round(place * fillers), needle)
        return "\n".join(paragraphs) + f"\n\n{question}"

    return {"input": _fit(text, length, count), "outputs": outputs, "depth": round(places[0], 3)}


def _numbers(rng: Random, kind: str) -> tuple[list[str], str, list[str]]:
    keys = rng.sample(KEYS, 4)
    values = [str(rng.randint(1_000_000, 9_999_999)) for _ in keys]
    of = [keys[0]] * len(keys) if kind == "niah_multivalue" else keys
    shown = list(zip(of, values, strict=True))[: 1 if kind == "niah_single" else None]
    asked = keys[:2] if kind == "niah_multiquery" else keys[:1]
    needles = [f"One of the special magic numbers for {key} is: {value}." for key, value in shown]
    outputs = [value for key, value in shown if key in asked]
    names = " and ".join(asked)
    question = (
        f"What are all the special magic numbers for {names} mentioned in the text?\nThe special magic numbers for {names} are"
    )
    return needles, question, outputs


def _chain(rng: Random) -> tuple[list[str], str, list[str]]:
    """Variables that all hold one value, each set from the one before (the needles keep this order)."""
    value = str(rng.randint(10_000, 99_999))
    needles = [f"VAR {NAMES[0]} = {value}"]
    needles += [f"VAR {name} = VAR {before}" for before, name in pairwise(NAMES)]
    question = f"Which variables hold the value {value}, directly or through another?\nThe variables are"
    return needles, question, list(NAMES)


def _common_words(rng: Random, length: int, count: Count) -> dict[str, Any]:
    """Ten times fewer of every other word: which three stand there most often?"""
    pool = [f"{a}{b}" for a in KEYS for b in KEYS if a != b]
    rng.shuffle(pool)
    common, others = pool[:3], pool[3:]

    def text(kinds: int) -> str:
        listed = common * min(COMMON, 3 * max(kinds, 1)) + others[: kinds % len(others)] * RARE
        Random(kinds).shuffle(listed)
        return f"{' '.join(listed)}\n\nWhich three words stand in this list most often?\nThe three words are"

    return {"input": _fit(text, length, count, most=len(others) - 1), "outputs": common, "depth": None}


def _fit(text: Callable[[int], str], length: int, count: Count, most: int = 1 << 20) -> str:
    """The longest text that fits: doubling, then halving the step."""
    if count(text(1)) > length:
        raise MidtrainError(f"a probe of length {length} has no room for its question; {count(text(1))} is the least")
    size = 1
    while size * 2 <= most and count(text(size * 2)) <= length:
        size *= 2
    for step in _halves(size):
        if size + step <= most and count(text(size + step)) <= length:
            size += step
    return text(size)


def _halves(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2
