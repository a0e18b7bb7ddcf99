"""How well and how fast each decontamination method finds planted questions: recall, precision, false positives per kind.

    python benchmarks/decontamination.py --corpus DOCS --questions DIR [--near FILE] [--rephrased DIR] [--methods ngram,cascade]

`--corpus` is clean text (JSONL or Parquet with `id` and `text`, or a directory of .txt, .md, .rst, .py files); `--near` question
sets whose rows resemble the questions and are not them (GSM8K train against GSM8K test); `--rephrased` files of rewritten
questions (`text` rows). The kinds are planted by the functions below, seeded; every planted document is labelled.
"""

import argparse
import json
import random
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster import documents, files
from midtrain_dagster.decontaminate.decide import decide
from midtrain_dagster.decontaminate.index import build
from midtrain_dagster.decontaminate.match import match
from midtrain_dagster.decontaminate.questions import read_questions
from midtrain_dagster.recipes.decontamination import METHODS, Decontamination

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
LETTERS = "ABCDEFGHIJ"
Row = dict[str, object]


def corpus(path: Path, limit_mb: float) -> list[str]:
    """Clean texts, at least 200 characters each, up to `limit_mb`."""
    texts, size = [], 0.0
    for text in _texts(path):
        if len(text) >= 200:
            texts.append(text[:200_000])
            size += len(text) / 1e6
        if size >= limit_mb:
            break
    return texts


def _texts(path: Path) -> Iterator[str]:
    if path.is_dir() and not any(p.name.endswith(files.SUFFIXES) for p in path.iterdir()):
        for p in sorted(path.rglob("*")):
            if p.is_file() and p.suffix in TEXT_SUFFIXES:
                yield p.read_text(encoding="utf-8", errors="ignore")
    else:
        for batch in files.read([path]):
            yield from batch.documents["text"]


def whole(row: Row) -> str:
    """The question as a web page or a data set row would show it."""
    choices = [f"{LETTERS[i]}. {c}" for i, c in enumerate(row["choices"][:10])]
    answer = [f"Answer: {row['answer']}"] if row["answer"] else []
    return "\n".join([str(row["question"]), *choices, *answer])


def verbatim(row: Row, rng: random.Random, page: str, words: list[str]) -> str:
    return whole(row)


def reformatted(row: Row, rng: random.Random, page: str, words: list[str]) -> str:
    """Other case, Markdown marks, line breaks in other places, curly quotes."""
    text = " ".join(whole(row).upper().split()) if rng.random() < 0.5 else whole(row).lower()
    text = text.replace("'", "’").replace('"', "“").replace(". ", ".  \n* ").replace(", ", " , ")
    return f"**Q{rng.randint(1, 99)}:** {text}"


