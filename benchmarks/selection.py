"""What-if over many documents: how long a changed threshold takes to answer, beside the plain scan of the same columns.

    python benchmarks/selection.py --rows 10000000 --dir /tmp/selection

Writes Parquet of attributes once (documents, signals, ratings, clusters), then prints one JSON object per question: seconds and
processor seconds of the query behind `midtrain select --dry-run`, as a multiple of reading and hashing the same keys and columns
without a join, which is what disk and memory allow; and of the command itself. What was measured stands in docs/rating.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import yaml

from midtrain_dagster.recipes.named import load
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


class Clock:
    """Seconds and processor seconds, of children too."""

    def __enter__(self) -> "Clock":
        self.started, self.spent = time.perf_counter(), cpu()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = round(time.perf_counter() - self.started, 2), round(cpu() - self.spent, 2)


def cpu() -> float:
    """Processor seconds of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def scan(directory: Path, rows: int, threads: int) -> Clock:
    """The bound: read and hash the same keys and columns of documents and ratings, without a join."""
    columns = {"documents": "id, text_hash, source, characters, tokens", "ratings": "id, text_hash, edu"}
    with duckdb.connect(config={"threads": threads}) as con, Clock() as clock:
        for name, read in columns.items():
            con.execute(f"SELECT bit_xor(hash({read})) FROM '{directory / f'{name}-{rows}.parquet'}'").fetchall()
    return clock


def ask(directory: Path, rows: int, threads: int, memory: str, selection: Selection) -> tuple[Clock, int]:
    """One question by its query, and how many documents it keeps."""
    with duckdb.connect(config={"threads": threads, "memory_limit": memory}) as con:
        for name in TABLES:
            con.execute(f"CREATE VIEW {name} AS SELECT * FROM '{directory / f'{name}-{rows}.parquet'}'")
        with Clock() as clock:
            counted = summed(con, build(con, selection, seed=0))
    assert counted["documents"].sum() == rows
    return clock, int(counted.filter("kept")["documents"].sum())


def command(directory: Path, rows: int) -> tuple[Clock, int]:
    """`midtrain select --recipe R --set rate.edu>=2.5 --dry-run` as people call it, start of Python included."""
    recipe = directory / "recipe.yaml"
    values = load("smoke").model_dump(mode="json", exclude_defaults=True) | {"selection": {}}
    recipe.write_text(yaml.safe_dump(values))
    words = ["select", "--recipe", str(recipe), "--set", "rate.edu>=2.5", "--dry-run"]
    files = [f"--{name}={directory / f'{name}-{rows}.parquet'}" for name in ("documents", "ratings")]
    program = [sys.executable, "-c", "from midtrain_dagster.cli import main; main()"]
    with Clock() as clock:
        done = subprocess.run([*program, *words, *files], stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["documents"] == rows
    return clock, int(answer["kept"])


def measure(arguments: argparse.Namespace) -> None:
    """Print one line of JSON a question."""
    directory, rows = arguments.dir, arguments.rows
    bound = scan(directory, rows, arguments.threads)

    def told(name: str, asked: Callable[[], tuple[Clock, int]]) -> None:
        clock, kept = asked()
        times = {"seconds": clock.seconds, "cpu_seconds": clock.cpu, "times_the_scan": round(clock.cpu / bound.cpu, 2)}
        print(json.dumps({"question": name, "rows": rows, "kept": kept, **times}), flush=True)

    told("scan without join", lambda: (bound, rows))
    for name, selection in list(QUESTIONS.items())[: arguments.questions]:
        told(name, lambda selection=selection: ask(directory, rows, arguments.threads, arguments.memory, selection))
    told("the command", lambda: command(directory, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=Path("/tmp/midtrain-selection"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", default="8GB")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS), help="only the first so many")
    arguments = parser.parse_args()
    write(arguments.dir, arguments.rows)
    measure(arguments)


if __name__ == "__main__":
    main()
