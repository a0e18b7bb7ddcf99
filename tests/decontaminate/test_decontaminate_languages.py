"""Questions in other languages: an encoder is tried before it is believed, and finds what it can read."""

import json
from hashlib import blake2b

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from midtrain_dagster.cli import application
from midtrain_dagster.decontaminate.decide import decide
from midtrain_dagster.decontaminate.index import build
from midtrain_dagster.decontaminate.languages import SENTENCES, abroad, foreign, foreign_documents, tried
from midtrain_dagster.decontaminate.match import match
from midtrain_dagster.decontaminate.questions import of_rows
from midtrain_dagster.decontaminate.resemblance import telling_units
from midtrain_dagster.decontaminate.translated import sentences
from midtrain_dagster.decontaminate.words import split
from midtrain_dagster.documents import documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.decontamination import Decontamination
from resources.embedder import Embedder, FakeEmbedder

SAID = (  # sentences that say the same; the third of a row has other numbers
    (
        "Which animal of the tundra changes the colour of its coat to white when winter comes?",
        "Welches Tier der Tundra färbt sein Fell weiß, wenn der Winter kommt?",
    ),
    (
        "A weaver dyes 14 skeins of wool on Monday and 23 on Tuesday.",
        "Une tisserande teint 14 écheveaux de laine le lundi et 23 le mardi.",
        "Une tisserande teint 19 écheveaux de laine le lundi et 31 le mardi.",
    ),
    (
        "How many skeins does she still need for 60?",
        "Combien lui en faut-il encore pour arriver à 60 ?",
        "Combien lui en faut-il encore pour arriver à 75 ?",
    ),
    ("Who was allowed to sell salt in the harbour towns under the old charter?", "按照旧的特许状，谁可以在港口城镇出售食盐？"),
)
MEANT = (SAID[0], tuple(" ".join(side) for side in zip(SAID[1][:2], SAID[2][:2], strict=True)), SAID[3])
OTHER_NUMBERS = f"{SAID[1][2]} {SAID[2][2]}"
PAGE = (
    "Die Mühle am Bach gehörte früher dem Müller, der im Frühjahr die Räder prüfte. Später kauften zwei Brüder das Gebäude. "
    "Sie räumten die Böden und flickten das Dach. Über dem Tor hing ein Schild, dessen Schrift niemand mehr lesen konnte. "
)
ASKED = of_rows("own", [{"question": question} for question, _ in MEANT])
CASCADE = Decontamination(run_functions=False)


class Polyglot:
    """Knows what the probe's sentences and those above mean, in every language; all other texts mean something else."""

    def __init__(self, english_only=False):
        self.encoded, self.version = 0, "monoglot" if english_only else "polyglot"
        rows = enumerate((*SENTENCES, *SAID))
        self.meanings = {said: number for number, row in rows for said in (row[:1] if english_only else row)}

    def encode(self, texts):
        self.encoded += len(texts)
        return np.stack([self._vector(text) for text in texts]) if texts else np.zeros((0, 64), np.float32)

    def _vector(self, text):
        known = [(number, len(said)) for said, number in self.meanings.items() if said.rstrip(".?？ ") in text]
        rest = max(0, len(text) - sum(size for _, size in known))
        vector = sum((size * _direction(str(number)) for number, size in known), rest * _direction(text))
        return (vector / max(np.linalg.norm(vector), 1e-9)).astype(np.float32)


def _direction(word):
    seed = int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "big")
    vector = np.random.default_rng(seed).normal(size=64)
    return vector / np.linalg.norm(vector)


def _documents(*texts):
    return documents([{"id": f"d{i}", "text": text} for i, text in enumerate(texts)])


def _flagged(texts, encoder):
    docs = _documents(*texts)
    return decide(match(docs, build(ASKED, CASCADE), encoder=encoder), CASCADE, docs["id"])["contaminated"].to_list()


def test_an_encoder_is_tried_before_it_is_believed():
    assert len({len(row) for row in SENTENCES}) == 1
    assert tried(Polyglot()).multilingual
    for encoder in (FakeEmbedder(), Polyglot(english_only=True), Embedder()):
        reading = tried(encoder)
        assert not reading.multilingual
        assert reading.right < 0.7
    again = Polyglot()
    tried(again)
    assert again.encoded == 0, "once for a version"


