"""A text in passages and sentences."""

import re

SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z0-9])")
ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|e\.g|i\.e|etc|cf|vs|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eq|al|approx|Inc|Ltd|Jr|Sr)\.)[\"'”’)]*$"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, line breaks within one made spaces; an empty line always ends one."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        pending = ""
        for part in SENTENCE_END.split(" ".join(block.split())):
            pending = f"{pending} {part}".strip()
            if not ABBREVIATION.search(pending):
                found.append(pending)
                pending = ""
        if pending:
            found.append(pending)
    return [sentence for sentence in found if sentence]


def passages(text: str, most_words: int) -> list[str]:
    """The text cut at line breaks and joined again up to `most_words`, as Nemotron-CC does (arXiv:2412.02595).

    A line longer than that is cut between sentences, a longer sentence between words.
    """
    found: list[str] = []
    current, size = "", 0
    for piece, glue in _pieces(text, most_words):
        count = len(piece.split())
        if current and size + count > most_words:
            found.append(current.strip())
            current, size = "", 0
        current += (glue if current else "") + piece
        size += count
    if current.strip():
        found.append(current.strip())
    return found


def _pieces(text: str, most_words: int) -> list[tuple[str, str]]:
    """(piece of at most `most_words` words, what stood before it)."""
    pieces: list[tuple[str, str]] = []
    for line in text.splitlines():
        if len(line.split()) <= most_words:
            pieces.append((line.rstrip(), "\n"))
            continue
        for number, sentence in enumerate(sentences(line)):
            words = sentence.split()
            for start in range(0, len(words), most_words):
                pieces.append((" ".join(words[start : start + most_words]), "\n" if number + start == 0 else " "))
    return pieces
