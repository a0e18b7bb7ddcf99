"""A served model, against a server of this test that scores and generates by rule; and learning curves on a subset."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.backend import address, backend
from midtrain_dagster.evaluate.curve import agreement, curve, first
from midtrain_dagster.evaluate.responses import Responses
from midtrain_dagster.evaluate.samples import SAMPLES_SCHEMA
from midtrain_dagster.recipes.evaluation import Evaluation, Task


class Handler(BaseHTTPRequestHandler):
    """Each token t has log-probability −t/10 and is the likeliest when t is even; generation says how long the prompt is."""

    echo: ClassVar[bool] = True
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(body)
        prompts = body["prompt"]
        prompts = prompts if isinstance(prompts, list) and not isinstance(prompts[0], int) else [prompts]
        choices = [self.choice(index, prompt, body) for index, prompt in enumerate(prompts)]
        content = json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def choice(self, index: int, prompt: Any, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("echo") or not self.echo:
            return {"index": index, "text": f" {len(prompt)} long"}
        tokens = [len(word) for word in prompt.split()] if isinstance(prompt, str) else prompt
        tokens = [*tokens, 1]
        logs = [-token / 10 for token in tokens]
        top = [{"x": log if token % 2 == 0 else log + 1} for log, token in zip(logs, tokens, strict=True)]
        return {"index": index, "text": "", "logprobs": {"token_logprobs": [None, *logs[1:]], "top_logprobs": [None, *top[1:]]}}

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    pytest.importorskip("tenacity", reason="NOT CHECKED: served models need lm-eval[api]")
    Handler.asked, Handler.echo = [], True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tokenizer")
    words = {"<end>": 0, "a": 1, "bb": 2, "ccc": 3, "dddd": 4, "One": 5, "two": 6}
    inner = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", unk_token="<end>").save_pretrained(path)
    return path


def _request(kind: str, *arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0)


def test_a_server_scores_and_generates_once_each(url: str, tokenizer: Path, tmp_path: Path):
    settings = Evaluation(tokenizer=str(tokenizer), max_gen_toks=5, concurrent=1)
    lm = backend(f"openai:{url}#small", settings, Responses(tmp_path / "log.jsonl"), None)
    assert lm.scores
    requests = [_request("loglikelihood", "a bb", " ccc"), _request("loglikelihood", "a", " bb dddd")]
    scored = lm.loglikelihood([*requests, requests[0]])
    assert [tuple(score) for score in scored] == [
        (pytest.approx(-0.3), False),
        (pytest.approx(-0.6), True),
        (pytest.approx(-0.3), False),
    ]
    generation = _request("generate_until", "a bb ccc", {"until": ["\n"], "max_gen_toks": 50})
    assert lm.generate_until([generation, generation]) == [" 3 long", " 3 long"]
    assert Handler.asked[-1]["max_tokens"] == 5
    count = len(Handler.asked)
    again = backend(f"openai:{url}#small", settings, Responses(tmp_path / "log.jsonl"), None)
    assert again.loglikelihood(requests)[1][0] == pytest.approx(-0.6)
    assert again.generate_until([generation]) == [" 3 long"]
    assert len(Handler.asked) == count + 1  # the question whether it can score, and nothing more


def test_a_server_that_cannot_score_says_so(url: str, tokenizer: Path):
    Handler.echo = False
    lm = backend(f"openai:{url}#small", Evaluation(tokenizer=str(tokenizer)), Responses(None), None)
    with pytest.raises(MidtrainError, match="gives no log-probabilities of a prompt"):
        lm.loglikelihood([_request("loglikelihood", "a", " bb")])
    bare = backend(f"openai:{url}#small", Evaluation(), Responses(None), None)
    assert bare.generate_until([_request("generate_until", "a bb", {"until": ["\n"]})]) == [" 4 long"]
    with pytest.raises(MidtrainError, match="no `tokenizer` is set"):
        bare.loglikelihood([_request("loglikelihood", "a", " bb")])
    with pytest.raises(MidtrainError, match="openai:URL#name"):
        address("openai:localhost")


def _model(scores: list[float]) -> pl.DataFrame:
    count = len(scores)
    columns = {
        "benchmark": ["b"] * count,
        "task": ["b"] * count,
        "file": ["f"] * count,
        "domain": ["math"] * count,
        "question_id": [f"q{i:03}" for i in range(count)],
        "row": list(range(count)),
        "metric": ["acc"] * count,
        "primary": [True] * count,
        "score": scores,
    }
    return pl.DataFrame({name: columns.get(name, [None] * count) for name in SAMPLES_SCHEMA}, schema=SAMPLES_SCHEMA)


def test_curves_and_the_agreement_of_a_subset():
    low, high = _model([0.0, 0.0, 1.0, 0.0]), _model([1.0, 0.0, 1.0, 1.0])
    table = curve({200: high, 100: low})
    assert table.select("step", "value").rows() == [(100, 0.25), (200, 0.75)]
    assert table["stderr"][0] == pytest.approx(0.25)  # √(.25 · .75 · 4/3 / 4)
    assert first(high, 2)["row"].to_list() == [0, 1]
    ((_, _, n, total, largest, expected, pairs, same),) = agreement([low, high], 2).rows()
    assert (n, total, pairs, same) == (2, 4, 1, 1.0)
    assert largest == pytest.approx(-0.25)
    assert expected == pytest.approx(0.25)
    assert agreement([low, high], 4)["largest_difference"].to_list() == [0.0]


def test_a_subset_never_asks_more_than_the_whole():
    settings = Evaluation(tasks=(Task(name="a", limit=5), Task(name="b")), limit=30, curve_limit=10)
    some = settings.subset()
    assert [(task.name, task.limit) for task in some.tasks] == [("a", 5), ("b", 10)]
    assert some.limit == 10
    assert Evaluation(limit=3).subset().limit == 3
    assert Evaluation().subset().limit == 50
