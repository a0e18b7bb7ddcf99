"""Lines and paragraphs that many documents of one source share: menus, notices, licence headers.

CCNet (Wenzek et al., arXiv:1911.00359) and C4 (Raffel et al., arXiv:1910.10683) drop such text; here it is measured.
"""

import tempfile

import polars as pl

from midtrain_dagster.project.deduplication import Deduplication
from midtrain_dagster.tables import database

KINDS = ("line", "paragraph")
PASSAGES = pl.Schema(
    {
        "id": pl.String(),
        "text_hash": pl.String(),
        "source": pl.String(),
        "lines": pl.List(pl.Int64),  # a hash of each line that is long enough to count: in lower case, without outer space
        "line_characters": pl.List(pl.Int64),
        "paragraphs": pl.List(pl.Int64),  # the same of what stands between empty lines, any white space as one space
        "paragraph_characters": pl.List(pl.Int64),
    }
)
REPEATED = pl.Schema(
    {
        "id": pl.String,
        "text_hash": pl.String,
        "lines": pl.Int64,  # that are long enough to count
        "repeated_lines": pl.Int64,
        "repeated_line_character_ratio": pl.Float64,  # of the characters in counted lines; 0 without any
        "paragraphs": pl.Int64,
        "repeated_paragraphs": pl.Int64,
        "repeated_paragraph_character_ratio": pl.Float64,
    }
)

_SPLIT = r"""
WITH split AS (
    SELECT id, text_hash, source,
        list_transform(string_split(text, chr(10)), lambda x: lower(trim(x, E' \t\r'))) AS l,
        list_transform(regexp_split_to_array(text, '\n\s*\n'), lambda x: lower(trim(regexp_replace(x, '\s+', ' ', 'g')))) AS p
    FROM given
), counted AS (
    SELECT id, text_hash, source, list_filter(l, lambda x: length(x) >= LEAST) AS l, list_filter(p, lambda x: length(x) >= LEAST) AS p
    FROM split
)
SELECT id, text_hash, source,
    list_transform(l, lambda x: (md5_number_lower(x) >> 1)::BIGINT) AS lines, list_transform(l, lambda x: length(x)) AS line_characters,
    list_transform(p, lambda x: (md5_number_lower(x) >> 1)::BIGINT) AS paragraphs, list_transform(p, lambda x: length(x)) AS paragraph_characters
FROM counted
"""


def passages(documents: pl.DataFrame, settings: Deduplication | None = None) -> pl.DataFrame:
    """PASSAGES of documents, in input order: store them, and old text is not read again. Equal on every machine."""
    settings = settings or Deduplication()
    given = documents.select("id", "text_hash", pl.col("source").fill_null(""), pl.col("text").fill_null(""))
    with database() as con:
        con.register("given", given.to_arrow())
        found = con.sql(_SPLIT.replace("LEAST", str(settings.line_characters))).to_arrow_table()
    return pl.DataFrame(pl.from_arrow(found)).cast(PASSAGES)


def repeated(stored: pl.DataFrame | str, settings: Deduplication | None = None) -> pl.DataFrame:
    """REPEATED of every document, sorted by id, from PASSAGES: a frame, or SQL that DuckDB can select from.

    A passage counts as repeated where at least `line_documents` documents of the source have it. DuckDB spills beyond `memory`.
    """
    settings = settings or Deduplication()
    with tempfile.TemporaryDirectory(prefix="midtrain-passages-") as folder, database() as con:
        con.execute(f"SET memory_limit = '{settings.memory}'")
        con.execute(f"SET temp_directory = '{folder}'")
        source = stored
        if isinstance(stored, pl.DataFrame):
            con.register("given", stored.to_arrow())
            source = "given"
        for kind in KINDS:
            each = f"SELECT id, source, unnest({kind}s) AS hash, unnest({kind}_characters) AS characters"
            con.execute(f"CREATE TEMP VIEW each_{kind} AS {each} FROM {source}")
            often = f"SELECT source, hash FROM each_{kind} GROUP BY source, hash HAVING count(DISTINCT id) >= {settings.line_documents}"
            con.execute(
                f"CREATE TEMP TABLE again_{kind} AS SELECT id, count(*) AS passages, sum(characters) AS characters "
                f"FROM each_{kind} SEMI JOIN ({often}) USING (source, hash) GROUP BY id"
            )
        counts = ", ".join(
            f"len({k}s) AS {k}s, coalesce({k}.passages, 0) AS repeated_{k}s, "
            f"coalesce({k}.characters / nullif(list_sum({k}_characters), 0), 0) AS repeated_{k}_character_ratio"
            for k in KINDS
        )
        joins = " ".join(f"LEFT JOIN again_{k} {k} USING (id)" for k in KINDS)
        found = con.sql(f"SELECT id, text_hash, {counts} FROM {source} {joins} ORDER BY id").to_arrow_table()
        return pl.DataFrame(pl.from_arrow(found)).select(REPEATED.names()).cast(REPEATED)
