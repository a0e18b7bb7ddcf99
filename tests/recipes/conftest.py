"""A small project with every domain that the recipes mix: documents short and long, English and German, all unlike each other."""

import random
from pathlib import Path

import pytest
import yaml
from small_project import write_lines, write_project

ENGLISH = (
    "river mill water wheel letter box stair sister map surveyor evening square baker oven smoke wood pear tree week fruit "
    "road bridge winter harvest school window garden stone market ship captain island weather morning lamp table clock story "
    "teacher village forest bird horse field engine station train paper pencil music violin dinner bread cheese apple"
)
GERMAN = (
    "der Fluss die Mühle das Wasser ein Brief unter der Treppe und die Schwester mit einer Karte am Abend auf dem Platz nicht "
    "der Bäcker aus dem Ofen von dem Rauch das Holz der Birnbaum in der Woche über die Brücke im Winter zur Schule durch das "
    "Fenster neben dem Garten für den Markt auf dem Schiff ohne den Kapitän bei jedem Wetter am Morgen unter der Lampe"
)


def words(seed: str, count: int, vocabulary: str = ENGLISH) -> str:
    """Sentences of eight random words, the same for the same seed."""
    draw = random.Random(seed)
    choices = vocabulary.split()
    drawn = [draw.choice(choices) for _ in range(count)]
    joiner = " the " if vocabulary is ENGLISH else " "
    sentences = [joiner.join(drawn[i : i + 8]) for i in range(0, count, 8)]
    return " ".join(f"{'The ' if vocabulary is ENGLISH else ''}{sentence}." for sentence in sentences)


def sum_of(seed: int) -> str:
    """A worked addition."""
    draw = random.Random(seed)
    a, b, c = (draw.randrange(100, 999) for _ in range(3))
    about = words(f"sum {seed}", 6)
    return f"{about} Add {a}, {b} and {c}. First {a} + {b} = {a + b}; then {a + b} + {c} = {a + b + c}. The sum is {a + b + c}."


def function(seed: int, lines: int) -> str:
    """A function of random assignments."""
    draw = random.Random(f"function {seed}")
    names = draw.choices(ENGLISH.split(), k=lines)
    body = "".join(f"    {name} = n * {draw.randrange(99)} + {draw.randrange(99)}\n" for name in names)
    return f"def {draw.choice(ENGLISH.split())}_{seed}(n: int) -> int:\n{body}    return {names[-1]}\n"


SOURCES = {
    "pages": ("web", [lambda i: words(f"page {i}", 40), lambda i: words(f"Seite {i}", 60, GERMAN)]),
    "sums": ("math", [sum_of]),
    "prose": ("prose", [lambda i: words(f"note {i}", 12), lambda i: words(f"chapter {i}", 120)]),
    "code": ("code", [lambda i: function(i, 2), lambda i: function(1000 + i, 30)]),
    "answers": ("qa", [lambda i: f"Question: what about {words(f'q {i}', 6)}\nAnswer: {words(f'a {i}', 12)}"]),
}


@pytest.fixture(scope="module")
def every_domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project file of the small project, with these sources in place of its own, and without raters and generators."""
    root = tmp_path_factory.mktemp("recipes")
    file: Path = write_project(root, documents=1)
    values = {**yaml.safe_load(file.read_text()), "sources": [], "generators": [], "raters": []}
    for name, (domain, kinds) in SOURCES.items():
        rows = [{"id": f"{kind}-{i}", "text": make(i)} for kind, make in enumerate(kinds) for i in range(40)]
        write_lines(root / f"{name}.jsonl", rows)
        values["sources"].append({"name": name, "kind": "jsonl", "location": f"{name}.jsonl", "domain": domain})
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file
