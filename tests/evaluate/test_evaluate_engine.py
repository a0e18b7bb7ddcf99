"""The engine on a model of two layers: the harness's own numbers, nothing asked twice, nothing silently left out."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.bits_per_byte import bits_per_byte
from midtrain_dagster.evaluate.compare import compare
from midtrain_dagster.evaluate.evaluate import evaluate
from midtrain_dagster.recipes.evaluation import Evaluation, Task

SETTINGS = Evaluation(precision="float32", max_gen_toks=8, bootstrap=100, batch_tokens=256)
WORDS = [
    "river",
    "mountain",
    "copper",
    "lantern",
    "orchard",
    "velvet",
    "harbour",
    "thunder",
    "meadow",
    "granite",
    "willow",
    "ember",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False)
    tokenizer.train_from_iterator(WORDS * 10, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    choices = [
        {
            "id": str(i),
            "question": f"Which word comes after {WORDS[i % 12]} and {WORDS[(i * 5 + 1) % 12]}?",
            "choices": {"text": [WORDS[(i + j * 3) % 12] * (1 + j % 2) for j in range(4)], "label": list("ABCD")},
            "answerKey": "ABCD"[i % 4],
        }
        for i in range(10)
    ]
    sums = [{"question": f"What is {i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(12)]
    code = [
        {
            "task_id": f"HumanEval/{i}",
            "prompt": f"def add{i}(x):\n",
            "canonical_solution": f"    return x + {i}\n",
            "test": f"def check(f):\n    assert f(1) == {1 + i}\n",
            "entry_point": f"add{i}",
        }
        for i in range(3)
    ]
    for name, rows in (
        ("arc_easy_test", choices),
        ("gsm8k_test", sums[:4]),
        ("gsm8k_train", sums[4:]),
        ("humaneval_test", code),
    ):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_harness_says_the_same(model: Path, data: Path, tmp_path: Path):
    """Scores and log-likelihoods of shared-prefix passes against lm-evaluation-harness's own backend on the same rows."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from midtrain_dagster.evaluate.catalog import CATALOG
    from midtrain_dagster.evaluate.harness import build

    ours = evaluate(model, ["arc_easy", "gsm8k"], data, tmp_path / "out", settings=SETTINGS)
    for name in ("arc_easy", "gsm8k"):
        built = build(name, CATALOG[name], data, hub=False)
        theirs = simple_evaluate(
            model=HFLM(pretrained=str(model), dtype="float32", batch_size=3, device="cpu"),
            tasks=list(built.tasks.values()),
            gen_kwargs={"max_gen_toks": 8} if name == "gsm8k" else None,
            bootstrap_iters=100,
            task_manager=TaskManager(include_defaults=False),
        )
        expected = {k: v for k, v in theirs["results"][name].items() if isinstance(v, float)}
        assert expected
        assert {k: ours.results["results"][name][k] for k in expected} == pytest.approx(expected, abs=0)
        sample = theirs["samples"][name][0]
        if name == "arc_easy":
            bits = ours.samples.filter((pl.col("benchmark") == name) & (pl.col("row") == 0))["gold_bits"][0]
            assert bits * -0.6931471805599453 == pytest.approx(sample["resps"][sample["target"]][0][0], abs=1e-3)
    assert ours.results["midtrain"]["benchmarks"]["arc_easy"]["shared_prefixes"] is True
    assert ours.results["midtrain"]["benchmarks"]["arc_easy"]["parity"]["flagged"] == 0
    assert ours.results["n-shot"]["gsm8k"] == 5


STOCK = ("mmlu", "triviaqa", "nq_open", "arc_challenge", "hellaswag", "winogrande", "bbh", "math")


