"""Every kind of rater and every way to bring them together on the embedded default: `python benchmarks/rating.py --dir /tmp/rating`.

Writes a project into DIR: the sources of the demo, a few hundred documents of them, and raters of all kinds. fastText with both published
set-ups (in fewer buckets), a head on the teacher's scores, the four criteria of QuRating on its choices, perplexity under SmolLM2, DSIR,
and a sequence classifier of transformers that this program trains first. The teacher is a rule behind an endpoint on loopback, so
that its words are free and what the heads should have learnt is known. Then it runs all up to the rating report and a selection by
temperature, and prints for each trained rater how it does on what was kept from it, the agreement of each two, and what each asset took.
In a few minutes; `DAGSTER_HOME=DIR/home MIDTRAIN_PROJECT=DIR/midtrain.yaml make ui` shows it.
"""

import argparse
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
from graph_run import run

from midtrain_dagster.project import project as projects
from midtrain_dagster.rate.qurater import CRITERIA
from midtrain_dagster.recipes import named
from resources.embedder import packaged_model
from resources.lake import Lake

PROJECT = """
name: every-rater
automatic: false
embedded: {{packages: [networkx]}}
sources:
  - {{name: web, kind: warc, location: .midtrain/embedded/website.warc.gz, domain: web, fast: true, limit: {few}}}
  - {{name: code, kind: code, location: "{{stdlib}}", domain: code, include: ["json/**", "email/**", "asyncio/**", "unittest/**"], limit: {few}}}
  - {{name: packages, kind: code, location: "{{site-packages}}", domain: code, include: ["rich/**", "jinja2/**"], limit: {few}}}
  - {{name: worked_examples, kind: docstrings, location: "{{site-packages}}", packages: [sympy], domain: math, format: qa, limit: {many}}}
  - {{name: descriptions, kind: package_metadata, location: "{{site-packages}}", domain: prose, limit: {few}}}
teacher: {{kind: openai, base_url: "http://127.0.0.1:{port}/v1", model: rule, api_key_env: null}}
raters:
  - name: instructive
    kind: fasttext
    positives: {{condition: "source in ('worked_examples', 'web')"}}
    negatives: {{condition: "source = 'packages'"}}
    training: {{preset: dclm, bucket: 50000, epoch: 40}} # so few examples want more passes
  - name: mathematical
    kind: fasttext
    positives: {{condition: "domain = 'math'"}}
    negatives: {{condition: "domain <> 'math'"}}
    training: {{preset: webinstruct, bucket: 50000, epoch: 40}}
  - {{name: edu, kind: edu, model: null, annotations: 240, training: {head}}}
  - {{name: writing_style, kind: qurater, criterion: writing_style, pairs: 300, training: {head}}}
  - {{name: required_expertise, kind: qurater, criterion: required_expertise, pairs: 300, training: {head}}}
  - {{name: facts_and_trivia, kind: qurater, criterion: facts_and_trivia, pairs: 300, training: {head}}}
  - {{name: educational_value, kind: qurater, criterion: educational_value, pairs: 300, training: {head}}}
  - {{name: surprise, kind: perplexity, model: packaged, max_tokens: 128}}
  - {{name: near_math, kind: dsir, min_words: 20, target: {{condition: "domain = 'math'"}}, raw: {{condition: "true"}}}}
  - {{name: program, kind: classifier, model: classifier, max_tokens: 128}}
coordinated:
  - {{name: together, kind: bucket_maximum, raters: [instructive, edu, educational_value]}}
  - {{name: ranked, kind: rank_aggregate, raters: [edu, educational_value, near_math]}}
  - {{name: both, kind: intersection, at_least: {{edu: 2, instructive: 0.5}}}}
  - {{name: weighed, kind: weighted_sum, weights: {{edu: 0.7, surprise: -0.3}}}}
  - name: learnt
    kind: weighted_sum
    over: [instructive, edu, near_math]
    learnt: {{target: "domain = 'math'", runs: 12, documents: 200, held_out: 16, characters: 1000, vocabulary: 512, sequence_length: 128}}
recipes: [chosen.yaml]
"""
HEAD = "{lr: 0.001, epochs: 60, held_out: 0.25}"
SELECTION = {
    "ratings": {"together": {"at_least": 5}},
    "deduplication": {"survivor": ["best_rated", "longest"], "rater": "edu"},
    "temperature": {"rater": "educational_value", "temperature": 2, "fraction": 0.5},
    "quotas": [{"by": "document.source", "limit": 50}],
}
WORD = re.compile(r"[^\W\d_]+")


