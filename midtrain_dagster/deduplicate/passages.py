"""Lines and paragraphs that many documents of one source share: menus, notices, licence headers.

CCNet (Wenzek et al., arXiv:1911.00359) and C4 (Raffel et al., arXiv:1910.10683) drop such text, C4 all but one; here it is
measured and placed, and a recipe may cut it.
"""

import tempfile
from typing import TYPE_CHECKING

import polars as pl

from midtrain_dagster.project.deduplication import Deduplication
from midtrain_dagster.tables import database

if TYPE_CHECKING:
    import duckdb

KINDS = ("line", "paragraph")
OUTER = " \t\r\f\v"  # white space that is no part of a line
PASSAGES = pl.Schema(
    {
        "id": pl.String(),
        "text_hash": pl.String(),
        "source": pl.String(),
        "lines": pl.List(pl.Int64),  # a hash of each line that is long enough to count: in lower case, without outer space
        "line_starts": pl.List(pl.Int64),  # where it starts in the text, in characters
        "line_characters": pl.List(pl.Int64),
        "paragraphs": pl.List(pl.Int64),  # the same of what stands between empty lines, any white space as one space
        "paragraph_starts": pl.List(pl.Int64),
        "paragraph_characters": pl.List(pl.Int64),
    }
)
SPANS = pl.List(pl.List(pl.Int64()))
REPEATED = pl.Schema(
    {
        "id": pl.String(),
        "text_hash": pl.String(),
        "lines": pl.Int64(),  # that are long enough to count
        "repeated_lines": pl.Int64(),
        "repeated_line_character_ratio": pl.Float64(),  # of the characters in counted lines; 0 without any
        "line_spans": SPANS,  # [start, end] in characters of the repeated ones, but for the first occurrence in the source
        "paragraphs": pl.Int64(),
        "repeated_paragraphs": pl.Int64(),
        "repeated_paragraph_character_ratio": pl.Float64(),
        "paragraph_spans": SPANS,
    }
)
SHARES = tuple(name for name, kind in REPEATED.items() if kind.is_numeric())  # what conditions may speak of


def passages(documents: pl.DataFrame, settings: Deduplication | None = None) -> pl.DataFrame:
    """PASSAGES of documents, in input order: store them, and old text is not read again. Equal on every machine."""
    settings = settings or Deduplication()
    own = documents.select("id", "text_hash", pl.col("source").fill_null("")).with_row_index("row")
    lines = _lines(documents["text"].fill_null(""))
    for kind, found in (("line", lines), ("paragraph", _paragraphs(lines))):
        counted = _hashed(found.filter(pl.col("text").str.len_chars() >= settings.line_characters), f"{kind}s")
        named = counted.group_by("row", maintain_order=True).agg(
            f"{kind}s", pl.col("start").alias(f"{kind}_starts"), (pl.col("end") - pl.col("start")).alias(f"{kind}_characters")
        )
        own = own.join(named, on="row", how="left", maintain_order="left")
    empty = pl.lit([], dtype=pl.List(pl.Int64))
    lists = [name for name, kind in PASSAGES.items() if kind == pl.List(pl.Int64)]
    return own.select("id", "text_hash", "source", pl.col(lists).fill_null(empty)).select(PASSAGES.names()).cast(PASSAGES)


def _lines(texts: pl.Series) -> pl.DataFrame:
    """`row` of the text, `start`, `end` in its characters, `text`: the lines of each text without outer space, blank ones too."""
    split = texts.to_frame("text").with_row_index("row").with_columns(pl.col("text").str.split("\n")).explode("text")
    before = (pl.col("text").str.len_chars().cast(pl.Int64) + 1).cum_sum().over("row") - pl.col("text").str.len_chars() - 1
    inner = pl.col("text").str.strip_chars_start(OUTER)
    start = before + pl.col("text").str.len_chars() - inner.str.len_chars()
    trimmed = inner.str.strip_chars_end(OUTER)
    return split.select("row", start=start, end=start + trimmed.str.len_chars(), text=trimmed)


def _paragraphs(lines: pl.DataFrame) -> pl.DataFrame:
    """The same of paragraphs: lines without an empty one between them."""
    full = lines.with_columns(run=(pl.col("text") == "").cum_sum()).filter(pl.col("text") != "")
    joined = pl.col("text").str.join(" ").str.replace_all(r"\s+", " ")
    return full.group_by("row", "run", maintain_order=True).agg(pl.col("start").first(), pl.col("end").last(), text=joined)


def _hashed(found: pl.DataFrame, name: str) -> pl.DataFrame:
    """With a hash of each passage in lower case, 63 bits of its MD5: the same in every version of every library."""
    with database() as con:
        con.register("given", found.select("text").to_arrow())
        hashes = con.sql("SELECT (md5_number_lower(lower(text)) >> 1)::BIGINT AS hash FROM given").to_arrow_table()
    return found.with_columns(pl.Series(name, hashes["hash"].to_pylist(), dtype=pl.Int64))


def repeated(stored: pl.DataFrame | str, settings: Deduplication | None = None) -> pl.DataFrame:
    """REPEATED of every document, sorted by id, from PASSAGES: a frame, or SQL that DuckDB can select from.

    A passage counts as repeated where at least `line_documents` documents of the source have it. DuckDB spills beyond `memory`.
    """
    settings = settings or Deduplication()
    with tempfile.TemporaryDirectory(prefix="midtrain-passages-") as folder, database() as con:
        con.execute(f"SET memory_limit = '{settings.memory}'")
        con.execute(f"SET temp_directory = '{folder}'")
        if isinstance(stored, pl.DataFrame):
            con.register("given", stored.to_arrow())
        source = stored if isinstance(stored, str) else "given"
        for kind in KINDS:
            _again(con, kind, source, settings.line_documents)
        counts = ", ".join(
            f"len({k}s) AS {k}s, coalesce({k}.passages, 0) AS repeated_{k}s, coalesce({k}.spans, []) AS {k}_spans, "
            f"coalesce({k}.characters / nullif(list_sum({k}_characters), 0), 0) AS repeated_{k}_character_ratio"
            for k in KINDS
        )
        joins = " ".join(f"LEFT JOIN again_{k} {k} USING (id)" for k in KINDS)
        found = con.sql(f"SELECT id, text_hash, {counts} FROM {source} {joins} ORDER BY id").to_arrow_table()
        return pl.DataFrame(pl.from_arrow(found)).select(REPEATED.names()).cast(REPEATED)


def _again(con: "duckdb.DuckDBPyConnection", kind: str, source: str, documents: int) -> None:
    """A table again_line or again_paragraph: of each document that has repeated ones how many, how long and where.

    The first occurrence, by id and place, is counted and has no span: a passage that is cut everywhere else stays there.
    """
    each = f"unnest({kind}s) AS hash, unnest({kind}_starts) AS start, unnest({kind}_characters) AS characters"
    con.execute(f"CREATE TEMP VIEW each_{kind} AS SELECT id, source, {each} FROM {source}")
    often = f"SELECT source, hash FROM each_{kind} GROUP BY source, hash HAVING count(DISTINCT id) >= {documents}"
    placed = (
        "SELECT *, row_number() OVER (PARTITION BY source, hash ORDER BY id, start) AS place "
        f"FROM each_{kind} SEMI JOIN ({often}) USING (source, hash)"
    )
    con.execute(
        f"CREATE TEMP TABLE again_{kind} AS SELECT id, count(*) AS passages, sum(characters) AS characters, "
        f"list([start, start + characters] ORDER BY start) FILTER (place > 1) AS spans FROM ({placed}) GROUP BY id"
    )
