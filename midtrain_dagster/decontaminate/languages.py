"""Other languages than English: which texts are in one, and whether an encoder reads them. The latter is tried, not assumed.

An encoder is tried on sentences written for this purpose, without names and figures that would give a translation away. It
reads other languages when it puts each translation next to its own sentence. What it says of them is also its scale: cosines
of translations, and of sentences about something else, are far apart with one encoder and close with another, so that no
threshold on the cosine itself would serve two (Artetxe and Schwenk, 1811.01136).
"""

from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate.embedding import Encoder
from midtrain_dagster.decontaminate.index import FUNCTION_WORDS
from midtrain_dagster.decontaminate.words import Words, split

ENGLISH = 0.1  # of a text's words in common English
BEYOND_ASCII = 0.01  # of a text's bytes, in another language
SCRIPT = 0.15  # of a text's bytes, in another script; languages in Latin letters stay under it
COMMON = 0.1  # of a text's words in the commonest of another language
# Of German, Dutch, French, Spanish, Portuguese, Italian, Polish, Turkish and Indonesian, Swedish; none of English or of code.
COMMON_WORDS = (
    "der das und ist nicht ein eine einen mit von zu auf den dem des sich wird wie viele welche kann "
    "het een van dat niet met voor zijn wordt hoeveel welke "
    "le la les du et est une dans que qui pour avec sur pas quel quelle combien sont il elle "
    "el los las por con una se su cuantos cual como mas son "
    "da das que uma em com para nao quantos qual "
    "il lo gli di che per sono della nel quanti quale "
    "na jest sie nie ile ktory oraz "
    "ve bir bu icin ile kac hangi dan yang di dari untuk dengan berapa "
    "och att det som en av till hur vilken "
)
RIGHT = 0.9  # of the translations, next to their own sentence
APART = 0.1  # cosine by which they are nearer to it than to others, on average
SENTENCES = (  # English, German, French, Spanish, Chinese
    (
        "How many loaves can the baker make from the flour that is left in the cellar?",
        "Wie viele Brote kann der Bäcker aus dem Mehl backen, das noch im Keller liegt?",
        "Combien de pains le boulanger peut-il faire avec la farine qui reste à la cave ?",
        "¿Cuántos panes puede hacer el panadero con la harina que queda en el sótano?",
        "面包师用地窖里剩下的面粉能做多少个面包？",
    ),
    (
        "The old bridge was closed because the river had washed away one of its pillars.",
        "Die alte Brücke wurde gesperrt, weil der Fluss einen ihrer Pfeiler weggespült hatte.",
        "Le vieux pont a été fermé parce que la rivière avait emporté l'un de ses piliers.",
        "El viejo puente fue cerrado porque el río se había llevado uno de sus pilares.",
        "那座老桥被封闭了，因为河水冲走了它的一根桥墩。",
    ),
    (
        "Which organ of the body cleans the blood and makes urine?",
        "Welches Organ des Körpers reinigt das Blut und bildet den Harn?",
        "Quel organe du corps nettoie le sang et produit l'urine ?",
        "¿Qué órgano del cuerpo limpia la sangre y produce la orina?",
        "人体的哪个器官清洁血液并产生尿液？",
    ),
    (
        "She lost her keys in the snow and had to wait outside until her brother came home.",
        "Sie verlor ihre Schlüssel im Schnee und musste draußen warten, bis ihr Bruder nach Hause kam.",
        "Elle a perdu ses clés dans la neige et a dû attendre dehors que son frère rentre.",
        "Perdió las llaves en la nieve y tuvo que esperar fuera hasta que su hermano volvió a casa.",
        "她在雪地里丢了钥匙，只好在外面等到哥哥回家。",
    ),
    (
        "Two trains leave the same station in opposite directions; when will they be farthest apart?",
        "Zwei Züge verlassen denselben Bahnhof in entgegengesetzter Richtung; wann sind sie am weitesten voneinander entfernt?",
        "Deux trains quittent la même gare en sens opposé ; quand seront-ils le plus éloignés l'un de l'autre ?",
        "Dos trenes salen de la misma estación en sentidos opuestos; ¿cuándo estarán más lejos el uno del otro?",
        "两列火车从同一车站朝相反方向开出，它们什么时候相距最远？",
    ),
    (
        "The new law forbids shops to sell wine to children.",
        "Das neue Gesetz verbietet den Läden, Wein an Kinder zu verkaufen.",
        "La nouvelle loi interdit aux magasins de vendre du vin aux enfants.",
        "La nueva ley prohíbe a las tiendas vender vino a los niños.",
        "新法律禁止商店向儿童出售葡萄酒。",
    ),
    (
        "Why do the leaves of many trees turn yellow before they fall?",
        "Warum werden die Blätter vieler Bäume gelb, bevor sie abfallen?",
        "Pourquoi les feuilles de nombreux arbres jaunissent-elles avant de tomber ?",
        "¿Por qué las hojas de muchos árboles se ponen amarillas antes de caer?",
        "为什么许多树的叶子在落下之前会变黄？",
    ),
    (
        "A good hammer should be heavy enough to drive a nail and light enough to be held all day.",
        "Ein guter Hammer soll schwer genug sein, um einen Nagel einzuschlagen, und leicht genug, um ihn den ganzen Tag zu halten.",
        "Un bon marteau doit être assez lourd pour enfoncer un clou et assez léger pour être tenu toute la journée.",
        "Un buen martillo debe ser bastante pesado para clavar un clavo y bastante ligero para sostenerlo todo el día.",
        "一把好锤子应该重得足以钉钉子，又轻得可以整天拿在手里。",
    ),
)