def measure(text: str, criterion: str) -> float:
    """The rule in a teacher's place: a number that a look at the words gives, about 0 to 1."""
    words = WORD.findall(text)
    if not words:
        return 0.0
    match criterion:
        case "writing_style":  # prose rather than symbols
            return sum(map(len, words)) / len(text)
        case "required_expertise":
            return sum(map(len, words)) / len(words) / 10
        case "facts_and_trivia":
            return sum(word[0].isupper() for word in words) / len(words)
    return min(1.0, (text.count(">>>") + len(re.findall(r"(?i)\b(example|because|returns?|see also)\b", text))) / 10)


def answer(prompt: str) -> str:
    """A number from 0 to 5 for one text; A or B for two, with a weakness for whichever comes first."""
    if not prompt.startswith("Here are two texts"):
        return f"{round(5 * measure(prompt.partition('Text:')[2], 'educational_value'))}"
    criterion = next(name for name, question in CRITERIA.items() if f"Which of them {question}?" in prompt)
    first, _, second = prompt.partition("Text A:")[2].rpartition("\n\nWhich of them")[0].partition("\n\nText B:\n")
    return "A" if measure(first, criterion) + 0.02 >= measure(second, criterion) else "B"


class Rule(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint that answers by the rule."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = {"role": "assistant", "content": answer(asked["messages"][-1]["content"])}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """With room for all who ask at once: the five that may wait otherwise are soon there, and who is turned away tries again after seconds."""

    request_queue_size = 256


def save_classifier(folder: Path, seed: int = 0) -> None:
    """Is it a program? The packaged encoder as a sequence classifier, its head fitted on modules and on descriptions of packages."""
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    files = sorted(Path(json.__file__).parents[1].glob("*.py"))[:60]
    sources = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    described = sorted(str(package.metadata.get_payload()) for package in distributions())
    prose = [text for text in described if len(text) > 200][:60]
    texts = [text[:600] for text in [*sources, *prose]]
    labels = torch.tensor([1] * len(sources) + [0] * len(prose))
    tokenizer = AutoTokenizer.from_pretrained(packaged_model())
    torch.manual_seed(seed)
    names = {"id2label": {0: "prose", 1: "program"}, "label2id": {"prose": 0, "program": 1}}
    model = BertForSequenceClassification.from_pretrained(packaged_model(), num_labels=2, **names)
    with torch.inference_mode():
        inputs = tokenizer(texts, return_tensors="pt", padding="longest", truncation=True, max_length=128)
        pooled = model.bert(**inputs).pooler_output
    optimizer = torch.optim.AdamW(model.classifier.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.classifier(pooled.clone()), labels).backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Write the project, run it, print what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--dir", type=Path, required=True, help="where the project goes, and its lake")
    arguments.add_argument("--documents", type=int, default=60, help="of each source; twice as many worked examples")
    given = arguments.parse_args()
    root: Path = given.dir.resolve()
    root.mkdir(parents=True, exist_ok=True)
    server = Server(("127.0.0.1", 0), Rule)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    few, port = given.documents, server.server_address[1]
    (root / "midtrain.yaml").write_text(PROJECT.format(few=few, many=2 * few, port=port, head=HEAD))
    recipe = named.load("smoke").model_dump(mode="json") | {"name": "chosen", "selection": SELECTION}
    (root / "chosen.yaml").write_text(json.dumps(recipe))
    if not (root / "classifier").exists():
        save_classifier(root / "classifier")
    result = run(root, dg.AssetSelection.assets("rating_report", ["selected_documents", "chosen"]))
    lake = Lake(root)
    told = {
        "documents": len(lake.tables.read("document_ratings")),
        "trained": {f"rater/{name}": lake.artifacts.current(f"rater/{name}").about for name in trained(lake)},
        "learnt weights": lake.artifacts.current("rater_weights/learnt").about,
        "checks": {f"{c.asset_key.to_user_string()}: {c.check_name}": c.passed for c in result.get_asset_check_evaluations()},
        "cpu seconds": {line["asset"]: line["cpu_seconds"] for line in lake.ledger.lines().iter_rows(named=True)},
    }
    print(json.dumps(told, indent=2, default=str))
    with pl.Config(tbl_rows=60, tbl_hide_dataframe_shape=True):
        print(lake.tables.read("rating_report").sort("spearman", descending=True), file=sys.stderr)


def trained(lake: Lake) -> list[str]:
    """Names of the raters that learnt something."""
    project = projects.load(lake.root / "midtrain.yaml")
    return [rater.name for rater in project.raters if lake.artifacts.all(f"rater/{rater.name}")]


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
