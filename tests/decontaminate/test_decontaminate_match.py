import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.decontaminate.decide import decide
from midtrain_dagster.decontaminate.index import build, new_questions
from midtrain_dagster.decontaminate.match import MATCHES_SCHEMA, match, rescan
from midtrain_dagster.decontaminate.questions import QUESTIONS_SCHEMA
from midtrain_dagster.decontaminate.words import split
from midtrain_dagster.documents import documents, text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.decontamination import Decontamination

FERRY = (
    "A ferry carries 14 lorries and 35 bicycles from the harbour at Lindholm every morning. Each lorry pays $12 and each "
    "bicycle pays $3. How many dollars does the ferry company collect in a week of seven mornings?"
)
MOTH = "Which hormone makes the larva of a silk moth shed its cuticle before it spins the cocoon?"
MOTH_IN_FULL = MOTH + "\nA. insulin\nB. ecdysone\nC. thyroxine\nD. melatonin\nAnswer: ecdysone"
CODE = (
    'def rotate_left(values: list, steps: int) -> list:\n    """Move every element of the list steps places to the left, '
    'wrapping around.\n    >>> rotate_left([4, 8, 15], 1)\n    [8, 15, 4]\n    """\n'
)
CHINESE = "一个水池有两个进水管和一个出水管，甲管单独开放需要六小时注满，乙管需要八小时，问同时开放几小时可以注满水池？"
ARABIC = "كم عدد التفاحات التي يشتريها سالم إذا كان معه عشرون دينارا وثمن التفاحة الواحدة ديناران في سوق المدينة القديمة"
FILLER = "The valley was quiet that year and the people mended their nets by lamplight while snow lay on the road. " * 4
LEXICAL = ("ngram", "phi4", "idf", "hybrid", "cascade")


def _questions(*rows):
    filled = [
        {
            "question_id": text_hash(q),
            "benchmark": "own",
            "question": q,
            "answer": a,
            "choices": c,
            "row": i,
            "text_hash": text_hash(q),
        }
        for i, (q, a, c) in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema=QUESTIONS_SCHEMA)


QUESTIONS = _questions(
    (FERRY, "1911", []),
    (MOTH, "ecdysone", ["insulin", "ecdysone", "thyroxine", "melatonin"]),
    (CODE, "    return values[steps:] + values[:steps]", []),
    (CHINESE, None, []),
    (ARABIC, None, []),
    ("Why?", "because", []),
)


def _documents(*texts):
    return documents([{"id": f"d{i}", "text": text} for i, text in enumerate(texts)])


def _flagged(texts, method="cascade", **options):
    choice = Decontamination(method=method, **options)
    docs = _documents(*texts)
    decisions = decide(match(docs, build(QUESTIONS, choice)), choice, docs["id"])
    assert decisions["id"].to_list() == sorted(docs["id"])
    return decisions["contaminated"].to_list()


@pytest.mark.parametrize("method", LEXICAL)
@pytest.mark.parametrize(
    "question", [f"{FERRY} 1911", MOTH_IN_FULL, CODE + "    return values[steps:] + values[:steps]", CHINESE, ARABIC]
)
def test_verbatim_inside_a_page_is_found(method, question):
    assert _flagged([f"{FILLER}{question} {FILLER}", FILLER], method) == [True, False]


JAPANESE = "ある水槽に毎分十二リットルの水を入れると二十五分で満水になります。この水槽の容積は何リットルですか。"
THAI = "แม่ค้าขายมะม่วงวันละสามสิบหกผลเป็นเวลาเก้าวัน ถ้าเธอเหลือมะม่วงอีกสิบสี่ผล เดิมเธอมีมะม่วงทั้งหมดกี่ผล"
HEBREW = "כמה ימים נדרשים לשלושה פועלים לבנות את הקיר אם פועל אחד לבדו בונה אותו בעשרים וארבעה ימים"
CHINESE_PAGE = (
    "村里的老人们常说，早年间河边有一座磨坊，每到秋天大家都把新收的麦子送去磨成面粉，孩子们在水车旁边玩到天黑才回家。" * 4
)
JAPANESE_PAGE = "山あいの村では冬になると雪が深く積もり、人々は囲炉裏を囲んで昔話を語り合いながら春を待ったものでした。" * 4
THAI_PAGE = "ในหมู่บ้านริมแม่น้ำผู้คนตื่นแต่เช้าเพื่อออกไปหาปลาและกลับมาพักผ่อนใต้ต้นไม้ใหญ่ในยามบ่าย " * 4
HEBREW_PAGE = "בכפר הקטן שליד הים ישבו הדייגים ותיקנו את הרשתות לאור הנר עד שעת לילה מאוחרת " * 4


