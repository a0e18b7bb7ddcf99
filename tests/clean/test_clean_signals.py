"""Known answers for words and signals; the published rules over them."""

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.clean import characters, contractions, document
from midtrain_dagster.clean.kernels import decode
from midtrain_dagster.clean.rules import RULESETS
from midtrain_dagster.clean.signals import COLUMNS, quality_signals
from midtrain_dagster.clean.words import Rules, split


def words(text: str) -> list[str]:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    room, table = document.scratch(len(data)), contractions.table()
    n, _ = decode(data, characters.table(), room.text.points, room.text.flags, room.text.breaks)
    rules = Rules(table.keys, table.starts, contractions.units())
    once = split(room.text.points, room.text.flags, n, rules, room.words, room.chunks)
    count = split(room.text.points, room.text.flags, n, rules, room.words, room.chunks)  # now from the cache
    assert once == count
    return [text[a:b] for a, b in zip(room.words.starts[:count], room.words.ends[:count], strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't think it's 5km away.", "I|do|n't|think|it|'s|5|km|away|."),
        ('He said: "Go (now)!"', 'He|said|:|"|Go|(|now|)|!|"'),
        ("Mr. Smith, e.g., paid $5.00...", "Mr.|Smith|,|e.g.|,|paid|$|5.00|..."),
        ("well-known state/province and/or x", "well|-|known|state|/|province|and/or|x"),
        ("see https://example.org/a-b?c=d, or John's", "see|https://example.org/a-b?c=d|,|or|John|'s"),
        ("We’ll see, isn’t it? He’d’ve said “you’re”.", "We|’ll|see|,|is|n’t|it|?|He|’d|’ve|said|“|you|’re|”|."),
        ("f(): (=x=) x'' isn't", "f|(|):|(=|x=|)|x|''|is|n't"),
        ("fine :-)) and >:( or 0.o", "fine|:-))|and|>:(|or|0.o"),
        ("naïve café — “quoted”", "naïve|café|—|“|quoted|”"),
        ("  \n\t ", ""),
    ],
)
def test_words_are_cut_as_the_filters_count_them(text, expected):
    assert words(text) == [word for word in expected.split("|") if word]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(deadline=None, max_examples=200)
def test_words_are_the_text_without_its_white_space(text):
    assert "".join(words(text)) == "".join(text.split())


def one(text: str) -> dict[str, float | None]:
    return quality_signals(pl.Series([text])).row(0, named=True)


def test_word_signals():
    signals = one("The cat # sat ... on 12 mats and that")
    assert signals["words"] == 10
    assert signals["nonsymbol_words"] == 8
    assert signals["hash_word_ratio"] == pytest.approx(0.1)
    assert signals["ellipsis_word_ratio"] == pytest.approx(0.1)
    assert signals["alpha_word_ratio"] == pytest.approx(0.7)
    assert signals["stop_words"] == 2  # "and", "that": case matters, as in datatrove
    assert signals["mean_word_length"] == pytest.approx((3 + 3 + 3 + 2 + 2 + 4 + 3 + 4) / 8)


def test_line_signals():
    text = "- one...\n• two\nthree\n\nthree"
    signals = one(text)
    assert signals["lines"] == 5
    assert signals["bullet_line_ratio"] == pytest.approx(2 / 5)
    assert signals["ellipsis_line_ratio"] == pytest.approx(1 / 5)
    assert signals["max_line_length"] == 8
    assert signals["duplicate_line_ratio"] == pytest.approx(1 / 4)
    assert signals["duplicate_line_character_ratio"] == pytest.approx(5 / len(text))
    assert signals["terminal_line_ratio"] == pytest.approx(1 / 4)
    assert signals["short_line_ratio"] == 1
    assert signals["duplicate_paragraph_ratio"] == 0


def test_paragraphs_repeat_after_stripping():
    text = "  same words here\n\nother\n\n\nsame words here\n\n"
    signals = one(text)
    assert signals["duplicate_paragraph_ratio"] == pytest.approx(1 / 3)
    assert signals["duplicate_paragraph_character_ratio"] == pytest.approx(15 / len(text))