@pytest.mark.parametrize("name", STOCK)
def test_the_harness_says_the_same_of_every_stock_set(name: str, model: Path, seeded: dict[str, Any], tmp_path: Path):
    """Aggregates to the last digit, with the conventional shots, on seeded rows."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from midtrain_dagster.evaluate.catalog import CATALOG
    from midtrain_dagster.evaluate.harness import build

    for file, rows in seeded.items():
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = SETTINGS.model_copy(update={"gold_bits": False, "parity_sample": 0, "max_gen_toks": 4})
    ours = evaluate(model, [name], tmp_path, settings=settings, limit=2).results
    built = build(name, CATALOG[name], tmp_path, hub=False)
    generates = next(iter(built.tasks.values())).OUTPUT_TYPE == "generate_until"
    theirs = simple_evaluate(
        model=HFLM(pretrained=str(model), dtype="float32", batch_size=2, device="cpu"),
        tasks=[built.group] if built.group is not None else list(built.tasks.values()),
        limit=2,
        gen_kwargs={"max_gen_toks": 4} if generates else None,
        bootstrap_iters=100,
        task_manager=TaskManager(include_defaults=False),
    )
    for kind in ("results", "groups"):
        for task, scores in (theirs.get(kind) or {}).items():
            expected = {key: value for key, value in scores.items() if isinstance(value, float)}
            assert {key: ours[kind][task][key] for key in expected} == pytest.approx(expected, abs=0)
    assert theirs["results"]


def test_code_runs_in_the_sandbox_and_gold_is_scored(model: Path, data: Path, tmp_path: Path):
    done = evaluate(model, ["humaneval"], data, tmp_path, settings=SETTINGS)
    assert done.results["results"]["humaneval"]["pass@1,create_test"] == 0.0
    assert done.samples["score"].to_list() == [0.0] * 3
    assert done.samples["gold"].to_list() == [f"    return x + {i}\n" for i in range(3)]
    assert done.samples["gold_bits"].min() > 0


def test_a_second_run_asks_nothing(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from midtrain_dagster.evaluate import evaluate as module

    first = evaluate(model, ["arc_easy", "gsm8k"], data, tmp_path, settings=SETTINGS, limit=2)
    log = next((tmp_path / "responses").iterdir())
    lines = log.read_text().count("\n")
    (tmp_path / "benchmarks" / "gsm8k" / "results.json").unlink()  # as if killed before it was whole
    again = evaluate(model, ["arc_easy", "gsm8k"], data, tmp_path, settings=SETTINGS, limit=2)
    assert log.read_text().count("\n") == lines
    assert again.samples.equals(first.samples)
    monkeypatch.setattr(module, "_load", lambda *_: pytest.fail("the model was loaded for nothing"))
    assert evaluate(model, ["arc_easy", "gsm8k"], data, tmp_path, settings=SETTINGS, limit=2).samples.equals(first.samples)


def test_killed_between_batches_nothing_is_scored_twice(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from midtrain_dagster.evaluate.language_model import LanguageModel

    settings = SETTINGS.model_copy(update={"batch_tokens": 120, "batch_size": 1, "parity_sample": 0})
    undisturbed = evaluate(model, ["arc_easy", "gsm8k"], data, settings=settings, limit=4)
    score, answer = LanguageModel._score, LanguageModel._model_generate
    left = {"passes": 3, "batches": 2}

    def counted(kind: str, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if left[kind] == 0:
                raise KeyboardInterrupt
            left[kind] -= 1
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(LanguageModel, "_score", counted("passes", score))
    monkeypatch.setattr(LanguageModel, "_model_generate", counted("batches", answer))
    for _ in range(2):  # once in the scoring of one benchmark, once in the generation of the other
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, ["arc_easy", "gsm8k"], data, tmp_path, settings=settings, limit=4)
        left["passes"] = 1000
    left["batches"] = 1000
    done = evaluate(model, ["arc_easy", "gsm8k"], data, tmp_path, settings=settings, limit=4)
    keys = [json.loads(line)[0] for line in next((tmp_path / "responses").iterdir()).read_text().splitlines()]
    assert len(keys) == len(set(keys)) > 8
    columns = ["question_id", "filter", "metric", "score", "output"]
    assert done.samples.select(columns).equals(undisturbed.samples.select(columns))


def test_one_cache_serves_other_settings(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from midtrain_dagster.evaluate.language_model import LanguageModel

    settings = SETTINGS.model_copy(update={"parity_sample": 0})
    evaluate(model, ["arc_easy"], data, tmp_path / "a", settings=settings, cache=tmp_path / "cache", limit=4)
    monkeypatch.setattr(LanguageModel, "_score", lambda *_: pytest.fail("asked again"))
    wider = settings.model_copy(update={"bootstrap": 200, "confidence": 0.9})
    done = evaluate(model, ["arc_easy"], data, tmp_path / "b", settings=wider, cache=tmp_path / "cache", limit=2)
    assert done.samples["question_id"].n_unique() == 2


def test_episodes_and_probes_of_chosen_lengths_run_like_any_other(model: Path, tmp_path: Path):
    from midtrain_dagster.evaluate.simulated import tool_step_rows

    (tmp_path / "tool_steps_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tool_step_rows(0, 2)))
    settings = SETTINGS.model_copy(update={"probe_lengths": (700, 900), "probes": 1, "max_gen_toks": 4})
    done = evaluate(model, ["tool_steps", "ruler"], tmp_path, tmp_path / "out", settings=settings)
    assert done.results["results"]["tool_steps"]["pass_rate,none"] == 0.0
    assert done.samples.filter(benchmark="tool_steps")["metric"].unique().sort().to_list() == ["needed_calls", "pass_rate"]
    assert done.samples["gold_bits"].null_count() == 0
    assert "simulated APIs" in done.results["midtrain"]["benchmarks"]["tool_steps"]["notes"][0]
    assert list(done.results["midtrain"]["benchmarks"]["ruler"]["by_length"]) == ["700", "900"]
    assert done.not_run == {}


def test_what_has_no_rows_is_said(model: Path, data: Path, tmp_path: Path):
    done = evaluate(model, ["hellaswag", "arc_easy"], data, tmp_path, settings=SETTINGS, limit=1)
    assert list(done.not_run) == ["hellaswag"]
    assert "hellaswag_test.jsonl" in done.not_run["hellaswag"]
    assert "hellaswag" not in done.results["results"]
    assert json.loads((tmp_path / "not_run.json").read_text()) == done.not_run
    with pytest.raises(MidtrainError, match="no benchmark is called 'nonsense'"):
        evaluate(model, ["nonsense"], data, settings=SETTINGS)


def test_a_row_of_another_format_is_an_error_in_words(model: Path, tmp_path: Path):
    (tmp_path / "gsm8k_test.jsonl").write_text('{"query": "What?", "answer": "#### 1"}\n' * 3)
    with pytest.raises(MidtrainError, match=r"gsm8k: a row has not what this task reads: .*question"):
        evaluate(model, ["gsm8k"], tmp_path, settings=SETTINGS)


def test_what_does_not_fit_is_said(model: Path, tmp_path: Path):
    rows = [{"question": "river " * length, "answer": "1\n#### 1"} for length in (5, 900)]
    (tmp_path / "gsm8k_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = SETTINGS.model_copy(update={"tasks": (Task(name="gsm8k", num_fewshot=0),), "gold_bits": False})
    done = evaluate(model, None, tmp_path, settings=settings)
    notes = done.results["midtrain"]["benchmarks"]["gsm8k"]["notes"]
    assert "1 prompts were longer than the model reads and lost their beginning" in notes


def test_gold_bits_alone(model: Path, data: Path):
    settings = SETTINGS.model_copy(update={"tasks": (Task(name="humaneval", generate=False),)})
    done = evaluate(model, None, data, settings=settings)
    assert done.samples["score"].to_list() == [None] * 3
    assert done.samples["gold_bits"].null_count() == 0
    assert done.results["results"] == {}
    both = compare(done.samples, done.samples)
    assert both["metric"].to_list() == ["gold_bits_per_byte"]
    assert both["verdict"].to_list() == ["unchanged"]


def test_the_command_writes_the_harness_s_keys(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from midtrain_dagster.cli import main

    def said(*arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["midtrain", "evaluate", "--model", str(model), "--out", str(tmp_path), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return told

    told = said("--tasks", "ARC-Easy,infilling", "--data", str(data), "--limit", "3", "--num-fewshot", "1", "--no-progress")
    assert told["benchmarks"]["arc_easy"]["questions"] == 3
    assert told["benchmarks"]["arc_easy"]["score"] is not None
    assert list(told["not_run"]) == ["humaneval_infilling"]
    written = json.loads((tmp_path / "results.json").read_text())
    assert {"results", "groups", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config"} <= set(written)
    assert written["n-shot"] == {"arc_easy": 1}
    assert written["model_name"] == str(model)
    assert "1 shots where the convention is 0" in told["benchmarks"]["arc_easy"]["notes"]
    assert "gsm8k" in said("--tasks", "list")["benchmarks"]


def test_bits_per_byte_against_one_pass_by_hand(model: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = ["river mountain copper", "", "lantern " * 30, "é"]
    documents = pl.DataFrame({"id": list("abcd"), "text": texts, "domain": ["x", "x", "y", "y"]})
    measured = bits_per_byte(model, documents, window=512, precision="float32")
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    for text, bits, size in zip(texts, measured["bits"], measured["bytes"], strict=True):
        tokens = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(text, add_special_tokens=False)]])
        with torch.no_grad():
            logs = network(tokens).logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])
        assert bits == pytest.approx(-float(logs.sum()) / 0.6931471805599453, rel=1e-4)
        assert size == len(text.encode())
    alone = bits_per_byte(model, documents.slice(2, 1), window=512, precision="float32", batch_tokens=1)
    assert alone["bits"][0] == pytest.approx(measured["bits"][2], rel=1e-5)
    assert bits_per_byte(model, documents, window=32, precision="float32")["tokens"].equals(measured["tokens"])
