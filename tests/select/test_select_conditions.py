"""What a recipe may write in a condition, and what is refused."""

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.select.conditions import Column, resolve

SCHEMAS = {
    "document": {"id": "VARCHAR", "language": "VARCHAR", "domain": "VARCHAR", "metadata": "VARCHAR", "url": "VARCHAR"},
    "signal": {"words": "BIGINT", "language": "VARCHAR", "größe": "DOUBLE", "shared": "INTEGER"},
    "rate": {"edu": "FLOAT", "edu_version": "VARCHAR", "shared": "FLOAT"},
    "match": {"score": "DOUBLE", "questions": "BIGINT"},
}


def test_columns_are_qualified_and_reported():
    found = resolve("words > 50 AND rate.edu >= 2.5 AND domain = 'words'", SCHEMAS, "rule")
    assert found.sql == """signal."words" > 50 AND rate."edu" >= 2.5 AND document."domain" = 'words'"""
    assert found.columns == {Column("signal", "words"), Column("rate", "edu"), Column("document", "domain")}


def test_positions_count_bytes_not_characters():
    assert resolve("'é€😀' = url and größe > 1", SCHEMAS, "rule").sql == '\'é€😀\' = document."url" and signal."größe" > 1'


def test_a_documents_own_column_goes_first_and_other_ambiguity_is_an_error():
    assert resolve("language = 'en'", SCHEMAS, "rule").columns == {Column("document", "language")}
    with pytest.raises(MidtrainError, match=r"signal\.shared or rate\.shared"):
        resolve("shared > 1", SCHEMAS, "rule")


@pytest.mark.parametrize(
    "condition",
    [
        "words BETWEEN 3 AND 5",
        "language IN ('en', 'de') OR language IS NULL",
        "NOT (url LIKE 'http%')",
        "CASE WHEN words > 3 THEN true ELSE false END",
        "regexp_matches(url, '^https?://')",
        "json_extract_string(metadata, '$.a') = 'b'",
        "coalesce(words, 0)::DOUBLE / 2 > 3",
        "md5_number_lower(coalesce(signal.language, document.id)) % 50 <> 0",
        "(words BETWEEN 3 AND 5) IS TRUE",
        "lower(split_part(url, '/', 3)) = 'x' -- with a comment",
    ],
)
def test_plain_expressions_pass(condition):
    assert resolve(condition, SCHEMAS, "rule").columns


@pytest.mark.parametrize(
    "condition",
    [
        "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
        "EXISTS (SELECT 1)",
        "words > 1 FROM read_csv('x')",
        "words IN (FROM 'file.parquet')",
        "words > 1; DROP TABLE documents",
        "words > 1, words > 2",
        "words > 1 AS x",
        "words > 1 ORDER BY 1",
        "words > 1 UNION SELECT 1",
        "max(words) > 1",
        "row_number() OVER () > 1",
        "*",
        "random() < 0.5",
        "now() > '2020-01-01'",
        "current_setting('threads') = '1'",
        "getenv('HOME') = 'x'",
        "nextval('s') > 1",
        "write_log('x') IS NULL",
        "no_such_function(words) > 1",
        "list_filter([1], x -> x > 1) = []",
        "words > $1",
        "words > ",
        "words > 1) OR (true",
        "",
    ],
)
def test_what_leaves_the_row_is_refused(condition):
    if condition == "words > 1) OR (true":  # two parentheses that do not belong together
        condition = "words > 1) OR (true" + ")"
    with pytest.raises(MidtrainError, match="my rule"):
        resolve(condition, SCHEMAS, "my rule")


def test_what_was_not_measured_is_named():
    with pytest.raises(MidtrainError, match="clusters, which were not given"):
        resolve("cluster.near IS NULL", SCHEMAS, "rule")
    with pytest.raises(MidtrainError, match="ratings have no column qurater; there are: edu, shared"):
        resolve("rate.qurater > 1", SCHEMAS, "rule")
    with pytest.raises(MidtrainError, match="nothing called wörter"):
        resolve("wörter > 1", SCHEMAS, "rule")
