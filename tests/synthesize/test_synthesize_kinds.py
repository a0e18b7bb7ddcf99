"""Each kind of generator with a scripted teacher: what it makes, and what it turns down."""

import ast
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midtrain_dagster.documents import documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import generators as settings
from midtrain_dagster.synthesize.driver import synthesize
from midtrain_dagster.synthesize.generator import Tools
from midtrain_dagster.synthesize.kinds import make
from midtrain_dagster.synthesize.rules import doctests
from midtrain_dagster.synthesize.simulated_tools import tools
from resources.teacher import FakeTeacher

RIVER = (
    "The Volga is the longest river in Europe. It rises in the Valdai Hills northwest of Moscow and flows 3,531 km"
    " to the Caspian Sea. Eleven of the twenty largest cities of Russia lie in its basin."
)


class TrustedSandbox:
    """Runs the tests' own harmless programs."""

    def run(self, code, *, stdin="", timeout=10.0):
        done = subprocess.run([sys.executable, "-I", "-c", code], input=stdin, capture_output=True, text=True, timeout=timeout)
        return SimpleNamespace(status="ok" if done.returncode == 0 else "failed", exit_code=done.returncode, stdout=done.stdout)


def run(chosen, script, *texts, tools=None, **columns):
    rows = [{"id": f"p{i}", "text": text, "source": "web", **columns} for i, text in enumerate(texts or (RIVER,))]
    teacher = FakeTeacher(script) if script is not None else None
    return synthesize(documents(rows), make(chosen, tools), teacher)


def reasons(result):
    return result.outcomes.filter(~result.outcomes["accepted"])["reason"].to_list()


def test_rewriting_strips_and_keeps_the_style():
    script = {
        "encyclopedia": "Here is the rewritten text: Flowing 3,531 km from the Valdai Hills to the Caspian Sea, the Volga is Europe's longest river."
    }
    (row,) = run(settings.Rewrite(name="w"), script).documents.to_dicts()
    assert row["text"].startswith("Flowing 3,531 km")
    assert json.loads(row["metadata"]) == {"style": "wikipedia"}


def test_a_rewrite_that_copies_or_wanders_is_rejected():
    assert reasons(run(settings.Rewrite(name="w"), lambda request: RIVER)) == ["copy"]
    away = " ".join(f"banana{i}" for i in range(30))
    assert reasons(run(settings.Rewrite(name="w"), lambda request: away)) == ["not about the parent"]


def test_the_question_answer_style_of_wrap_makes_pairs():
    script = {
        "series of questions": "Question: Where does the Volga rise?\nAnswer: In the Valdai Hills, northwest of the city of Moscow in Russia."
    }
    (row,) = run(settings.Rewrite(name="w", style="qa", minimum_words=5), script).documents.to_dicts()
    assert row["format"] == "qa"


def test_questions_drop_bad_pairs_and_a_cut_one():
    reply = (
        "Question: Where does the Volga rise?\nAnswer: In the Valdai Hills.\n\nQuestion: How long is the Volga?\n"
        "Answer: It flows 9,999 km.\n\nQuestion: Which sea does the Volga reach?\nAnswer: The Volga flows to the Casp"
    )
    (row,) = run(settings.Questions(name="q"), lambda request: reply).documents.to_dicts()
    assert row["text"] == "Question: Where does the Volga rise?\nAnswer: In the Valdai Hills."


def test_questions_for_sentences_have_sentences_of_the_parent_as_answers():
    chosen = settings.Questions(name="q", answers="sentences")
    (row,) = run(chosen, {"The Volga is": "What is the longest river in Europe?", "Eleven": "How many?"}).documents.to_dicts()
    assert row["text"] == "Question: What is the longest river in Europe?\nAnswer: The Volga is the longest river in Europe."


def test_instructions_need_the_form_and_grounding():
    good = "Instruction: Describe the course of the Volga.\nResponse: The Volga rises in the Valdai Hills and flows to the Caspian Sea."
    (row,) = run(settings.Instructions(name="i"), lambda request: good).documents.to_dicts()
    assert row["text"].startswith("Instruction: Describe the course of the Volga.\n\nResponse: The Volga rises")
    assert reasons(run(settings.Instructions(name="i"), lambda request: "The Volga is long.")) == ["not in the form asked for"]