def test_which_texts_are_foreign():
    texts = [row[1] for row in MEANT] + [PAGE, *(row[0] for row in MEANT), "x = 1  # größer", "", "naïve café"]
    assert foreign(split(pl.Series(texts))).tolist()[:7] == [True] * 4 + [False] * 3
    found = foreign_documents(pl.Series([*texts[:4], None, "plain", ""]), Polyglot())
    assert found is not None
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert found.among(np.array([1, 3, 5])).rows.tolist() == [0, 1]
    for encoder in (None, FakeEmbedder(), Polyglot(english_only=True)):
        assert foreign_documents(pl.Series(texts), encoder) is None
    plain = "Quel organe du corps humain filtre le sang et produit l'urine ?"
    mixed = "使用 the option of this file for the output 文件代替默认的"
    code = "def add(o, n=1):\n    del o.rows[n:]\n    os.makedirs(o.place, exist_ok=n > 0)\n    return [x + y for x, y in zip(o.a, o.b)]\n"
    assert abroad(split(pl.Series([plain, mixed, code, *(row[0] for row in MEANT)]))).tolist() == [True] * 2 + [False] * 4
    assert not foreign(split(pl.Series([plain, mixed]))).any()


def test_a_translation_is_found_in_a_line_a_page_and_a_long_page_by_who_reads_it():
    for _, translation in MEANT:
        texts = [translation, PAGE * 3 + translation + " " + PAGE * 2, PAGE * 12 + translation + "\n" + PAGE * 15, PAGE * 20]
        assert _flagged(texts, Polyglot()) == [True, True, True, False]
        for encoder in (None, FakeEmbedder(), Polyglot(english_only=True)):
            found = _flagged(texts[1:], encoder)
            assert not any(found) or translation == MEANT[1][1], "its numbers alone may tell"


def test_a_translation_with_other_numbers_is_another_question():
    assert _flagged([MEANT[1][1], OTHER_NUMBERS], Polyglot()) == [True, False]


def test_the_span_is_where_the_translation_stands():
    before = PAGE * 12
    text = before + MEANT[0][1] + "\n" + PAGE * 15
    best = match(_documents(text), build(ASKED, CASCADE), encoder=Polyglot()).sort("score", descending=True).row(0, named=True)
    assert 0.5 <= best["score"] < 0.9, "a judge may be asked"
    assert best["start"] <= len(before) + 5
    assert best["end"] >= len(before) + len(MEANT[0][1]) - 45
    assert best["end"] - best["start"] < 1000
    assert best["cosine"] > 0.7


def test_a_document_keeps_its_matches_in_any_company():
    texts = [MEANT[0][1], PAGE * 12 + MEANT[2][1], f"The sea was calm. {MEANT[1][1]}", MEANT[1][0], PAGE]
    index, encoder = build(ASKED, CASCADE), Polyglot()
    together = match(_documents(*texts), index, encoder=encoder)
    apart = [match(_documents(*texts)[i : i + 1], index, encoder=encoder) for i in range(len(texts))]
    assert pl.concat(apart).sort("id", "question_id", "start", "question_part").equals(together)


def test_sentences_are_all_of_a_document():
    texts = [
        "".join(f"Satz {n} über Größen und Räume steht hier allein. " for n in range(120)),
        "河边的磨坊在秋天把麦子磨成面粉。" * 60,
        "größe " * 900,
        "",
        "...",
    ]
    words = split(pl.Series(texts))
    rows, first, end = sentences(words, np.arange(5))
    assert set(rows) == {0, 1, 2}
    for row, (count, longest) in enumerate(((120, 9), (60, 15), (12, 80))):
        own = rows == row
        assert (own.sum(), (end - first)[own].max()) == (count, longest)
        assert first[own][0] == words.offsets[row]
        assert end[own][-1] == words.offsets[row + 1]
        assert (first[own][1:] == end[own][:-1]).all()


def test_a_phrase_is_no_question_that_meaning_alone_could_tell():
    asked = of_rows("own", [{"question": "Is there a name for it?"}, {"question": MEANT[0][0]}])
    index = build(asked, CASCADE)
    assert index.unit_question[telling_units(index)].tolist() == [1]


def _run(tmp_path, *options):
    (tmp_path / "docs.jsonl").write_text(json.dumps({"id": "a", "text": MEANT[0][0]}) + "\n")
    (tmp_path / "own.jsonl").write_text(json.dumps({"question": MEANT[0][0]}) + "\n")
    where = ["--in", tmp_path / "docs.jsonl", "--questions", tmp_path / "own.jsonl", "--out", tmp_path / "out", *options]
    return CliRunner().invoke(application(), ["decontaminate", *map(str, where)])


def test_command_takes_an_encoder_by_name(tmp_path):
    printed = json.loads(_run(tmp_path, "--encoder", "fake").stdout)
    assert (printed["encoder"], printed["contaminated"]) == ("fake", 1)
    for options in (("--no-embed",), ("--method", "ngram")):
        error = _run(tmp_path, "--encoder", "fake", *options).exception
        assert isinstance(error, MidtrainError)
        assert "--encoder fake: nothing is encoded" in str(error)


def test_an_encoder_that_is_not_there_is_an_error_for_people(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MidtrainError, match=r"empty cannot be loaded .* name a sentence-transformers directory"):
        Embedder(str(tmp_path / "empty")).encode(["a"])
