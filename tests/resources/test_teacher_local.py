"""The local teacher on a tiny random model: batching, stopping, seeds, limits."""

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.teacher import Parameters, Request, ask
from resources.teacher import LocalTeacher

CHAT = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("model") / "tiny"
    words = ["<end>", "<unk>", "user", "assistant", *(f"w{i}" for i in range(60))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>", unk_token="<unk>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=64, max_position_embeddings=64, eos_token_id=0, pad_token_id=0, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(place)
    return place


def teacher(directory, **settings):
    return LocalTeacher(TeacherSettings(kind="local", model=str(directory), dtype="float32", **settings))


def requests(number=7, **parameters):
    texts = [" ".join(f"w{(i * j) % 60}" for j in range(1, i + 2)) for i in range(number)]
    return [Request(({"role": "user", "content": text},), Parameters(**{"max_tokens": 8, **parameters})) for text in texts]


def test_replies_do_not_depend_on_the_batch(directory):
    for temperature in (0.0, 1.0):
        asked = requests(temperature=temperature, seed=3)
        texts = [[r.text for r in ask(teacher(directory, batch_size=size), asked)] for size in (1, 3, 16)]
        assert texts[0] == texts[1] == texts[2]


def test_a_shared_beginning_changes_nothing(directory):
    example = " ".join(f"w{i}" for i in range(30))
    tails = ["w1", "w2 w7", "w3 w9 w4 w4 w8", "w50 w51"]
    asked = [Request(({"role": "user", "content": f"{example} {tail}"},), Parameters(max_tokens=8)) for tail in tails]
    together = [reply.text for reply in ask(teacher(directory), asked)]
    assert together == [reply.text for reply in ask(teacher(directory, batch_size=1), asked)]
    assert len(set(together)) > 1


def test_seeds_make_samples_differ_and_repeat(directory):
    def sample(seed):
        return ask(teacher(directory), requests(temperature=1.0, seed=seed))[3].text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_a_tiny_nucleus_is_greedy(directory):
    greedy = [reply.text for reply in ask(teacher(directory), requests())]
    assert [reply.text for reply in ask(teacher(directory), requests(temperature=1.0, top_p=1e-6))] == greedy


def test_length_and_stop_are_kept(directory):
    replies = ask(teacher(directory), requests(max_tokens=4))
    assert all(reply.completion_tokens <= 4 for reply in replies)
    cut = next(reply for reply in replies if reply.finish_reason == "length")
    word = cut.text.split()[1]
    at = replies.index(cut)
    stopped = ask(teacher(directory), requests(max_tokens=4, stop=(word,)))[at]
    assert word not in stopped.text
    assert stopped.finish_reason == "stop"


def test_a_prompt_beyond_the_context_is_an_error_reply(directory):
    long = Request(({"role": "user", "content": "w1 " * 80},), Parameters(max_tokens=4))
    (good, bad) = ask(teacher(directory), [requests()[0], long])
    assert good.error is None
    assert bad.error == "prompt too long"


def test_the_name_changes_with_the_weights(directory, tmp_path):
    import shutil

    other = shutil.copytree(directory, tmp_path / "tiny")
    assert teacher(other).model == teacher(directory).model
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    assert teacher(other).model != teacher(directory).model


def test_no_model_is_told(tmp_path):
    with pytest.raises(MidtrainError, match="safetensors"):
        teacher(tmp_path)