@pytest.mark.parametrize("method", LEXICAL)
@pytest.mark.parametrize(
    ("question", "page"),
    [(CHINESE, CHINESE_PAGE), (JAPANESE, JAPANESE_PAGE), (THAI, THAI_PAGE), (HEBREW, HEBREW_PAGE), (ARABIC, ARABIC[::-1])],
)
def test_a_question_without_spaces_or_from_right_to_left_is_found_in_a_page_of_its_script(method, question, page):
    """A page of the same script is no match by itself: characters are words there, and many are shared."""
    choice = Decontamination(method=method)
    docs = _documents(f"{page} {question} {page}", page)
    index = build(_questions((question, None, []), ("Why?", "because", [])), choice)
    assert decide(match(docs, index), choice, docs["id"])["contaminated"].to_list() == [True, False]


def test_span_is_the_question_itself_in_characters():
    page = "Größe 東京 — " + FILLER + FERRY + FILLER
    best = match(_documents(page), build(QUESTIONS)).sort("score", descending=True).row(0, named=True)
    assert page[best["start"] : best["end"]] == FERRY.rstrip("?")
    assert best["text_hash"] == text_hash(page)
    assert best["longest_run"] == len(split(pl.Series([FERRY])).words)


@pytest.mark.parametrize("method", LEXICAL)
def test_edge_texts_are_clean(method):
    assert not any(
        _flagged(["", " \n", "Why?", "Why", "?!", "🙂 🙂", "\ud800".encode("utf-8", "replace").decode(), "a"], method)
    )


def test_null_text_is_clean():
    docs = pl.DataFrame({"id": ["a"], "text": [None]}, schema={"id": pl.String, "text": pl.String})
    assert match(docs, build(QUESTIONS)).is_empty()


def test_edited_reordered_and_reformatted_questions_are_found():
    words = FERRY.split()
    swapped = " ".join(w if i % 5 else "copper" for i, w in enumerate(words))
    rewritten = (
        "Every morning the ferry from Lindholm harbour carries 35 bicycles and 14 lorries; a bicycle pays $3 and a lorry $12. "
        "What does the ferry company collect over seven mornings, in dollars?"
    )
    shuffled = f"{MOTH}\n(a) melatonin\n(b) thyroxine\n(c) insulin\n(d) ecdysone"
    assert _flagged([FERRY.upper().replace(" ", "\n* "), swapped, rewritten, shuffled, MOTH]) == [True] * 5


def test_another_problem_of_the_same_kind_is_a_near_miss_and_a_rewritten_one_is_not():
    another = "A bakery sells 14 loaves every morning. Each loaf costs $3. How many dollars does the bakery make in a week?"
    slots = (
        FERRY.replace("14", "19").replace("35", "42").replace("$12", "$17").replace("$3", "$5").replace("Lindholm", "Varberg")
    )
    assert _flagged([another, slots]) == [False, True]
    row = match(_documents(slots), build(QUESTIONS)).row(0, named=True)
    assert row["numbers_changed"] == 4
    assert row["frame_overlap"] > row["order_overlap"]


def test_common_wording_alone_is_clean():
    common = _questions(("Which of the following is true?", "B", ["The sea is salt.", "Copper is a gas."]))
    docs = _documents(
        "Which of the following is true? We cannot say yet.",
        "Which of the following is true? The sea is salt. Copper is a gas.",
    )
    choice = Decontamination()
    assert decide(match(docs, build(common)), choice, docs["id"])["contaminated"].to_list() == [False, True]


def test_arithmetic_counts_only_with_its_own_signs():
    """Eight small numbers in a row prove nothing; the same expression, sign for sign, does."""
    sums = _questions(("((-1 + 2 + 9 * 5) - (-2 + -4 + -4 * -7)) =", "24", []))
    docs = _documents("Find ((-1 + 2 + 9 * 5) - (-2 + -4 + -4 * -7)) = now", "rows 1 2 9 5 2 4 4 7 and 24 more")
    choice = Decontamination()
    assert decide(match(docs, build(sums)), choice, docs["id"])["contaminated"].to_list() == [True, False]


def test_result_does_not_depend_on_company_or_order():
    docs = _documents(FILLER + FERRY, MOTH, FILLER, CODE, "", ARABIC)
    index = build(QUESTIONS)
    together = match(docs, index)
    alone = pl.concat([match(docs[i : i + 1], index) for i in reversed(range(len(docs)))]).sort(
        "id", "question_id", "start", "question_part"
    )
    assert together.equals(alone)
    assert together.schema == MATCHES_SCHEMA


def test_new_questions_are_matched_alone():
    known = QUESTIONS.head(2)
    fresh = new_questions(QUESTIONS, known["question_id"])
    assert fresh["question"].to_list() == QUESTIONS["question"].to_list()[2:]
    assert set(match(_documents(CODE, FERRY), build(fresh))["id"]) == {"d0"}
    assert build(known).fingerprint != build(QUESTIONS).fingerprint


