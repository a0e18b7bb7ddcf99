"""A project with a generator of every kind: its sources, and a script that knows a good answer to every prompt."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

RIVERS = {
    "Volga": ("the Valdai Hills", "the Caspian Sea", "3,531"),
    "Danube": ("the Black Forest", "the Black Sea", "2,850"),
    "Loire": ("the Massif Central", "the Atlantic Ocean", "1,006"),
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
RIGHT = "def double_all(xs):\n    return [2 * x for x in xs if x is not None]"
TESTS = "assert double_all([1]) == [2]\nassert double_all([None, 2]) == [4]\nassert double_all([]) == []"
PLAIN = (
    "Rivers rise in hills and forests and flow to the sea. People have built towns at their banks since early times, and "
    "ships carry goods up and down. Their length in km is measured from the spring to the sea."
)
TALK = (
    "Ana: Where does the river rise?\nBen: It rises in the hills.\nAna: And where does it flow?\nBen: It flows to the sea, "
    "and towns lie on its banks."
)
STEPS = (
    {"thought": "I need the length in metres.", "tool": "calculator", "arguments": {"expression": "3531 * 1000"}},
    {"thought": "Now I know it.", "answer": "It is 3531000 metres long."},
)
SCRIPT = {  # words of the prompt -> a good answer; the first that fits counts
    "Observation: 3531000": json.dumps(STEPS[1]),
    "How many metres long": json.dumps(STEPS[0]),
    "Write one request of a user": "How many metres long is the river in total?",
    "series of questions with their answers": "Question: Where do rivers rise?\nAnswer: In hills and forests.",
    "List the facts": "- Rivers rise in hills and forests.\n- Rivers flow to the sea.\n- Towns lie at their banks and ships go there.",
    "Rewrite the text below": PLAIN,
    "Write down, in connected prose": PLAIN,
    "questions that can be answered by looking": "Question: What colour is the boat?\nAnswer: Red.",
    "Describe the picture": "A red boat lies on a wide blue river under an evening sky.",
    "Write 2 questions": "Question: Where do the ships of the river carry grain?\nAnswer: Ships carry grain from the towns to the sea.",
    "Write 3 questions": "Question: Where do the ships of the river carry grain?\nAnswer: Ships carry grain from the towns to the sea.",
    "Write the question that this statement answers": "What do ships carry from the towns to the sea?",
    "Write one task": "Instruction: Explain what ships do on a river.\nResponse: Ships carry grain from the towns to the sea in summer.",
    "Translate the text below into German": "Der Fluss entspringt in den Bergen und fließt zum Meer; die Schiffe bringen Getreide aus den Städten.",
    "Translate the text below into English": (
        "The river rises in the hills and flows to the sea. Ships carry grain from the towns to the sea in summer."
    ),
    "on the subject of the extract": f"{PLAIN} Let us look at an example. A drop of rain falls on a hill and runs down. " * 2,
    "Turn the text below into a conversation": TALK,
    "word for word in this form": "Question: What is three times four plus two?\nAnswer: 3 * 4 = 12 and 12 + 2 = 14, so it is 14.",
    "Write the answer again": "First multiply: 3 * 4 = 12. Then add: 12 + 2 = 14.\nFinal answer: 14",
    "Is the web site quiz.example": "Yes, it is.",
    "Is the web site": "No.",
    "Below is the solution": "Ben owns 5 boxes of 6 pens each, so 5 * 6 = 30 pens. The answer is 30",
    "Create a new mathematical problem": "Ben owns 5 boxes of 6 pens each. How many pens does Ben own?",
    "Solve this problem": "There are 5 boxes with 6 pens, which makes 5 * 6 = 30. The answer is 30",
    "Write a short Python program": "```python\nprint(5 * 6)\n```",
    "somewhat harder programming task": "Write a function `double_all(xs)` that doubles every number of a list and skips None.",
    "Write Python code for the task": f"```python\n{RIGHT}\n```\n\n```python\n{TESTS}\n```",
}
STYLES = ("wikipedia", "easy", "hard", "qa", "distill", "knowledge", "list")
SHORT = {"minimum_words": 5, "minimum_parent_words": 5}
GENERATORS: tuple[dict[str, Any], ...] = (
    *({"name": f"rewrite_{style}", "kind": "rewrite", "style": style, "parents": ["prose"], **SHORT} for style in STYLES),
    {"name": "questions", "kind": "questions", "parents": ["prose"]},
    {"name": "sentence_questions", "kind": "questions", "answers": "sentences", "parents": ["prose"]},
    {"name": "instructions", "kind": "instructions", "parents": ["prose"]},
    {"name": "textbook", "kind": "textbook", "parents": ["prose"], "personas": ["a ferryman"], **SHORT},
    {"name": "conversation", "kind": "conversation", "parents": ["prose"], **SHORT},
    {"name": "translation", "kind": "translation", "to": "de", "language_name": "German", "parents": ["prose"]},
    {"name": "images", "kind": "images", "parents": ["pictures"], **SHORT},
    {
        "name": "extraction",
        "kind": "extraction",
        "parents": ["pages"],
        "recall": {
            "seeds": "url like 'https://quiz.example/%' and text like '%Answer:%'",
            "host_pages": 2,
            "training": {"minCount": 1, "epoch": 20, "dim": 8, "lr": 0.5},
        },
    },
    {"name": "evolution", "kind": "evolution", "parents": ["problems"], "minimum_parent_words": 5},
    {"name": "code_evolution", "kind": "code_evolution", "parents": ["tasks"], "minimum_parent_words": 5},
    {"name": "trajectories", "kind": "trajectories", "parents": ["prose"]},
    {"name": "fill_in_the_middle", "kind": "fill_in_the_middle", "parents": ["tasks"], "rate": 1.0},
    {"name": "long_documents", "kind": "long_documents", "parents": ["prose"], "words": 100},
    {"name": "long_questions", "kind": "long_questions", "parents": ["prose"], "words": 100},
    {"name": "natural", "kind": "natural", "parents": ["problems"]},
)


def river(name: str) -> str:
    """What the source `prose` says of a river."""
    spring, mouth, length = RIVERS[name]
    return (
        f"The {name} is one of the great rivers of Europe. It rises in {spring} and flows {length} km to {mouth}. "
        f"Ships carry grain from the towns on the {name} to the sea in summer. People have built towns at the banks of the "
        f"{name} since early times, because the hills and forests near the river gave them stone and wood for their houses."
    )


def sources() -> dict[str, list[dict[str, Any]]]:
    """The documents of each source."""
    quiz = "Quiz. Question: What is {} plus two? Answer: {} + 2 = {}, so it is {}. Home | Contact | About us here."
    pages = [
        {
            "id": "q0",
            "text": "Quiz. Question: What is three times four plus two? Answer: 3 * 4 = 12 and 12 + 2 = 14, so it is 14. Home | "
            "Contact | About us here, and more pages.",
            "url": "https://quiz.example/0",
        },
        *({"id": f"q{i}", "text": quiz.format(i, i, i + 2, i + 2), "url": f"https://quiz.example/{i}"} for i in range(1, 6)),
        *(
            {"id": f"n{i}", "text": f"News of day {i}. {river(n)}", "url": f"https://news.example/{i}"}
            for i, n in enumerate(RIVERS)
        ),
    ]
    problem = "Question: {} has 3 bags of 4 apples each. How many apples are there?\nAnswer: There are 3 * 4 = 12 apples. The answer is 12"
    task = "Write a function double(x) that returns twice its argument, and name it double. Task {}."
    return {
        "prose": [{"id": name, "text": river(name)} for name in RIVERS],
        "pages": pages,
        "problems": [{"id": name, "text": problem.format(name)} for name in ("Ann", "Ben")],
        "tasks": [{"id": f"t{i}", "text": task.format(i)} for i in range(2)],
        "pictures": [{"id": "boat", "text": "A boat on a river in the evening.", "image": "boat.png"}],
    }


def write(root: Path, teacher: Mapping[str, Any], generators: tuple[dict[str, Any], ...] = GENERATORS, **more: Any) -> Path:
    """Write the sources and midtrain.yaml below `root`; returns the project file."""
    (root / "boat.png").write_bytes(base64.b64decode(PIXEL))
    for name, rows in sources().items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    domains = {"problems": "math", "tasks": "code"}
    values = {
        "name": "generators",
        "storage": "lake",
        "automatic": False,
        "sources": [
            {"name": name, "kind": "jsonl", "location": f"{name}.jsonl", "domain": domains.get(name, "prose")}
            for name in sources()
        ],
        "generators": [
            {**generator, "folder": str(root)} if generator["kind"] == "images" else dict(generator) for generator in generators
        ],
        "teacher": dict(teacher),
        "embedder": {"model": "fake"},
        "recipes": [],
        **more,
    }
    file = root / "midtrain.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file
