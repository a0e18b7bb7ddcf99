"""Evidence that needs no overlap of words: a line that is a short question, and the worked examples of a programming task."""

import re
from collections import defaultdict
from collections.abc import Iterator

import polars as pl

from midtrain_dagster.decontaminate.index import SHORT, Index
from midtrain_dagster.decontaminate.words import Words

SHORTEST = 12  # characters of it
NUMBERING = r"^(?:\W*(?:question|problem|input|prompt|q)\W*\d*\W*[:.)]\s*|\W*\d+[.)]\s+)"  # of a line in lower case
EXAMPLE = re.compile(
    r"(?<!def )\b[A-Za-z_]\w*\(([^\n]{1,200}?)\)\s*(?:\n\s*([^\n>]{1,120})|(?:==|=>|->|➞|→|=|returns|should return)\s*([^\n#]{1,120}))"
)
DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
LONGEST_CODE = 20_000  # characters of a document that is searched for a task's examples
EXAMPLE_CAP = 24  # characters of one example that count
EXAMPLES_LEAST = 16  # of characters that must agree
FOUND_SCHEMA = pl.Schema({"row": pl.Int64, "unit": pl.Int64, "first_word": pl.Int64, "end_word": pl.Int64})


def short_lines(texts: pl.Series, words: Words, index: Index) -> pl.DataFrame:
    """FOUND_SCHEMA: lines that are a short question from the first sign to the last, case, white space and numbering aside."""
    known = _short_questions(index)
    longest = max(map(len, known), default=0) * 2 + 40
    lines = (
        pl.DataFrame({"line": texts.fill_null("")})
        .with_row_index("row")
        .with_columns(pl.col("line").str.split("\n"))
        .explode("line")
        .filter(pl.col("line").str.len_bytes().is_between(SHORTEST, longest))
    )
    plain = pl.col("line").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    lines = lines.with_columns(plain=plain).with_columns(bare=pl.col("plain").str.replace(NUMBERING, ""))
    wanted = sorted(known)
    rows = []
    for row, line, whole, bare in lines.filter(pl.col("plain").is_in(wanted) | pl.col("bare").is_in(wanted)).iter_rows():
        unit = known[whole if whole in known else bare]
        rows.append((row, unit, *_span(words, row, texts[row], texts[row].index(line), len(line))))
    return pl.DataFrame(rows, schema=FOUND_SCHEMA, orient="row").unique(maintain_order=True)


def _short_questions(index: Index) -> dict[str, int]:
    lengths = index.units.offsets[1:] - index.units.offsets[:-1]
    short = [u for u in range(len(index)) if 3 <= lengths[u] <= SHORT and index.unit_part[u] == "question"]
    plain = {u: _plain(index.text(u)) for u in short}
    return {text: u for u, text in reversed(plain.items()) if len(text) >= SHORTEST}


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def same_examples(texts: pl.Series, words: Words, index: Index) -> pl.DataFrame:
    """FOUND_SCHEMA and `examples_kept`: documents whose docstrings work the same examples as a question's.

    Who rewords a task renames the function and its arguments; the values it is called with and what they give remain.
    The share is by characters of value and result, the function's name aside; at least EXAMPLES_LEAST must agree.
    """
    holders, sizes = _question_examples(index)
    rows = []
    for row, text in enumerate(texts):
        if not holders or not text or len(text) > LONGEST_CODE or "def " not in text:
            continue
        for doc in DOCSTRING.finditer(text):
            shared: dict[int, int] = defaultdict(int)
            for example in sorted(set(examples(doc.group(2)))):
                for unit in holders.get(example, ()):
                    shared[unit] += min(len(example), EXAMPLE_CAP)
            best = max(shared, key=lambda u: (shared[u] / sizes[u], -u), default=None)
            if best is not None and shared[best] >= EXAMPLES_LEAST:
                rows.append(
                    (row, best, *_span(words, row, text, doc.start(), doc.end() - doc.start()), shared[best] / sizes[best])
                )
    return pl.DataFrame(rows, schema={**FOUND_SCHEMA, "examples_kept": pl.Float64}, orient="row")


def examples(text: str) -> Iterator[str]:
    """What a function is called with and what that gives, without white space and quotes: `[1.5,3.1],0.4:True`."""
    for found in EXAMPLE.finditer(text):
        result = found.group(2) or found.group(3) or ""
        yield "".join(f"{found.group(1)}:{result}".replace('"', "'").split()).rstrip(".;,")


def _question_examples(index: Index) -> tuple[dict[str, list[int]], dict[int, int]]:
    holders, sizes = defaultdict(list), {}
    for unit in range(len(index)):
        text = index.text(unit) if index.unit_part[unit] == "question" else ""
        own = sorted(set(examples(text))) if "def " in text else []
        sizes[unit] = sum(min(len(e), EXAMPLE_CAP) for e in own)
        for example in own:
            holders[example].append(unit)
    return holders, sizes


def _span(words: Words, row: int, text: str, start: int, length: int) -> tuple[int, int]:
    """Word positions of a span of characters."""
    base, end = int(words.offsets[row]), int(words.offsets[row + 1])
    at = int(words.text_offsets[row])
    first, last = (at + len(text[:stop].encode()) for stop in (start, start + length))
    own = words.starts[base:end]
    return base + int(own.searchsorted(first)), base + int(own.searchsorted(last))
