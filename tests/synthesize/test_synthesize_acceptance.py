"""Stripping and checking replies, passages and sentences, final answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midtrain_dagster.synthesize import acceptance
from midtrain_dagster.synthesize.answers import final_answer, majority, same_answer
from midtrain_dagster.synthesize.passages import passages, sentences
from midtrain_dagster.synthesize.prompts import fill
from midtrain_dagster.synthesize.questions import bad_pair, bad_question, pairs, tells
from midtrain_dagster.synthesize.teacher import mismatch


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Here is a paraphrased version: The cat sat.", "The cat sat."),
        ("Sure! Here's the rewritten text:\n\nThe cat sat.", "The cat sat."),
        ("Certainly, the cat sat.", "the cat sat."),
        ('"The cat sat."', "The cat sat."),
        ('"Go," she said, "now."', '"Go," she said, "now."'),
        ("```\nThe cat sat.\n```", "The cat sat."),
        ("The cat sat: on a mat.", "The cat sat: on a mat."),
        ("Here lies a cat.", "Here lies a cat."),
    ],
)
def test_preambles_are_taken_off(reply, text):
    assert acceptance.strip(reply) == text


@pytest.mark.parametrize(
    "text", ["I'm sorry, but I can't.", "As an AI language model, I do not", "I cannot help with this.", "I am unable to"]
)
def test_refusals_are_seen(text):
    assert acceptance.refusal(text) == "refusal"


@pytest.mark.parametrize("text", ["I can swim.", "He said: I'm sorry.", "As an artist, she painted.", "I cannot swim."])
def test_other_texts_are_no_refusals(text):
    assert acceptance.refusal(text) is None


def test_a_loop_is_repetition_and_prose_is_not():
    assert acceptance.repetitive("the cat sat on the mat and " * 8) == "repetition"
    assert acceptance.repetitive(" ".join(f"word{i}" for i in range(60))) is None


def test_copying_counts_runs_of_words():
    original = " ".join(f"w{i}" for i in range(40))
    assert acceptance.copied(original, original, 0.9) == "copy"
    assert acceptance.copied(" ".join(f"v{i}" for i in range(40)), original, 0.9) is None


def test_grounding_counts_content_words():
    assert acceptance.grounded("The rivers flowed south", "A river flows to the south.") == 1.0
    assert acceptance.grounded("Bananas ripen", "A river flows to the south.") == 0.0


def test_pairs_in_many_dresses():
    text = "**Question 1:** Who rules?\n**Answer:** The\nqueen.\n\n2. Question: Where?\nAnswer: Here.\nQ: When?\nA: Now."
    assert pairs(text) == [("Who rules?", "The queen."), ("Where?", "Here."), ("When?", "Now.")]


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("How long is the Volga?", "It flows 3,531 km.", None),
        ("How long is the Volga?", "It flows 3,600 km.", "number not in parent"),
        ("Tell me about the Volga.", "It flows 3,531 km.", "no question"),
        ("Which river is the Volga?", "The Volga is a river.", "answer in question"),
        ("What does the text say of it?", "It flows 3,531 km.", "question about the text as such"),
        ("How old is a banana tree?", "It flows 3,531 km.", "question not grounded"),
    ],
)
def test_pairs_are_judged(question, answer, reason):
    assert bad_pair(question, answer, "The Volga is a river that flows 3,531 km.", 0.6) == reason


def test_questions_end_in_a_question_mark():
    assert bad_question("Where does the Volga rise?") is None
    assert bad_question("Where does the Volga rise") == "no question"


def test_sentences_keep_abbreviations_and_numbers():
    assert sentences("Dr. A. Smith paid 3.50 euros, i.e. much. He left! Did he?") == [
        "Dr. A. Smith paid 3.50 euros, i.e. much.",
        "He left!",
        "Did he?",
    ]


def test_a_sentence_that_refers_back_tells_nothing():
    assert tells("The Volga rises in the hills northwest of Moscow and flows south.")
    assert not tells("It rises in the hills northwest of Moscow and flows south.")


@given(st.lists(st.text(alphabet="ab .\n", max_size=40), max_size=20).map("".join), st.integers(1, 10))
def test_passages_lose_no_word_and_keep_their_limit(text, limit):
    cut = passages(text, limit)
    assert " ".join(cut).split() == text.split()
    assert all(1 <= len(passage.split()) <= limit for passage in cut)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("2 + 2 = 4\n#### 4", "4"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("The answer is 12 apples.", "12 apples"),
        ("First 3, then 7 remain", "7"),
        ("Final answer: Paris.", "Paris"),
    ],
)
def test_final_answers_are_found(solution, answer):
    assert final_answer(solution) == answer


def test_answers_are_compared_by_value():
    assert same_answer("$1,200", "1200.0")
    assert same_answer("1/2", "0.5")
    assert same_answer("Paris.", "paris")
    assert not same_answer("12", "13")
    assert not same_answer("", "")


def test_the_majority_counts_equal_values_together():
    assert majority(["4", "4.0", "5"]) == ("4", 2 / 3)
    assert majority([]) == ("", 0.0)


def test_braces_in_a_value_stay():
    assert "{pairs} of {x}" in fill("rewrite_easy", passage="{pairs} of {x}")


def test_a_schema_mismatch_names_the_place():
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
    assert mismatch({"a": [1, 2]}, schema) is None
    assert mismatch({"a": [1, "x"]}, schema) == "value.a[1] is no integer"
    assert mismatch({}, schema) == "value has no a"
    assert mismatch({"a": [True]}, schema) == "value.a[0] is no integer"