Scaled = TypeVar("Scaled", pl.Expr, np.ndarray)


class Reading(NamedTuple):
    """How an encoder reads other languages, tried on SENTENCES."""

    right: float  # share of the translations that are nearer to their own sentence than to any other
    own: float  # mean cosine of a translation and its sentence
    other: float  # mean cosine of a translation and another sentence

    @property
    def multilingual(self) -> bool:
        """Whether what the encoder says of another language can be relied upon."""
        return self.right >= RIGHT and self.own - self.other >= APART

    def closeness(self, cosine: Scaled) -> Scaled:
        """A cosine on the encoder's own scale: 1 as near as translations are, 0 as near as anything."""
        return (cosine - self.other) / (self.own - self.other)

    def share(self, difference: Scaled) -> Scaled:
        """A difference of two cosines, on that scale."""
        return difference / (self.own - self.other)


class Foreign(NamedTuple):
    """Documents that are hardly in English, for an encoder that reads them."""

    rows: np.ndarray  # int64, ascending
    reading: Reading

    def among(self, rows: np.ndarray) -> "Foreign":
        """The same of some of the documents (ascending), by their place among these."""
        return Foreign(np.flatnonzero(np.isin(rows, self.rows)), self.reading)


def foreign_documents(texts: pl.Series, encoder: Encoder | None) -> Foreign | None:
    """The texts in other languages; None where there is none, or the encoder reads English alone."""
    if encoder is None or not (reading := tried(encoder)).multilingual:
        return None
    rows = np.flatnonzero(abroad(split(texts)))
    return Foreign(rows, reading) if len(rows) else None


def abroad(words: Words) -> np.ndarray:
    """Which texts are `foreign`, or as good as: with few English words and common ones of another language, which may need no
    other letters; or largely in another script, whatever English stands between."""
    latin = _hardly_english(words) & (_share(words, COMMON_WORDS) >= COMMON)
    found: np.ndarray = foreign(words) | latin | (_beyond_ascii(words) >= SCRIPT)
    return found


def foreign(words: Words) -> np.ndarray:
    """Which texts have less than ENGLISH of their words among English's commonest, and letters that English lacks: code has none."""
    found: np.ndarray = _hardly_english(words) & (_beyond_ascii(words) >= BEYOND_ASCII)
    return found


def _beyond_ascii(words: Words) -> np.ndarray:
    """Share of each text's bytes."""
    seen = np.concatenate([[0], np.cumsum(words.data >= 0x80)])
    share: np.ndarray = np.diff(seen[words.text_offsets]) / np.maximum(1, np.diff(words.text_offsets))
    return share


def _hardly_english(words: Words) -> np.ndarray:
    few: np.ndarray = _share(words, FUNCTION_WORDS) < ENGLISH
    return few


def _share(words: Words, common: str) -> np.ndarray:
    """Share of each text's words that are among some common ones."""
    seen = np.concatenate([[0], np.cumsum(np.isin(words.words, split(pl.Series(common.split())).words))])
    share: np.ndarray = np.diff(seen[words.offsets]) / np.maximum(1, np.diff(words.offsets))
    return share


_TRIED: dict[object, Reading] = {}


def tried(encoder: Encoder) -> Reading:
    """How an encoder reads other languages; each is tried once in a process."""
    key = getattr(encoder, "version", None) or encoder
    if key not in _TRIED:
        _TRIED[key] = _try(encoder)
    return _TRIED[key]


def _try(encoder: Encoder) -> Reading:
    count, languages = len(SENTENCES), len(SENTENCES[0])
    vectors = np.asarray(encoder.encode([said for row in SENTENCES for said in row]), np.float32)
    vectors = vectors.reshape(count, languages, -1)
    cosine = np.einsum("ild,jd->ilj", vectors[:, 1:], vectors[:, 0])  # translation i in language l, sentence j
    own = cosine[np.arange(count), :, np.arange(count)]
    apart = np.where(np.eye(count, dtype=bool)[:, None, :], np.nan, cosine)
    right = own > np.nanmax(apart, axis=2)
    return Reading(*(round(float(value), 4) for value in (right.mean(), own.mean(), np.nanmean(apart))))