def test_allow_list_undoes_document_pair_and_phrase(tmp_path):
    path = tmp_path / "allow.txt"
    for line, expected in [("", True), ("d0\n", False), (f"d0\t{text_hash(FERRY)}\n", False), (f"# comment\n{FERRY}\n", False)]:
        path.write_text(line)
        assert _flagged([FERRY], "phi4", allow_list=path) == [expected]
    with pytest.raises(MidtrainError, match="nowhere"):
        _flagged([FERRY], allow_list=tmp_path / "nowhere")


def test_rescan_finds_verbatim_questions_only():
    texts = pl.DataFrame({"id": ["s0", "s1"], "text": [FILLER + CODE + FILLER, FILLER]})
    assert set(rescan(texts, build(QUESTIONS))["id"]) == {"s0"}


class _Encoder:
    """Vectors by subject: texts that name a ferry or a boat are one direction, others their own."""

    def encode(self, texts):
        out = np.zeros((len(texts), 3), np.float32)
        for i, text in enumerate(texts):
            out[i, 0 if "ferry" in text.lower() or "boat" in text.lower() else 1 + len(text) % 2] = 1
        return out


def test_embedding_finds_meaning_and_says_where():
    choice = Decontamination(method="embedding")
    docs = _documents("The boat takes wagons over the sound.", "no words in common " * 3)
    index = build(QUESTIONS.head(1), choice)
    found = match(docs, index, encoder=_Encoder())
    assert decide(found, choice, docs["id"])["contaminated"].to_list() == [True, False]
    assert found.row(0, named=True)["cosine"] == pytest.approx(1)
    with pytest.raises(MidtrainError, match="encoder"):
        match(docs, index)


def test_unknown_method_and_no_questions_are_errors():
    with pytest.raises(MidtrainError, match="magic"):
        match(_documents(FERRY), build(QUESTIONS), "magic")
    with pytest.raises(MidtrainError, match="no questions"):
        build(QUESTIONS.clear())


def test_ten_megabyte_document():
    text = FILLER * (10_000_000 // len(FILLER)) + FERRY
    started = time.process_time()
    assert _flagged([text], "hybrid") == [True]
    assert time.process_time() - started < 60


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=5))
def test_words_are_slices_of_the_text(texts):
    """Every word is a piece of its own text, in order, and equal texts have equal words."""
    words = split(pl.Series(texts, dtype=pl.String))
    twice = split(pl.Series(texts * 2, dtype=pl.String))
    for row, text in enumerate(texts):
        begin, end = words.offsets[row], words.offsets[row + 1]
        pieces = [
            words.data[a:b].tobytes().decode() for a, b in zip(words.starts[begin:end], words.ends[begin:end], strict=True)
        ]
        at = 0
        for piece in pieces:
            at = text.index(piece, at) + len(piece)
    assert (twice.words[: len(words.words)] == twice.words[len(words.words) :]).all()


def test_case_accents_width_and_inflection_fold():
    words = split(pl.Series(["CAFÉ Cafe\u0301 cafe ｃａｆｅ", "computing computes element elements"]))
    assert len(set(words.words[:4].tolist())) == 1
    assert len(set(words.stems[4:].tolist())) == 2


def test_exchanged_words_leave_the_others_in_their_places():
    """45 of 100 words exchanged for others: what is left stands where it stood. The same words elsewhere, or one phrase, are no copy."""
    words = FERRY.split()
    kept = (1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0)
    swapped = " ".join(w if kept[i % len(kept)] else "copper" for i, w in enumerate(words))
    assert sum(w == "copper" for w in swapped.split()) >= 0.4 * len(words)
    phrase = f"{FILLER} Of the harbour at Lindholm every morning it was said that nobody knew it. {FILLER}"
    elsewhere = f"{FILLER} " + f" {FILLER[:90]} ".join(words[i] for i in range(0, len(words), 2))
    assert _flagged([swapped, f"{FILLER}\n{swapped}\n{FILLER}", phrase, elsewhere]) == [True, True, False, False]


@pytest.mark.parametrize("method", ["ngram", "hybrid", "cascade"])
def test_the_first_pass_lets_through_what_the_words_would_find(method):
    """Letters beyond ASCII, marks, words at the very end: the pass over bytes reads the same words as the splitter."""
    texts = [FERRY.upper(), CHINESE, ARABIC, FERRY.replace("ferry", "fe\u0301rry"), "é" + FERRY, FERRY[:-1], FILLER, "", None]
    docs = pl.DataFrame(
        {"id": [f"d{i}" for i in range(len(texts))], "text": texts}, schema={"id": pl.String, "text": pl.String}
    )
    found = set(match(docs, build(QUESTIONS), method)["id"])
    assert found >= {"d0", "d1", "d2", "d3", "d4", "d5"}
    assert not found & {"d6", "d7", "d8"}
