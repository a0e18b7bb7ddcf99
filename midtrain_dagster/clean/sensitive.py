"""Sensitive data: where e-mail addresses, telephone, card and account numbers, IP addresses and credentials stand.

A vectorised pattern (no look-around, so that it runs in linear time) finds texts that may hold one; the exact rule, with its
checksum, then reads only those. Offsets are counted in characters (code points) of the cleaned text before masking, end exclusive.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import polars as pl

from midtrain_dagster.project.cleaning import Kind

SPANS = pl.Schema({"id": pl.String, "text_hash": pl.String, "kind": pl.String, "start": pl.Int64, "end": pl.Int64})


class Detector(NamedTuple):
    """`hint` is a Rust pattern any text must match first; `pattern` (its group "it" where it has one) and `valid` decide.

    `lines`: nothing of this kind goes over the end of a line, so that only lines which the hint matches are read.
    """

    hint: str
    pattern: re.Pattern[str]
    valid: Callable[[str], bool]
    lines: bool = True


def luhn(number: str) -> bool:
    """Whether the digits satisfy the Luhn checksum (ISO/IEC 7812-1) and are not all the same."""
    digits = [int(d) for d in number if d.isdigit()]
    doubled = [d if i % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def iban(number: str) -> bool:
    """Whether an account number satisfies ISO 7064 mod 97-10 (ISO 13616)."""
    compact = "".join(number.split())
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def public_address(text: str) -> bool:
    """Whether this is an IP address that could belong to someone: not private, loopback, reserved or unspecified."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def telephone(text: str) -> bool:
    """Whether there are as many digits as a telephone number has (E.164: at most 15)."""
    digits = sum(c.isdigit() for c in text)
    return (8 if text.lstrip("( ").startswith("+") else 10) <= digits <= 15


def secret(text: str) -> bool:
    """Whether an assigned value looks random rather than like a placeholder: letters and digits mixed, many different characters."""
    return len(set(text)) >= 8 and any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


def _always(text: str) -> bool:
    return True


_KEYS = (
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[A-Za-z0-9_-]{20,}|xox[baprs]-[A-Za-z0-9-]{10,}"
    r"|sk-[A-Za-z0-9_-]{20,}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{50,}|npm_[A-Za-z0-9]{36}"
    r"|[sr]k_live_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{32,}|dckr_pat_[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{30,}"
    r"|hooks\.slack\.com/services/T[A-Za-z0-9]{6,}/B[A-Za-z0-9]{6,}/[A-Za-z0-9]{16,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)
_ASSIGNED = (
    r"(?i:password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key)[\"']?[ \t]{0,3}(?:=|:|=>)[ \t]{0,3}[\"']"
)

DETECTORS: dict[Kind, tuple[Detector, ...]] = {
    "email": (
        Detector(
            r"[A-Za-z0-9._%+-]@[A-Za-z0-9-]+\.[A-Za-z]",
            re.compile(
                r"(?<![\w.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![\w-])"
            ),
            _always,
        ),
    ),
    "phone": (
        Detector(
            r"\+\d{1,3}[ ().-]{0,2}\d|\(\d{3}\) ?\d{3}[ -]\d{4}|\d{3}[-.]\d{3}[-.]\d{4}",
            re.compile(
                r"(?<![\w.+/-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}|\(\d{3}\) ?\d{3}[ -]\d{4}|\d{3}([-.])\d{3}\1\d{4})(?![\w/-]|\.\d)"
            ),
            telephone,
        ),
    ),
    "ip_address": (
        Detector(
            r"\d\.\d{1,3}\.\d{1,3}\.\d",
            re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"),
            public_address,
        ),
        Detector(
            r"[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{0,34}:[0-9A-Fa-f]",
            re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:.])"),
            public_address,
        ),
    ),
    "card": (
        Detector(
            r"[2-6]\d{3}(?:[ -]?\d{2,6}){2,4}",
            re.compile(
                r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-]|\.\d)|(?<![\w.-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]|\.\d)"
            ),
            luhn,
        ),
    ),
    "iban": (
        Detector(
            r"[A-Z]{2}\d{2} ?[0-9A-Z]{4} ?[0-9A-Z]{4}",
            re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?(?!\w)"),
            iban,
        ),
    ),
    "credential": (
        Detector(rf"{_KEYS}", re.compile(rf"(?<![A-Za-z0-9])(?:{_KEYS})(?![A-Za-z0-9])"), _always),
        Detector(
            r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY",
            re.compile(
                r"-----BEGIN (?:[A-Z]{1,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----)[\s\S]){64,20000}-----END (?:[A-Z]{1,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
            ),
            _always,
            lines=False,
        ),
        Detector(
            rf"{_ASSIGNED}[^\s\"']{{8}}",
            re.compile(rf"{_ASSIGNED}(?P<it>[^\s\"'<>{{}}$]{{8,200}})[\"']"),
            secret,
        ),
        Detector(  # a line of an environment file
            r"(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY)[A-Z0-9_]{0,20}[ \t]?=[ \t]?[A-Za-z0-9+/_.=-]{12}",
            re.compile(
                r"(?<![A-Za-z0-9])[A-Z0-9_]{0,40}(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY)[A-Z0-9_]{0,20}[ \t]?=[ \t]?(?P<it>[A-Za-z0-9+/_.=-]{12,200})(?![^\s])"
            ),
            secret,
        ),
        Detector(  # the password in an address
            r"[a-z]://[^\s/:@]{1,64}:[^\s/:@]{6,64}@[A-Za-z0-9]",
            re.compile(r"(?<![\w])[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:(?P<it>[^\s/:@<>{}$]{6,64})@[A-Za-z0-9]"),
            secret,
        ),
    ),
}