def reference_repeated(tokens: list[str], n: int) -> int:
    seen, total, i = set(), 0, 0
    while i < len(tokens) - n + 1:
        gram = tuple(tokens[i : i + n])
        if gram in seen:
            total, i = total + sum(map(len, gram)), i + n
        else:
            seen.add(gram)
            i += 1
    return total


def reference_top(tokens: list[str], n: int) -> int:
    grams = [" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    best = max(grams, key=grams.count, default=None)
    return len(best) * grams.count(best) if best is not None else 0


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=60))
@settings(deadline=None, max_examples=100)
def test_ngram_signals_equal_counting_by_hand(tokens):
    text = " ".join(tokens)
    signals = one(text)
    for n in range(2, 5):
        expected = reference_top(tokens, n) / len(text) if text else None
        assert signals[f"top_{n}gram_character_ratio"] == pytest.approx(expected)
    for n in range(5, 11):
        expected = reference_repeated(tokens, n) / len(text) if text else None
        assert signals[f"duplicate_{n}gram_character_ratio"] == pytest.approx(expected)


def test_c4_lines():
    text = "One sentence here. And another one!\nno end mark at all\nToo short.\nEnable JavaScript to see this.\nSo it said: x { y.\nCited fact here.[12]"
    signals = one(text)
    assert signals["c4_sentences"] == 3
    assert signals["c4_kept_line_ratio"] == pytest.approx(2 / 6)
    assert signals["c4_javascript_lines"] == 1
    assert signals["c4_curly_bracket_lines"] == 1


def test_code_signals():
    signals = one(
        '# This file was automatically generated. DO NOT EDIT\nx = "'
        + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJz12" * 20
        + '"\n'
    )
    assert signals["generated_notice"] == 1
    assert signals["longest_encoded_run"] == 62 * 20
    assert one('<?xml version="1.0"?><a/>')["xml_header"] == 1


def test_an_empty_text_has_no_ratios_and_is_kept_by_no_ruleset():
    signals = quality_signals(pl.Series(["", None]))
    assert signals["words"].to_list() == [0, 0]
    assert signals["alpha_word_ratio"].to_list() == [None, None]
    for rules in RULESETS.values():
        kept = " AND ".join(f"({rule['keep']}) IS TRUE" for rule in rules)
        assert duckdb.sql(f"SELECT count(*) FROM signals WHERE {kept}").fetchall() == [(0,)]


def test_every_rule_reads_the_columns_there_are_and_names_its_paper():
    signals = quality_signals(pl.Series(["A text."]))
    names = [rule["name"] for rules in RULESETS.values() for rule in rules]
    assert len(set(names)) == len(names)
    for rules in RULESETS.values():
        for rule in rules:
            assert "arXiv:" in rule["paper"]
            assert duckdb.sql(f"SELECT ({rule['keep']}) FROM signals").fetchall()
            assert signals.sql(f"SELECT ({rule['keep']}) AS keep FROM self").height == 1


def test_good_prose_passes_gopher_and_noise_does_not():
    prose = " ".join(
        f"The {i}th sentence of this text says that we have something new to tell, number {i * 7}." for i in range(8)
    )
    signals = quality_signals(pl.Series([prose, "# # # # " * 100, "word " * 200]))
    gopher = " AND ".join(f"({rule['keep']})" for rule in RULESETS["gopher"])
    repetition = " AND ".join(f"({rule['keep']})" for rule in RULESETS["gopher_repetition"][4:7])
    assert signals.select(gopher=pl.sql_expr(gopher))["gopher"].to_list() == [True, False, False]
    assert signals.select(top=pl.sql_expr(repetition))["top"].to_list()[2] is False


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_signals_do_not_depend_on_the_batch(texts):
    together = quality_signals(pl.Series(texts))
    alone = pl.concat([quality_signals(pl.Series([text])) for text in texts])
    assert together.equals(alone)
    assert together.columns == list(COLUMNS)