def lightly_edited(row: Row, rng: random.Random, page: str, words: list[str]) -> str:
    """One word in twelve dropped, doubled or swapped with its neighbour; at least one."""
    parts = whole(row).split()
    for _ in range(max(1, len(parts) // 12)):
        i = rng.randrange(len(parts))
        kind = rng.randrange(3)
        if kind == 0 and len(parts) > 6:
            del parts[i]
        elif kind == 1:
            parts.insert(i, parts[i])
        elif i + 1 < len(parts):
            parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return " ".join(parts)


def options_shuffled(row: Row, rng: random.Random, page: str, words: list[str]) -> str | None:
    if len(row["choices"]) < 3:
        return None
    return whole({**row, "choices": rng.sample(row["choices"], len(row["choices"]))})


def question_only(row: Row, rng: random.Random, page: str, words: list[str]) -> str:
    return str(row["question"])


def embedded(row: Row, rng: random.Random, page: str, words: list[str]) -> str:
    """In the middle of a long page."""
    at = rng.randrange(len(page) // 2) if page else 0
    return f"{page[:at]}\n\n{whole(row)}\n\n{page[at:]}"


def swapped(share: float) -> Callable[..., str]:
    """Words exchanged for others out of the corpus: what is left of the question is the rest, in order."""

    def plant(row: Row, rng: random.Random, page: str, words: list[str]) -> str:
        return " ".join(rng.choice(words) if rng.random() < share else w for w in whole(row).split())

    return plant


def slots_changed(row: Row, rng: random.Random, page: str, words: list[str]) -> str | None:
    """Another number for every number, another name for every name; all else as it was."""
    text = str(row["question"])
    if not re.search(r"\d", text) or len(text.split()) < 25:
        return None
    text = re.sub(r"\d+", lambda m: str(int(m.group()[:9]) + rng.randint(1, 9)), text)
    return re.sub(r"(?<=[a-z,] )[A-Z][a-z]{2,}", lambda m: rng.choice(["Imani", "Oskar", "Priya", "Tomas", "Noor"]), text)


def quoted_definition(row: Row, rng: random.Random, page: str, words: list[str]) -> str | None:
    """Near miss: a page that shares the question's subject words and a phrase of it, and asks nothing."""
    parts = str(row["question"]).split()
    if len(parts) < 30:
        return None
    at = rng.randrange(len(parts) - 7)
    return f"{page[:600]} It is sometimes put as “{' '.join(parts[at : at + 7])}”, and we return to it later. {page[600:1500]}"


def common_phrases(row: Row, rng: random.Random, page: str, words: list[str]) -> str:
    """Near miss: the wording that all tests share."""
    lines = [
        "Which of the following statements is true?",
        "Choose the best answer to each of the following questions.",
        "How many are there in total? How much does she have left at the end of the day?",
        "Complete the rest of the sequence, and explain your answer step by step.",
        "Write a function that takes a list of integers and returns the result.",
    ]
    return f"{page[:800]}\n{' '.join(rng.sample(lines, 3))}\n{page[800:1600]}"


POSITIVE: dict[str, Callable[..., str | None]] = {
    "verbatim": verbatim,
    "reformatted": reformatted,
    "lightly edited": lightly_edited,
    "options shuffled": options_shuffled,
    "question only": question_only,
    "embedded in a page": embedded,
    "words swapped 20 %": swapped(0.20),
    "words swapped 45 %": swapped(0.45),
    "slots changed": slots_changed,
}
NEGATIVE: dict[str, Callable[..., str | None]] = {"quoted phrase": quoted_definition, "common phrases": common_phrases}


def plant(questions: pl.DataFrame, pages: list[str], each: int, seed: int) -> list[tuple[str, bool, str]]:
    """(kind, contaminated, text): `each` of every kind, from questions drawn evenly over the benchmarks."""
    rng = random.Random(seed)
    vocabulary = sorted({w for page in pages[:200] for w in re.findall(r"[a-z]{3,12}", page[:5000])})
    by_benchmark = [rows.rows(named=True) for _, rows in questions.group_by("benchmark", maintain_order=True)]
    out = []
    for kind, make in {**POSITIVE, **NEGATIVE}.items():
        found, tries = 0, 0
        while found < each and tries < each * 50:
            tries += 1
            row = rng.choice(by_benchmark[tries % len(by_benchmark)])
            if len(str(row["question"]).split()) < 8:
                continue
            text = make(row, rng, rng.choice(pages), vocabulary)
            if text:
                out.append((kind, kind in POSITIVE, text))
                found += 1
    return out


def given(near: list[Path], rephrased: list[Path], limit: int) -> Iterator[tuple[str, bool, str]]:
    """Labelled rows out of files: near misses and rewritten questions."""
    for path in near:
        for row in read_questions([path]).head(limit).iter_rows(named=True):
            yield f"near: {path.stem}", False, f"{row['question']}\n{row['answer'] or ''}"
    for path in rephrased:
        for row in read_questions([path]).head(limit).iter_rows(named=True):
            yield f"rephrased: {path.stem}", True, whole(row)


def rewritten(paths: list[Path]) -> Iterator[tuple[str, bool, str]]:
    """Each question in other words, and another question that resembles it; `kind` says in what way, as `translated de`."""
    for path in paths:
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            yield f"rewritten: {row['kind']}", True, row["rephrased"]
            yield f"near: {row['kind']}", False, row["near"]


def table(labelled: pl.DataFrame, flagged: set[str]) -> Row:
    """Recall or false-positive rate per kind, and precision and recall over all."""
    seen = labelled.with_columns(flagged=pl.col("id").is_in(sorted(flagged)))
    rates = seen.group_by("kind", maintain_order=True).agg(pl.col("flagged").mean())
    hits = int((seen["contaminated"] & seen["flagged"]).sum())
    return {
        "precision": round(hits / max(1, int(seen["flagged"].sum())), 4),
        "recall": round(hits / max(1, int(seen["contaminated"].sum())), 4),
        **{kind: round(rate, 4) for kind, rate in rates.iter_rows()},
    }


def peers(python: Path, labelled: pl.DataFrame, questions: pl.DataFrame) -> dict[str, dict[str, object]]:
    """What datatrove flags and the CPU seconds it takes, by configuration (`decontamination_peer.py`, in its own environment)."""
    with tempfile.TemporaryDirectory() as folder:
        documents, asked, answer = (Path(folder) / name for name in ("documents.parquet", "questions.parquet", "answer.json"))
        labelled.select("id", "text").write_parquet(documents)
        shown = pl.concat_str("question", pl.col("choices").list.join("\n", ignore_nulls=True).fill_null(""), separator="\n")
        questions.select(shown.str.strip_chars().alias("question"), "answer").write_parquet(asked)
        script = Path(__file__).with_name("decontamination_peer.py")
        subprocess.run([str(python), str(script), str(documents), str(asked), str(answer)], check=True)
        return dict(json.loads(answer.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--questions", type=Path, nargs="+", required=True)
    parser.add_argument("--near", type=Path, nargs="*", default=[])
    parser.add_argument("--rephrased", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--rewritten",
        type=Path,
        nargs="*",
        default=[],
        help="files of kind, question, answer, rephrased and near; their questions are added (beside this script: translations.jsonl)",
    )
    parser.add_argument("--methods", default=",".join(m for m in METHODS if m != "embedding"))
    parser.add_argument("--embed", action="store_true", help="give the cascade an encoder")
    parser.add_argument("--each", type=int, default=100, help="planted documents of every kind")
    parser.add_argument("--limit", type=int, default=2000, help="rows read of every near or rephrased file")
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument(
        "--peer", type=Path, help="the Python of an environment with datatrove[processing]: its filter beside ours"
    )
    parser.add_argument("--save", type=Path, help="directory for the labelled documents and every method's matches")
    options = parser.parse_args()

    questions = read_questions([*options.questions, *options.rewritten])
    pages = corpus(options.corpus, options.megabytes)
    rows = [("clean", False, page) for page in pages]
    rows += plant(questions, pages, options.each, options.seed)
    rows += list(rewritten(options.rewritten))
    rows += list(given(options.near, options.rephrased, options.limit))
    labelled = documents.documents([{"id": f"{i:07}", "text": text} for i, (_, _, text) in enumerate(rows)]).select(
        "id", "text", "text_hash"
    )
    labelled = labelled.with_columns(kind=pl.Series([r[0] for r in rows]), contaminated=pl.Series([r[1] for r in rows]))
    megabytes = int(labelled["text"].str.len_bytes().sum()) / 1e6
    results: list[Row] = []
    swept: list[Row] = []
    for method in options.methods.split(","):
        settings = Decontamination().using(method)
        index = build(questions, settings)
        encoder = Timed() if method == "embedding" or (options.embed and method == "cascade") else None
        match(labelled[:50], index, encoder=encoder)  # compile and load before the clock starts
        before, started = encoder.seconds if encoder else 0.0, time.process_time()
        matches = match(labelled, index, encoder=encoder)
        spent = time.process_time() - started
        decisions = decide(matches, settings, labelled["id"])
        flagged = set(decisions.filter("contaminated")["id"])
        about: Row = {"method": method, "MB/s": round(megabytes / spent, 1)}
        about["of it in the encoder"] = round((encoder.seconds - before) / spent, 3) if encoder else None
        results.append({**about, **table(labelled, flagged)})
        swept += sweep(labelled, matches, settings)
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            matches.write_parquet(options.save / f"{method}.parquet")
    for name, said in (peers(options.peer, labelled, questions) if options.peer else {}).items():
        rates = table(labelled, set(said["contaminated"]))
        results.append({"method": name, "MB/s": round(megabytes / said["seconds"], 2), **rates})
    if options.save:
        labelled.write_parquet(options.save / "labelled.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = {"documents": len(labelled), "megabytes": round(megabytes, 1), "questions": len(questions)}
    print(json.dumps({**size, "peak memory GiB": round(peak, 2)}))
    show(results)
    print("\n| method | threshold | precision | recall |\n|---|---|---|---|")
    for row in swept:
        print(f"| {row['method']} | {row['threshold']} | {row['precision']} | {row['recall']} |")


def sweep(labelled: pl.DataFrame, matches: pl.DataFrame, settings: Decontamination) -> list[Row]:
    """Precision and recall of one method at thresholds around its default, from `keep_above` of it upwards."""
    out = []
    for factor in (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4):
        threshold = round(settings.threshold * factor, 3)
        if threshold <= 1:
            flagged = set(matches.filter(pl.col("score") >= threshold)["id"])
            found = table(labelled, flagged)
            row = {"precision": found["precision"], "recall": found["recall"]}
            out.append({"method": settings.method, "threshold": threshold, **row})
    return out


def show(results: list[Row]) -> None:
    """A Markdown table, a row a measure, a column a method."""
    print("| measure | " + " | ".join(str(r["method"]) for r in results) + " |")
    print("|---" * (len(results) + 1) + "|")
    for name in [k for k in results[0] if k != "method"]:
        print(f"| {name} | " + " | ".join(str(r.get(name)) for r in results) + " |")


class Timed:
    """The packaged encoder, with the CPU seconds spent in it: what is left is the pass's own."""

    def __init__(self) -> None:
        from resources.embedder import Embedder

        self.own, self.seconds = Embedder(), 0.0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        started = time.process_time()
        vectors = self.own.encode(texts)
        self.seconds += time.process_time() - started
        return vectors


if __name__ == "__main__":
    main()