def find_spans(text: str, kind: Kind) -> Iterator[tuple[int, int]]:
    """(start, end) of each `kind` in one text, in characters."""
    for detector in DETECTORS[kind]:
        for _, start, end in _found(pl.Series([text]), detector):
            yield start, end


def spans(documents: pl.DataFrame, kinds: Sequence[Kind]) -> pl.DataFrame:
    """SPANS of documents (`id`, `text`, `text_hash`), in document order and by start; where two overlap, the first of `kinds` stays."""
    texts = documents["text"].fill_null("")
    hits: dict[int, list[tuple[int, int, str]]] = {}
    for kind in kinds:
        for detector in DETECTORS[kind]:
            for position, start, end in _found(texts, detector):
                met = hits.setdefault(position, [])
                if all(end <= a or start >= b for a, b, _ in met):
                    met.append((start, end, kind))
    keys = documents.select("id", "text_hash")
    rows = [(*keys.row(position), kind, start, end) for position in sorted(hits) for start, end, kind in sorted(hits[position])]
    return pl.DataFrame(rows, schema=SPANS, orient="row")


def _found(texts: pl.Series, detector: Detector) -> Iterator[tuple[int, int, int]]:
    """(position of the text, start, end) of what one detector finds; it reads only the lines that its hint matches."""
    where = texts.str.contains(detector.hint).arg_true()
    if where.is_empty():
        return
    chosen = pl.DataFrame({"position": where, "text": texts.gather(where)})
    if detector.lines:
        pieces = chosen.with_columns(pl.col("text").str.split("\n")).explode("text")
        length = pl.col("text").str.len_chars().cast(pl.Int64) + 1
        pieces = pieces.with_columns(before=length.cum_sum().over("position") - length)
        pieces = pieces.filter(pl.col("text").str.contains(detector.hint))
    else:
        pieces = chosen.with_columns(before=pl.lit(0, dtype=pl.Int64))
    for position, text, before in pieces.select("position", "text", "before").iter_rows():
        for start, end in _matches(text, detector):
            yield position, before + start, before + end


def _matches(text: str, detector: Detector) -> Iterator[tuple[int, int]]:
    group = "it" if "it" in detector.pattern.groupindex else 0
    for match in detector.pattern.finditer(text):
        if detector.valid(match.group(group)):
            yield match.span(group)


def mask(text: str, found: Sequence[tuple[str, int, int]]) -> str:
    """The text with each (kind, start, end), sorted and disjoint, replaced by its kind in angle brackets: `<email>`."""
    parts, last = [], 0
    for kind, start, end in found:
        parts += [text[last:start], f"<{kind}>"]
        last = end
    return "".join([*parts, text[last:]])
