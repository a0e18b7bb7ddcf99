"""The file that undoes false positives: documents, document–question pairs, and common phrases."""

import re
from pathlib import Path
from typing import NamedTuple

from midtrain_dagster.errors import MidtrainError

DOCUMENT_ID = re.compile(r"[^\s]+")


class AllowList(NamedTuple):
    """What is allowed though it matches."""

    documents: frozenset[str]
    pairs: frozenset[tuple[str, str]]  # document id, question id
    phrases: tuple[str, ...]  # common n-grams, in words


NOTHING = AllowList(frozenset(), frozenset(), ())


def read_allow_list(path: Path | None) -> AllowList:
    """Lines `id`, `id<TAB>question_id`, or a phrase of two words and more; `#` begins a comment; no path, nothing allowed.

    Raises MidtrainError for a file that cannot be read.
    """
    if path is None:
        return NOTHING
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MidtrainError(f"{path}: the allow-list cannot be read: {error}") from None
    entries = [line for line in lines if line.strip() and not line.startswith("#")]
    pairs = [tuple(part.strip() for part in e.split("\t", 1)) for e in entries if "\t" in e]
    single = [e.strip() for e in entries if "\t" not in e]
    return AllowList(
        frozenset(e for e in single if DOCUMENT_ID.fullmatch(e)),
        frozenset((p[0], p[1]) for p in pairs),
        tuple(e for e in single if not DOCUMENT_ID.fullmatch(e)),
    )
