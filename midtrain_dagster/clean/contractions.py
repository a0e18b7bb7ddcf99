"""English words that split into parts, or hold together, against the general rules of word splitting.

The facts are those of spaCy's English tokenizer, which datatrove's filters count words with: "don't" is two words, "e.g."
is one. Written as a small grammar; `table` turns it into arrays that a kernel can look up.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_PRONOUNS = {"i": "m ma ll llve d dve ve", "you": "ll llve d dve ve re", "we": "ll llve d dve ve re"}
_PRONOUNS |= {"they": "ll llve d dve ve re", "he": "ll llve d dve s", "she": "ll llve d dve s", "it": "ll llve d dve s"}
_PARTS = {"ma": ("m", "a"), "llve": ("ll", "ve"), "dve": ("d", "ve")}
_SINGULAR = ["who", "what", "when", "where", "why", "how", "there"]
_NEGATED = ["ca", "could", "do", "does", "did", "had", "may", "might", "must", "need", "ought", "sha", "should", "wo", "would"]
_NEGATED_ONLY = ["ai", "are", "is", "was", "were", "have", "has", "dare"]
_UNSPLIT = [
    "Ill",
    "ill",
    "Its",
    "its",
    "Hell",
    "hell",
    "Shell",
    "shell",
    "Shed",
    "shed",
    "were",
    "Were",
    "Well",
    "well",
    "Whore",
    "whore",
]
_OTHER = "y'|all y|all how|'d|'y How|'d|'y not|'ve not|ve Not|'ve Not|ve can|not Can|not gon|na Gon|na got|ta Got|ta let|'s Let|'s c'm|on"
_OTHER += " C'm|on"
_WHOLE = (
    "'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am o'clock O'clock lovin' Lovin' havin' "
    "Havin' doin' Doin' goin' Goin' nothin' Nothin' nuthin' Nuthin' ol' Ol' somethin' Somethin' 'em 'll 'nuff 'd a.m. p.m. Mt. Ak. Ala. "
    "Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. "
    "Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. "
    "Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. "
    "Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. \\t \\n C++ "
    ":) :-) :( :-( ;) ;-) :D :-D :P :-P :p :-p :/ :-/ :| :-| :o :O :-o :-O :* :-* <3 </3 ^_^ -_- >.< o_o O_O o.o O.O xD XD =) =( =D :'( :') "
    "8) 8-) 8D :3 :> <.< >.> (: (; (-: (= [: :] :-] [-: :} :X :x -__- (._.) (>_<) (-_-) (o_o) (^_^) v.v V.V ;D =/ =3 =[ =] =| ^__^ :-X :-x :0 :-0 :-* '' ): "
    "(*_*) (-8 (-; (o: (¬_¬) (ಠ_ಠ) (╯°□°）╯︵┻━┻ )-: ._. 0.0 0.o 0_0 0_o 8-D :'-( :'-) :(( :((( :() :)) :))) :-(( :-((( :-)) :-))) :-3 :-> "
    ':-} :1 :o) ;-D ;_; <33 <333 <space> >:( >:o ><(((*> @_@ O.o O_o V_V XDD [= \\") ]= ^___^ o.0 o.O o_0 o_O v_v xDD ¯\\(ツ)/¯ '
    "°C. °F. °K. °c. °f. °k. ಠ_ಠ ಠ︵ಠ"
)


class Splits(NamedTuple):
    """An open-addressing table: slot = key & (size - 1), linear probing, an empty slot has key 0."""

    keys: np.ndarray  # (size,) uint64, `kernels.hash_points` of the whole chunk
    # (size + 128 * 128,) int64. First, a slot each: bit i set, a word starts at character i (bit 0 always).
    # Then, for each first and last ASCII character, whether any exception has those: what most chunks need not get past.
    starts: np.ndarray


def _bare(word: str) -> str:
    return word.replace("'", "")


def contractions() -> Iterator[tuple[str, ...]]:
    """Every exception as its parts, with and without the apostrophe, in lower and title case."""
    for lower, endings in _PRONOUNS.items():
        for word in (lower, lower.title()):
            for ending in endings.split():
                yield from _both(word, _PARTS.get(ending, (ending,)))
    for lower in [*_SINGULAR, "that", "this", "these", "those"]:
        plural, singular = lower in ("these", "those"), lower in ("that", "this")
        suffixes = ["ll", "llve", "d", "dve"] + ([] if plural else ["s"]) + ([] if singular else ["re", "ve"])
        for word in (lower, lower.title()):
            for ending in suffixes:
                yield from _both(word, _PARTS.get(ending, (ending,)))
    for lower in [*_NEGATED, *_NEGATED_ONLY]:
        for word in (lower, lower.title()):
            yield word, "n't"
            yield word, "nt"
            if lower in _NEGATED:
                yield word, "n't", "'ve"
                yield word, "nt", "ve"
            if lower in ("could", "might", "must", "should", "would"):
                yield from _both(word, ("ve",))
    for hour in range(1, 13):
        for period in ("a.m.", "am", "p.m.", "pm"):
            yield str(hour), period
    for joined in _OTHER.split():
        yield tuple(joined.split("|"))


def _both(word: str, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    apostrophe = "'a" if parts == ("m", "a") else None
    yield (word, "'m", "a") if apostrophe else (word, *(f"'{part}" for part in parts))
    yield word, *parts


@lru_cache(1)
def table() -> Splits:
    """The exceptions as a table for `kernels.lookup`."""
    from midtrain_dagster.clean.kernels import hash_points

    rules = {"".join(parts): parts for parts in contractions() if "".join(parts) not in _UNSPLIT}
    rules |= {whole: (whole,) for whole in _WHOLE.split()}
    rules |= {f"{letter}.": (f"{letter}.",) for letter in "abcdefghijklmnopqrstuvwxyzäöü"}
    curled = {chunk: parts for chunk, parts in rules.items() if "'" in chunk}
    rules |= {chunk.replace("'", "’"): tuple(part.replace("'", "’") for part in parts) for chunk, parts in curled.items()}
    size = 1 << (4 * len(rules)).bit_length()
    keys, starts = np.zeros(size, dtype=np.uint64), np.zeros(size + 128 * 128, dtype=np.int64)
    for chunk, parts in sorted(rules.items()):
        bits = sum(1 << sum(map(len, parts[:i])) for i in range(len(parts)))
        points = np.fromiter(map(ord, chunk), dtype=np.int32)
        key = int(hash_points(points, 0, len(points)))
        slot = key & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], starts[slot] = key, bits
        if points[0] < 128 and points[-1] < 128:
            starts[size + points[0] * 128 + points[-1]] = 1
    return Splits(keys, starts)


def units() -> np.ndarray:
    """Sorted uint64 hashes of the units that split off a number ("5kg" is two words)."""
    from midtrain_dagster.clean.kernels import hash_points

    names = [
        "km",
        "km²",
        "km³",
        "m",
        "m²",
        "m³",
        "dm",
        "dm²",
        "dm³",
        "cm",
        "cm²",
        "cm³",
        "mm",
        "mm²",
        "mm³",
        "ha",
        "µm",
        "nm",
        "yd",
        "in",
        "ft",
        "kg",
        "g",
        "mg",
        "µg",
        "t",
        "lb",
        "oz",
        "m/s",
        "km/h",
        "kmh",
        "mph",
        "hPa",
        "Pa",
        "mbar",
        "mb",
        "MB",
        "kb",
        "KB",
        "gb",
        "GB",
        "tb",
        "TB",
        "T",
        "G",
        "M",
        "K",
        "%",
        "км",
        "км²",
        "км³",
        "м",
        "м²",
        "м³",
        "дм",
        "см",
        "мм",
        "нм",
        "кг",
        "г",
        "мг",
        "м/с",
        "км/ч",
        "кПа",
        "Па",
        "мбар",
        "Кб",
        "КБ",
        "кб",
        "Мб",
        "МБ",
        "мб",
        "Гб",
        "ГБ",
        "гб",
        "Тб",
        "ТБ",
        "тб",
    ]
    hashes = [hash_points(np.fromiter(map(ord, name), dtype=np.int32), 0, len(name)) for name in names]
    return np.sort(np.array(hashes, dtype=np.uint64))