def test_textbooks_name_audience_and_persona():
    chosen = settings.Textbook(name="t", personas=("a river pilot",), minimum_words=3)
    asked = []
    run(chosen, lambda request: asked.append(request.messages[-1]["content"]) or "Rivers carry water.")
    assert asked[0].startswith("You are a river pilot. Write a ")
    assert any(audience in asked[0] for audience in chosen.audiences)


def test_conversations_have_speakers_and_turns():
    talk = "Ana: Where does the Volga rise?\nBen: In the Valdai Hills.\nAna: And where does the Volga flow?\nBen: To the Caspian Sea."
    chosen = settings.Conversation(name="c", minimum_words=5)
    (row,) = run(chosen, lambda request: talk).documents.to_dicts()
    assert json.loads(row["metadata"]) == {"speakers": ["Ana", "Ben"], "turns": 4}
    assert reasons(run(chosen, lambda request: "Ana: I talk to myself about the Volga.")) == ["no conversation"]


def translate(request):
    asked = request.messages[-1]["content"]
    if "into German" in asked:
        return "Die Wolga ist der längste Fluss Europas."
    return "The Volga is the longest river in Europe, rises in the Valdai Hills and flows to the Caspian Sea."


def language(text):
    return "de" if "Fluss" in text else "en"


def test_translations_are_identified_and_translated_back():
    chosen = settings.Translation(name="t", to="de", language_name="German")
    result = run(chosen, translate, tools=Tools(identify_language=language), language="en")
    assert result.documents["language"].to_list() == ["de"]
    assert result.outcomes["accepted"].to_list() == [True, None]
    assert reasons(run(chosen, lambda r: "Il fiume scorre a sud.", tools=Tools(identify_language=language))) == ["language"]
    strict = settings.Translation(name="t", to="de", language_name="German", agreement=0.95)
    assert reasons(run(strict, translate, tools=Tools(identify_language=language))) == ["back-translation differs"]
    with pytest.raises(MidtrainError, match="language identification"):
        make(chosen)


