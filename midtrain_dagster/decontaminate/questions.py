"""Benchmark questions, read from each data set's own row format into one frame."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.decontaminate.layouts import Question, question_of, rows_of
from midtrain_dagster.documents import text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.files import name_of_rows, open_binary

QUESTIONS_SCHEMA = pl.Schema(
    {  # type: ignore[arg-type]
        "question_id": pl.String,  # hash of the benchmark's name and the question's own text: the same wherever it is read
        "benchmark": pl.String,
        "question": pl.String,
        "answer": pl.String,  # the gold answer's text; null where the set gives none
        "choices": pl.List(pl.String),
        "passage": pl.String,
        "row": pl.Int64,  # 0-based, in its file
        "text_hash": pl.String,  # of everything above that has words
    }
)
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".jsonl.zst")
CSV_FIELD_BYTES = 1 << 27


def read_questions(paths: Iterable[Path | tuple[str, Path]], mapping: Mapping[str, str] | None = None) -> pl.DataFrame:
    """All questions of `paths` (files, directories, or (name, path) pairs) as QUESTIONS_SCHEMA, in file order.

    `mapping` names the fields of layouts that are not known: `{"question": "prompt_text", "answer": "gold.text"}`.
    Rows without any question text are left out, and equal questions of one benchmark are one.
    Raises MidtrainError, naming the keys that it found, when a layout is unknown.
    """
    frames = [_frame(name, str(path), _rows(path), mapping) for name, path in _files(paths)]
    return pl.concat([pl.DataFrame(schema=QUESTIONS_SCHEMA), *frames]).unique("question_id", keep="first", maintain_order=True)


def of_rows(benchmark: str, rows: Iterable[Any], mapping: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Questions of rows that are at hand, as a data set of the hub: QUESTIONS_SCHEMA, in their order; errors as `read_questions`."""
    return _frame(benchmark, benchmark, enumerate(rows), mapping).unique("question_id", keep="first", maintain_order=True)


def _frame(name: str, where: str, rows: Iterable[tuple[int, Any]], mapping: Mapping[str, str] | None) -> pl.DataFrame:
    """The rows that hold a question, `where` they stand named in errors."""
    every = ((number, part) for number, row in rows for part in rows_of(row))
    asked = [(number, question_of(row, mapping, where=f"{where}, row {number}")) for number, row in every]
    records = [_record(name, number, q) for number, q in asked if q is not None and q.question.strip()]
    return pl.DataFrame(records, schema=QUESTIONS_SCHEMA)


def _record(name: str, number: int, question: Question) -> dict[str, Any]:
    whole = "\n".join([question.passage or "", question.question, *question.choices, question.answer or ""])
    digest = text_hash(whole)
    return {
        "question_id": text_hash(f"{name}\0{digest}"),
        "benchmark": name,
        **question._asdict(),
        "row": number,
        "text_hash": digest,
    }


def _files(paths: Iterable[Path | tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    for entry in paths:
        name, path = entry if isinstance(entry, tuple) else (None, entry)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(SUFFIXES))
            if not found:
                raise MidtrainError(f"{path}: no question files; expected one of {', '.join(SUFFIXES)}")
            yield from ((name or name_of_rows(p), p) for p in found)
        elif path.exists():
            yield name or name_of_rows(path), path
        else:
            raise MidtrainError(f"{path}: there is no such file or directory of questions")


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(0-based number, row): a mapping of fields, or a list of columns for a file without a header."""
    lower = path.name.lower()
    if lower.endswith(".parquet"):
        yield from enumerate(pl.read_parquet(path).iter_rows(named=True))
    elif lower.endswith((".csv", ".tsv")):
        yield from enumerate(_csv_rows(path, "\t" if lower.endswith(".tsv") else ","))
    else:
        yield from enumerate(_json_rows(path))


def _json_rows(path: Path) -> Iterator[Any]:
    """One row a line, or the whole file as a list (or as a mapping with a list in `data` or `examples`, as BBH ships it)."""
    with open_binary(path) as file:
        content = file.read().decode("utf-8", "replace")
    lines = [line for line in content.split("\n") if line.strip()]
    try:
        yield from [json.loads(line) for line in lines]
        return
    except ValueError as error:
        problem = error
    try:
        whole = json.loads(content)
    except ValueError:
        raise MidtrainError(f"{path}: neither one JSON row a line nor one JSON document: {problem}") from None
    lists = [whole] if isinstance(whole, list) else [whole.get(k) for k in ("data", "examples", "Data")]
    rows = next((rows for rows in lists if isinstance(rows, list)), None)
    if rows is None:
        raise MidtrainError(f"{path}: a JSON document without a list of rows in `data` or `examples`; keys: {', '.join(whole)}")
    yield from rows


def _csv_rows(path: Path, delimiter: str) -> Iterator[Any]:
    csv.field_size_limit(CSV_FIELD_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter=delimiter) if line]
    if lines and _is_header(lines[0]):
        yield from (dict(zip(lines[0], line, strict=False)) for line in lines[1:])
    else:
        yield from lines


def _is_header(cells: list[str]) -> bool:
    """Column names are short, distinct words, the last of them not an option's letter (MMLU's files have no header)."""
    named = all(cell.strip() and len(cell) <= 40 and cell.replace("_", "").replace(" ", "").isalnum() for cell in cells)
    return (
        named
        and len(set(cells)) == len(cells)
        and cells[-1].strip() not in tuple("ABCDEFGHIJ")
        and any("_" in cell or cell.lower() in KNOWN_HEADERS for cell in cells)
    )


KNOWN_HEADERS = frozenset(
    "question answer answers choices text input target prompt problem solution context passage "  # noqa: SIM905
    "sentence query subject id a b c d".split()
)
