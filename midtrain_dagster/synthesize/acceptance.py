"""What is taken off a reply, and why a document is not accepted. Every check returns the reason, or None."""

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

REFUSAL = re.compile(
    r"^\W*(?:i(?:'|’)?m (?:very )?sorry|i am (?:very )?sorry|sorry,|i apologi[sz]e"
    r"|as an? (?:large |ai )?(?:language model|ai|assistant)|i(?:'|’)?m (?:just |only )?an? (?:ai|language model)"
    r"|i (?:can(?:no|'|’)?t|cannot|won(?:'|’)t) "
    r"(?:help|assist|provide|fulfil|comply|do that|write|create|answer|access|continue)"
    r"|i(?:(?:'|’)?m| am) (?:unable|not able) to|unfortunately, i)",
    re.IGNORECASE,
)
PREFIX = re.compile(
    r"^\s*(?:(?:sure|certainly|of course|absolutely|okay|ok|great)[!,.:]?\s*)?"
    r"(?:here(?:'|’)?s?\b[^\n:]{0,120}:\s*|(?:the )?(?:paraphrased|rewritten|translated|revised|simplified)[^\n:]{0,40}:\s*"
    r"|(?:paraphrase|translation|rewrite|answer text|output)\s*:\s*)",
    re.IGNORECASE,
)
CHATTER = re.compile(r"^\s*(?:sure|certainly|of course|absolutely)[!,.]\s+", re.IGNORECASE)
FENCE = re.compile(r"^```[a-z]*\n(.*?)\n?```\s*$", re.DOTALL)
WORD = re.compile(r"\w+(?:['’]\w+)?")
COMMON = """a an and are as at be because been but by can could did do does for from had has have he her his how i if in into
is it its may more most must no not of on one or our out she should so some such than that the their them then there these
they this those to up was we were what when where which while who whom whose why will with would you your yes also used use
using"""
STOP_WORDS = frozenset(COMMON.split())


def strip(text: str) -> str:
    """A reply without the preamble (`Here is a paraphrased version:`), a fence or quotes around the whole."""
    text = CHATTER.sub("", PREFIX.sub("", text.strip(), count=1)).strip()
    fenced = FENCE.match(text)
    text = fenced[1].strip() if fenced else text
    for opening, closing in (('"', '"'), ("“", "”"), ("**", "**")):
        inner = text[len(opening) : -len(closing)]
        if len(text) > 2 and text.startswith(opening) and text.endswith(closing) and opening not in inner:
            text = inner.strip()
    return text


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return WORD.findall(text.lower())


def content_words(text: str) -> set[str]:
    """The words of a text that carry its matter, cut to their first six letters, so that `flows` meets `flow`."""
    return {_stem(word) for word in words(text) if word not in STOP_WORDS}


@lru_cache(1 << 17)
def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:6]


def grounded(answer: str, passage: str) -> float:
    """Share of the answer's content words that the passage contains, 0 to 1; an answer without any has 0."""
    wanted = content_words(answer)
    return len(wanted & content_words(passage)) / len(wanted) if wanted else 0.0


def overlap(left: str, right: str) -> float:
    """F1 between the content words of two texts, 0 to 1."""
    a, b = content_words(left), content_words(right)
    return 2 * len(a & b) / (len(a) + len(b)) if a and b else 0.0


def refusal(text: str) -> str | None:
    """The teacher would rather not."""
    return "refusal" if REFUSAL.match(text) else None


def too_short(text: str, minimum: int) -> str | None:
    """Fewer words than `minimum`."""
    return "too short" if len(WORD.findall(text)) < minimum else None


def repetitive(text: str) -> str | None:
    """Degenerate repetition: a loop of lines or of word 4-grams (arXiv:2112.11446 §A1.1 has the ratios for web text)."""
    tokens = words(text)
    if len(tokens) >= 20:
        grams = Counter(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
        repeated = sum(count for count in grams.values() if count > 1)
        if repeated > 0.3 * (len(tokens) - 3) and max(grams.values()) > 3:
            return "repetition"
    lines = [line.strip().lower() for line in text.splitlines() if len(line.strip()) > 10]
    return "repetition" if len(lines) >= 4 and len(set(lines)) <= len(lines) / 2 else None


def copied(text: str, original: str, most: float, run: int = 8) -> str | None:
    """More than the share `most` of the text's word runs stand in `original` as they are."""
    new, old = words(text), words(original)
    if len(new) < run:
        return None
    seen = {tuple(old[i : i + run]) for i in range(len(old) - run + 1)}
    share = sum(tuple(new[i : i + run]) in seen for i in range(len(new) - run + 1)) / (len(new) - run + 1)
    return "copy" if share > most else None


def wrong_language(text: str, expected: str | None, identify: Callable[[str], str | None] | None) -> str | None:
    """Not in the language that was wanted, where that is known and can be told."""
    if expected is None or identify is None:
        return None
    found = identify(text)
    return "language" if found is not None and found != expected else None