def test_pictures_are_sent_as_image_messages(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    seen = []

    def script(request):
        picture, text = request.messages[-1]["content"]
        seen.append(picture["image_url"]["url"])
        if "Question:" in text["text"]:
            return "Question: What colour is the boat?\nAnswer: Red."
        return "A red boat lies on a wide blue river."

    chosen = settings.Images(name="m", minimum_words=5, folder=str(tmp_path))
    result = run(chosen, script, "A boat.", metadata=json.dumps({"image": str(tmp_path / "a.png")}))
    assert sorted(result.documents["format"].to_list()) == ["qa", "text"]
    assert seen == ["data:image/png;base64,iVBORw=="] * 2
    assert reasons(run(chosen, script, "A boat.")) == ["no picture"]
    (tmp_path / "in").mkdir()
    inner = settings.Images(name="m", folder=str(tmp_path / "in"))
    outside = json.dumps({"image": "../a.png"})
    assert reasons(run(inner, script, "A boat.", metadata=outside)) == ["picture outside the folder"]


PAGE = "Quiz. Question 4: What is three times four plus two? Answer: 3 * 4 = 12 and 12 + 2 = 14, so it is 14. Home | Contact | About us here."


def test_extraction_keeps_the_final_answer():
    def script(final):
        def reply(request):
            if "Page:" in request.messages[-1]["content"]:
                return "Question: What is three times four plus two?\nAnswer: 3 * 4 = 12 and 12 + 2 = 14, so it is 14."
            return f"First multiply: 3 * 4 = 12. Then add: 12 + 2 = {final}.\nFinal answer: {final}"

        return reply

    (row,) = run(settings.Extraction(name="e"), script(14), PAGE).documents.to_dicts()
    assert row["text"].endswith("Final answer: 14")
    assert reasons(run(settings.Extraction(name="e"), script(15), PAGE)) == ["final answer changed"]
    assert reasons(run(settings.Extraction(name="e"), lambda request: "none", PAGE)) == ["none"]
    invented = "Question: Who was Napoleon's cook?\nAnswer: Nobody remembers."
    assert reasons(run(settings.Extraction(name="e"), lambda request: invented, PAGE)) == ["not on the page"]


SEED = "Question: Ann has 3 bags of 4 apples. How many apples?\nAnswer: She has 3 * 4 = 12 apples. The answer is 12"


def genie(program, solutions):
    left = iter(solutions)

    def reply(request):
        asked = request.messages[-1]["content"]
        if asked.startswith("Below is the solution"):
            return "Ben owns 5 boxes of 6 pens each, so 5 * 6 = 30 pens. The answer is 30"
        if asked.startswith("Create"):
            return "Ben owns 5 boxes of 6 pens each. How many pens does Ben own?"
        return (
            f"```python\n{program}\n```" if "Python" in asked else f"5 * 6 = {next(left, 30)}. The answer is {next(left, 30)}"
        )

    return reply


def test_math_evolution_verifies_by_agreement_and_by_program():
    chosen, with_sandbox = settings.Evolution(name="g"), Tools(sandbox=TrustedSandbox())
    (row,) = run(chosen, genie("print(5 * 6)", []), SEED, tools=with_sandbox).documents.to_dicts()
    assert row["text"].startswith("Question: Ben owns 5 boxes")
    assert json.loads(row["metadata"])["answer"] == "30"
    assert reasons(run(chosen, genie("print(31)", []), SEED, tools=with_sandbox)) == ["program disagrees"]
    assert reasons(run(chosen, genie("print(30)", [1, 1, 2, 2, 3, 3]), SEED, tools=with_sandbox)) == ["samples disagree"]
    with pytest.raises(MidtrainError, match="sandbox"):
        make(chosen)


def code(solution, tests):
    def reply(request):
        if request.messages[-1]["content"].startswith("Make"):
            return "Write a function `double_all(xs)` that doubles every number of a list and skips None."
        return f"```python\n{solution}\n```\n\n```python\n{tests}\n```"

    return reply


def test_evolved_code_must_pass_tests_that_can_fail():
    chosen, with_sandbox = settings.CodeEvolution(name="c"), Tools(sandbox=TrustedSandbox())
    task = "Write a function double(x) that returns twice its argument. " * 3
    right = "def double_all(xs):\n    return [2 * x for x in xs if x is not None]"
    tests = "assert double_all([1]) == [2]\nassert double_all([None, 2]) == [4]\nassert double_all([]) == []"
    (row,) = run(chosen, code(right, tests), task, tools=with_sandbox).documents.to_dicts()
    assert ast.parse(row["text"].split("```python\n")[1].split("```")[0])
    wrong = right.replace("2 * x", "x")
    assert reasons(run(chosen, code(wrong, tests), task, tools=with_sandbox)) == ["tests fail"]
    empty = "assert double_all or True\nassert double_all or True\nassert double_all or True"
    assert reasons(run(chosen, code(right, empty), task, tools=with_sandbox)) == ["tests pass without the solution"]
    assert reasons(run(chosen, code(right, "assert True"), task, tools=with_sandbox)) == ["tests check too little"]


def agent(*steps):
    left = iter(steps)

    def reply(request):
        first = "Write one request" in request.messages[-1]["content"]
        return "How many metres long is the Volga in total?" if first else json.dumps(next(left))

    return reply


def test_trajectories_hold_true_observations():
    call = {"thought": "look it up", "tool": "calculator", "arguments": {"expression": "3531 * 1000"}}
    end = {"thought": "done", "answer": "The Volga is 3531000 metres long."}
    (row,) = run(settings.Trajectories(name="a"), agent(call, end)).documents.to_dicts()
    assert "Observation: 3531000" in row["text"]
    assert json.loads(row["metadata"])["calls"] == 1
    assert reasons(run(settings.Trajectories(name="a"), agent(end))) == ["no tool used"]
    assert reasons(run(settings.Trajectories(name="a"), agent(call, call))) == ["goes in circles"]
    assert reasons(run(settings.Trajectories(name="a"), agent({**call, "tool": "email"}))) == ["unknown tool"]
    lie = {"thought": "done", "answer": "Bananas grow everywhere."}
    assert reasons(run(settings.Trajectories(name="a"), agent(call, lie))) == ["answer not grounded"]


def test_simulated_tools_compute():
    offered = tools(("calculator", "convert_units", "calendar", "lookup", "search"), RIVER)
    assert offered["calculator"]({"expression": "(1 + 2) * 3.5"}) == "10.5"
    assert offered["convert_units"]({"value": 3, "unit": "km", "to": "m"}) == "3000 m"
    assert offered["calendar"]({"start": "2024-02-28", "days": 2}) == "2024-03-01"
    assert offered["lookup"]({"term": "eleven"}).startswith("Eleven")
    assert offered["search"]({"query": "longest river"}).startswith("The Volga")
    for bad in ({"expression": "__import__('os')"}, {"expression": "9**9**9"}, {"x": 1}, {"expression": 3}):
        with pytest.raises(ValueError, match=r"\w"):
            offered["calculator"](bad)


@given(st.text(alphabet="abc \n", min_size=2, max_size=80), st.integers(0, 5), st.sampled_from(["character", "line"]))
def test_fill_in_the_middle_loses_nothing(text, seed, level):
    result = run(settings.FillInTheMiddle(name="f", rate=1.0, seed=seed, level=level), None, text)
    for row in result.documents.to_dicts():
        start, end = json.loads(row["metadata"])["middle"]
        prefix, middle, suffix = text[:start], text[start:end], text[end:]
        psm = f"<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>{middle}"
        spm = f"<fim_prefix><fim_suffix>{suffix}<fim_middle>{prefix}{middle}"
        assert row["text"] == (psm if json.loads(row["metadata"])["order"] == "PSM" else spm)
    assert len(result.outcomes) == 1


def test_fill_in_the_middle_keeps_its_rates():
    texts = [f"def f{i}():\n    return {i}\n" for i in range(600)]
    result = run(settings.FillInTheMiddle(name="f", rate=0.5, spm_rate=0.25), None, *texts)
    orders = [json.loads(told)["order"] for told in result.documents["metadata"]]
    assert 250 < len(orders) < 350
    assert 0.18 < orders.count("SPM") / len(orders) < 0.32


def test_long_documents_use_every_parent_once():
    texts = [f"{RIVER} Part {i}." for i in range(10)]
    result = run(settings.LongDocuments(name="l", words=100), None, *texts)
    used = [parent for ids in result.documents["parent_ids"] for parent in ids]
    assert sorted(used) == sorted(set(used))
    assert sorted(result.outcomes["parent_id"].to_list()) == [f"p{i}" for i in range(10)]
    assert all(len(text.split()) >= 50 for text in result.documents["text"])


def test_long_questions_are_about_one_part():
    other = "Bread is baked from flour, water and yeast in a hot oven. It has been made for thousands of years in many lands."
    reply = "Question: How long is the Volga?\nAnswer: The Volga flows 3,531 km to the Caspian Sea."
    result = run(
        settings.LongQuestions(name="l", words=60),
        lambda r: reply if "Volga" in r.messages[-1]["content"] else "none",
        RIVER,
        other,
    )
    for row in result.documents.to_dicts():
        assert RIVER in row["text"]
        assert other in row["text"]
        assert row["text"].endswith(reply)
    assert len(result.outcomes) == 2


def test_natural_pairs_come_first_from_doctests_and_marked_pages():
    source = 'def f(x):\n    """Double.\n\n    >>> y = 2\n    >>> f(y)\n    4\n    >>> object()\n    <object at 0x7f>\n    """'
    ((question, answer),) = doctests(source)
    assert "y = 2\nf(y)" in question
    assert answer == "```\n4\n```"
    page = "FAQ\n\nQ: Where does the Volga rise?\nA: In the Valdai Hills.\n\nQ: Where does it end?\nA: In the Caspian Sea."
    result = run(settings.Natural(name="n"), None, source, page, "nothing here")
    assert len(result.documents) == 3
    assert reasons(result) == ["none"]
