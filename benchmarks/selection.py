"""What-if over many documents: how long a changed threshold takes to answer, beside the plain scan of the same columns.

    python benchmarks/selection.py --rows 10000000 --dir /tmp/selection

Writes Parquet of attributes once (documents, signals, ratings, clusters), then prints one JSON object per question: seconds of
`midtrain select --dry-run`'s query, and of reading the same columns without a join, which is what disk and memory allow.

Ten million rows, two threads of a shared two-core machine with a load of six at the time (so an idle one is faster), seconds:
scan without join 11.2; sources alone 1.8; one rating 18.8; a rating and three rules over signals and language 43.0. One million
rows, the same load: 1.4; 0.7; 2.7; 5.1; with duplicates, down-sampling and quotas 23.5.
"""

import argparse
import json
import time
from pathlib import Path

import duckdb

from midtrain_dagster.recipes.selection import Deduplication, DownSample, Quota, Rule, Selection, Sources, Threshold
from midtrain_dagster.select.funnel import summed
from midtrain_dagster.select.query import build

TABLES = {
    "documents": "md5(i::VARCHAR) AS id, md5((-i)::VARCHAR) AS text_hash, 'source ' || i % 20 AS source,"
    " CASE i % 3 WHEN 0 THEN 'web' WHEN 1 THEN 'code' ELSE 'math' END AS domain, 'en' AS language,"
    " 200 + hash(i) % 5000 AS characters, 50 + hash(i) % 1250 AS tokens",
    "signals": "md5(i::VARCHAR) AS id, md5((-i)::VARCHAR) AS text_hash,"
    " 20 + hash(i + 1) % 1000 AS words, random() AS symbol_ratio",
    "ratings": "md5(i::VARCHAR) AS id, md5((-i)::VARCHAR) AS text_hash,"
    " (5 * random())::FLOAT AS edu, random()::FLOAT AS quality",
    "clusters": "md5(i::VARCHAR) AS id, md5((-i)::VARCHAR) AS text_hash,"
    " CASE WHEN i % 10 = 0 THEN md5((i // 20)::VARCHAR) END AS near",
}

QUESTIONS = {
    "sources alone": Selection(sources=Sources(exclude=("source 3",))),
    "one rating": Selection(ratings={"edu": Threshold(at_least=2.5)}),
    "rating and three rules": Selection(
        ratings={"edu": Threshold(at_least=2.5)},
        rules=(
            Rule(name="words", keep="words >= 50"),
            Rule(name="symbols", keep="symbol_ratio <= 0.9"),
            Rule(name="language", keep="language = 'en'"),
        ),
    ),
    "everything": Selection(
        rules=(Rule(name="words", keep="words >= 50"),),
        ratings={"edu": Threshold(at_least=2.5)},
        deduplication=Deduplication(by=("near",), survivor=("best_rated", "longest"), rater="edu"),
        down_sample=(DownSample(fraction=0.5, where="domain = 'web'"),),
        quotas=(Quota(by="source", unit="tokens", limit=50_000_000, best="rate.edu"),),
    ),
}


def write(directory: Path, rows: int) -> None:
    """The four tables, once."""
    directory.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        for name, columns in TABLES.items():
            path = directory / f"{name}-{rows}.parquet"
            if not path.exists():
                con.execute(
                    f"SELECT setseed(0.5); COPY (SELECT {columns} FROM range({rows}) t(i)) TO '{path}' (COMPRESSION zstd)"
                )


def ask(directory: Path, rows: int, threads: int, memory: str, questions: int) -> None:
    """Print one line of JSON a question: seconds, rows a second, documents kept."""
    for question, selection in list(QUESTIONS.items())[:questions]:
        with duckdb.connect(config={"threads": threads, "memory_limit": memory}) as con:
            for name in TABLES:
                con.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{directory / f'{name}-{rows}.parquet'}')")
            started = time.perf_counter()
            counted = summed(con, build(con, selection, seed=0))
            seconds = time.perf_counter() - started
            assert counted["documents"].sum() == rows
            kept = int(counted.filter("kept")["documents"].sum())
        print(
            json.dumps(
                {
                    "question": question,
                    "rows": rows,
                    "kept": kept,
                    "seconds": round(seconds, 2),
                    "rows_per_second": int(rows / seconds),
                }
            )
        )


def scan(directory: Path, rows: int, threads: int) -> None:
    """The bound: read and hash the same keys and columns of documents and ratings, without a join."""
    with duckdb.connect(config={"threads": threads}) as con:
        started = time.perf_counter()
        for name, columns in (("documents", "id, text_hash, source, characters, tokens"), ("ratings", "id, text_hash, edu")):
            con.execute(
                f"SELECT bit_xor(hash({columns})) FROM read_parquet('{directory / f'{name}-{rows}.parquet'}')"
            ).fetchall()
        print(
            json.dumps(
                {"question": "bound: scan without join", "rows": rows, "seconds": round(time.perf_counter() - started, 2)}
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=Path("/tmp/midtrain-selection"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", default="8GB")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS), help="only the first so many")
    arguments = parser.parse_args()
    write(arguments.dir, arguments.rows)
    scan(arguments.dir, arguments.rows, arguments.threads)
    ask(arguments.dir, arguments.rows, arguments.threads, arguments.memory, arguments.questions)


if __name__ == "__main__":
    main()
