"""Text repair: encoding accidents, Unicode form, lines that are page furniture.

A vectorised test finds the few texts that need work; only those are touched one by one. Code (format "code") keeps its
exact characters, but for a byte order mark at the start and NUL characters, which no language needs: normalisation would
change string literals and identifiers, and white space carries meaning.
"""

import polars as pl

from midtrain_dagster.project.cleaning import Cleaning

# Lines that say nothing of the page's own text. Compared whole, in lower case, without outer white space.
BOILERPLATE = (
    "skip to content", "skip to main content", "skip to navigation", "jump to navigation", "jump to search", "toggle navigation",
    "back to top", "read more", "continue reading", "share this", "share on facebook", "share on twitter", "tweet", "advertisement",
    "sign in", "log in", "sign up", "subscribe", "subscribe to our newsletter", "leave a comment", "leave a reply", "print this page",
    "accept cookies", "accept all cookies", "cookie settings", "we use cookies", "all rights reserved", "all rights reserved.",
    "privacy policy", "terms of use", "terms of service", "cookie policy", "previous post", "next post", "related posts", "loading...",
)  # fmt: skip

# What UTF-8 read as Latin-1 or Windows-1252 leaves, entities, and what ftfy calls bad characters.
_SUSPICIOUS = (
    r"[ÂÃâÎÐØÙãåæçèéïð][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020-\u2022\u02c6\u2030\u0160\u2039\u0152\u017d\u2018-\u201d"
    r"\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]|&[A-Za-z]{2,8};|&#\d{2,6};|[\u0080-\u009f]|[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]|\x1b"
    r"|[\ufb00-\ufb06\uff01-\uff5e\ufeff\ufffc\u206a-\u206f]"
)


def repair(texts: pl.Series, code: pl.Series, settings: Cleaning) -> pl.Series:
    """The texts repaired as `settings` say; `code` (Boolean) marks those whose characters are left alone."""
    name = texts.name
    frame = pl.DataFrame({"text": texts.fill_null(""), "code": code.fill_null(False)})
    frame = frame.with_columns(text=pl.col("text").str.strip_prefix("\ufeff").str.replace_all("\0", "", literal=True))
    if settings.repair:
        frame = _mend(frame)
    if settings.normalization != "none":
        normal = pl.col("text").str.normalize(settings.normalization)
        ascii_only = pl.col("text").str.len_bytes() == pl.col("text").str.len_chars()
        frame = frame.with_columns(text=pl.when(pl.col("code") | ascii_only).then("text").otherwise(normal))
    if settings.boilerplate:
        frame = _cut_lines(frame, tuple(sorted({*BOILERPLATE, *settings.boilerplate_lines})))
    return frame["text"].rename(name)


def _mend(frame: pl.DataFrame) -> pl.DataFrame:
    """ftfy for the texts that show a sign of damage. White space and quotation marks are left as written."""
    damaged = frame["text"].str.contains(_SUSPICIOUS) & ~frame["code"]
    if not damaged.any():
        return frame
    import ftfy

    how = ftfy.TextFixerConfig(
        uncurl_quotes=False, fix_line_breaks=False, fix_latin_ligatures=True, normalization=None, explain=False
    )
    where = damaged.arg_true()
    mended = [ftfy.fix_text(text, how) for text in frame["text"].gather(where)]
    return frame.with_columns(text=frame["text"].scatter(where, mended))


def _cut_lines(frame: pl.DataFrame, lines: tuple[str, ...]) -> pl.DataFrame:
    """Cut whole lines that are one of `lines`; a text of nothing else is left as it is."""
    escaped = "|".join(pl.Series(lines).str.escape_regex())
    pattern = rf"(?im)^[ \t]*(?:{escaped})[ \t]*(?:\n|\z)"
    present = pl.col("text").str.contains_any(list(lines), ascii_case_insensitive=True) & ~pl.col("code")
    cut = pl.col("text").str.replace_all(pattern, "")
    return frame.with_columns(
        text=pl.when(present).then(pl.when(cut.str.strip_chars() != "").then(cut).otherwise("text")).otherwise("text")
    )
