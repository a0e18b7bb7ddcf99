import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midtrain_dagster.documents import documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import arrange
from midtrain_dagster.mix.components import available
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.pack import pack
from midtrain_dagster.mix.tokens import TokenStore
from midtrain_dagster.recipes.mixture import Mixture, Packing


def packed_from(frame, tokenizer, path, mix=None, packing=None, seed=0):
    store = TokenStore(path / "tokens", tokenizer)
    store.add(frame)
    table = mixture(available(store.count(frame)), mix or Mixture(method="natural"))
    return pack(frame, table, store, path / "out", packing or Packing(sequence_length=64), seed), store


def check_every_token(packed, store, frame):
    """Every span is exactly the tokens of its document from its offset, and the spans are all there is."""
    sequences = packed.sequences
    names = pl.read_parquet(sequences.path / "documents.parquet")
    own = store.count(frame)
    place = dict(zip(own["id"], zip(own["offset"], own["tokens"], own["component"], strict=True), strict=True))
    covered = 0
    for sequence, start, length, component, document, offset in np.asarray(sequences.spans):
        begin, size, name = place[names["id"][int(document)]]
        assert offset + length <= size
        assert sequences.components[component] == name == names["component"][int(document)]
        expected = store.tokens[begin + offset : begin + offset + length]
        np.testing.assert_array_equal(sequences.tokens[sequence, start : start + length], expected)
        covered += length
    assert covered == packed.tokens
    ends = np.asarray(sequences.spans)
    same = ends[1:, 0] == ends[:-1, 0]
    assert (ends[1:, 1] >= ends[:-1, 1] + ends[:-1, 2])[same].all()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=60),
    st.sampled_from(["best_fit", "concatenate"]),
    st.integers(0, 3),
)
def test_all_tokens_are_packed_once_and_mapped(word_tokenizer, make_documents, tmp_path_factory, lengths, method, seed):
    frame = make_documents(lengths, [("a", "b")[i % 2] for i in range(len(lengths))], seed)
    path = tmp_path_factory.mktemp("pack")
    packing = Packing(sequence_length=64, method=method, seed=seed)
    packed, store = packed_from(frame, word_tokenizer, path, packing=packing, seed=seed)
    check_every_token(packed, store, frame)
    assert packed.tokens == sum(lengths) + len(lengths)  # one end-of-text each
    assert packed.documents == len(lengths)
    assert packed.left.is_empty()
    if method == "concatenate":
        assert packed.sequences.count == -(-packed.tokens // 64)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 150), min_size=8, max_size=60), st.floats(0.05, 3.5), st.floats(0.1, 0.9))
def test_budgets_are_met_within_one_sequence_and_nothing_is_dropped_unsaid(
    word_tokenizer, make_documents, tmp_path_factory, lengths, passes, share
):
    frame = make_documents(lengths, [("a", "b")[i % 2] for i in range(len(lengths))])
    budget = int(sum(lengths) * passes) + 1
    mix = Mixture.check(
        {
            "components": [{"name": "a", "share": share}, {"name": "b", "share": 1 - share}],
            "budget_tokens": budget,
            "stages": [{"name": "one", "fraction": 0.7}, {"name": "two", "fraction": 0.3}],
            "max_repetition": 100,
        },
        where="test",
    )
    packed, store = packed_from(frame, word_tokenizer, tmp_path_factory.mktemp("pack"), mix)
    check_every_token(packed, store, frame)
    got = packed.components.group_by("component").agg(pl.col("budgeted").sum(), pl.col("packed").sum())
    assert ((got["budgeted"] - got["packed"]).abs() <= 64).all()
    assert (packed.components["budgeted"] - packed.components["packed"]).abs().max() <= 64
    spans = np.asarray(packed.sequences.spans)
    names = pl.read_parquet(packed.sequences.path / "documents.parquet")["id"].to_list()
    seen: dict[str, set[int]] = {}
    for _, _, length, _, document, offset in spans:
        seen.setdefault(names[document], set()).update(range(offset, offset + length))
    missing = sum(lengths) + len(lengths) - sum(map(len, seen.values()))
    assert packed.left["tokens"].sum() == missing


def test_best_fit_cuts_no_document_and_hardly_pads(word_tokenizer, make_documents, tmp_path):
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(3.5, 1.0, 4000).astype(int) + 1, 600).tolist()
    packed, _ = packed_from(
        make_documents(lengths, ["a"] * 4000), word_tokenizer, tmp_path, packing=Packing(sequence_length=256)
    )
    assert packed.padding <= 0.005
    assert packed.cut_documents == 0
    assert packed.chunked_documents == sum(n + 1 > 256 for n in lengths)


def test_lengths_that_do_not_fit_together_are_cut_only_as_far_as_padding_asks(word_tokenizer, make_documents, tmp_path):
    frame = make_documents([37] * 400, ["a"] * 400)  # 38 with its end: one in a sequence of 64, 41 % padding
    whole, _ = packed_from(frame, word_tokenizer, tmp_path / "w", packing=Packing(sequence_length=64, max_padding=1.0))
    cut, store = packed_from(frame, word_tokenizer, tmp_path / "c", packing=Packing(sequence_length=64))
    assert (whole.cut_documents, whole.sequences.count) == (0, 400)
    assert cut.padding <= 0.005 + 1e-9 or cut.sequences.count == -(-38 * 400 // 64)
    assert 0 < cut.cut_documents < 400
    check_every_token(cut, store, frame)


@pytest.mark.parametrize("stages", [1, 2, 9])
def test_stages_of_a_few_sequences_hardly_pad_either(word_tokenizer, make_documents, tmp_path, stages):
    rng = np.random.default_rng(3)
    lengths = np.minimum(rng.lognormal(4, 1.0, 700).astype(int) + 1, 700).tolist()
    frame = make_documents(lengths, [("a", "b")[i % 2] for i in range(700)])
    one = {"fraction": 1 / stages, "shares": {"a": 0.5, "b": 0.5}}
    mix = Mixture.check(
        {
            "components": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}],
            "budget_tokens": 30_000,
            "stages": [{"name": str(k), **one} for k in range(stages)],
        },
        where="test",
    )
    packed, store = packed_from(frame, word_tokenizer, tmp_path, mix, Packing(sequence_length=512))
    check_every_token(packed, store, frame)
    assert packed.sequences.count <= -(-packed.tokens // 512) + 1
    spans = np.asarray(packed.sequences.spans)
    room = 512 - np.bincount(spans[:, 0], weights=spans[:, 2])
    assert np.sort(room)[:-1].sum() <= 0.01 * packed.sequences.count * 512  # but for the last, which is what it is


def test_one_seed_gives_equal_bytes_whatever_the_order_of_the_input(word_tokenizer, make_documents, tmp_path):
    frame = make_documents([i % 90 for i in range(300)], [("a", "b")[i % 2] for i in range(300)])
    mix = Mixture(method="unimax", budget_tokens=5_000)
    first, _ = packed_from(frame, word_tokenizer, tmp_path / "1", mix)
    again, _ = packed_from(frame.sample(fraction=1, shuffle=True, seed=1), word_tokenizer, tmp_path / "2", mix)
    other, _ = packed_from(frame, word_tokenizer, tmp_path / "3", mix, seed=1)
    for name in ("tokens.bin", "spans.npy", "documents.parquet", "sequences.json"):
        assert (tmp_path / "1" / "out" / name).read_bytes() == (tmp_path / "2" / "out" / name).read_bytes()
    assert first.sequences.digest == again.sequences.digest != other.sequences.digest


def test_stages_keep_their_order_and_components_are_spread_evenly_within_one(word_tokenizer, make_documents, tmp_path):
    frame = make_documents([30] * 2000, [("a", "b")[i % 2] for i in range(2000)])
    mix = Mixture.check(
        {
            "components": [{"name": "a"}, {"name": "b"}],
            "budget_tokens": 40_000,
            "stages": [
                {"name": "1", "fraction": 0.5, "shares": {"a": 1.0}},
                {"name": "2", "fraction": 0.5, "shares": {"a": 0.5, "b": 0.5}},
            ],
        },
        where="test",
    )
    packed, _ = packed_from(frame, word_tokenizer, tmp_path, mix)
    spans = np.asarray(packed.sequences.spans)
    half = packed.sequences.count // 2
    assert (spans[spans[:, 0] < half - 1, 3] == 0).all()
    late = spans[spans[:, 0] >= half + 1]
    quarters = [
        late[(late[:, 0] >= lo) & (late[:, 0] < lo + half // 4), 3].mean()
        for lo in range(half, 2 * half - half // 4, half // 4)
    ]
    assert all(0.35 < q < 0.65 for q in quarters)


def test_documents_repeat_only_after_all_were_seen(word_tokenizer, make_documents, tmp_path):
    frame = make_documents([15] * 100, ["a"] * 100)
    packed, _ = packed_from(frame, word_tokenizer, tmp_path, Mixture(method="natural", budget_tokens=16 * 150))
    counts = np.bincount(np.asarray(packed.sequences.spans)[:, 4])
    assert sorted(counts.tolist()) == [1] * 50 + [2] * 50


def test_selection_repetitions_weigh_documents(word_tokenizer, make_documents, tmp_path):
    frame = make_documents([15] * 3, ["a"] * 3).with_columns(repetitions=pl.Series([0.0, 1.0, 3.0]))
    packed, _ = packed_from(frame, word_tokenizer, tmp_path)
    names = pl.read_parquet(tmp_path / "out" / "documents.parquet")["id"].to_list()
    assert dict(zip(names, np.bincount(np.asarray(packed.sequences.spans)[:, 4]).tolist(), strict=True)) == {"d1": 1, "d2": 3}
    assert packed.left.select("reason", "documents").rows() == [("zero repetitions", 1)]


def test_prompts_are_left_out_of_the_loss(word_tokenizer, tmp_path):
    frame = documents(
        [
            {"id": "qa", "text": "w1 w2 w3 w4", "source": "a", "metadata": '{"prompt_characters": 6}'},
            {"id": "chat", "text": "w1 w2 w3 w4", "source": "b", "metadata": '{"prompt_characters": [[0, 2], [6, 8]]}'},
            {"id": "plain", "text": "w5 w6", "source": "a", "metadata": '{"title": "prompt"}'},
        ]
    ).with_columns(component=pl.col("source"))
    packed, _ = packed_from(frame, word_tokenizer, tmp_path, packing=Packing(sequence_length=16, mask_prompts=True))
    names = pl.read_parquet(tmp_path / "out" / "documents.parquet")["id"].to_list()
    mask = {names[d]: packed.sequences.loss_mask[s, b : b + n].tolist() for s, b, n, _, d, _ in packed.sequences.spans}
    assert mask == {"qa": [0, 0, 1, 1, 1], "plain": [1, 1, 1], "chat": [0, 1, 0, 1, 1]}


def test_text_that_spells_a_special_token_stays_text(word_tokenizer, tmp_path):
    frame = documents([{"id": "x", "text": "w1 <|im_end|> w2"}])
    plain, parsed = TokenStore(tmp_path / "1", word_tokenizer), TokenStore(tmp_path / "2", word_tokenizer, True)
    plain.add(frame)
    parsed.add(frame)
    assert parsed.tokens.tolist() == [4, 2, 5, 0]
    assert plain.tokens.tolist()[0] == 4
    assert plain.tokens.tolist()[-2:] == [5, 0]


def test_the_store_tokenizes_a_text_once_and_survives_a_broken_write(word_tokenizer, make_documents, tmp_path):
    frame = make_documents([5, 6, 7], ["a"] * 3)
    store = TokenStore(tmp_path, word_tokenizer)
    assert store.add(frame) == 3
    with (tmp_path / "tokens.bin").open("ab") as file:
        file.write(b"torn")
    again = TokenStore(tmp_path, word_tokenizer)
    more = make_documents([5, 6, 7, 8], ["a"] * 4)
    assert again.add(more) == 1
    assert again.count(more)["tokens"].to_list() == [6, 7, 8, 9]
    last = again.count(more).row(3, named=True)
    words = word_tokenizer(more["text"][3])["input_ids"]
    assert again.tokens[last["offset"] : last["offset"] + 9].tolist() == [*words, 0]
    with pytest.raises(MidtrainError, match="another tokenizer"):
        TokenStore(tmp_path, word_tokenizer, parse_special_tokens=True)


def test_best_fit_is_the_textbook_algorithm():
    from midtrain_dagster.mix.kernels import best_fit

    def textbook(lengths, capacity):
        rooms, where = [], []
        for n in lengths:
            fits = [(r, -i) for i, r in enumerate(rooms) if r >= n]
            if fits:
                where.append(-min(fits)[1])
            else:
                rooms.append(capacity)
                where.append(len(rooms) - 1)
            rooms[where[-1]] -= n
        return where, rooms

    rng = np.random.default_rng(0)
    for capacity in (1, 7, 64, 100):
        lengths = np.sort(rng.integers(1, capacity + 1, 200))[::-1].astype(np.int64)
        where, room = best_fit(lengths, capacity)
        expected = textbook(lengths.tolist(), capacity)
        assert sorted(room.tolist()) == sorted(expected[1])
        assert (np.bincount(where, weights=lengths) + room == capacity).all()


def test_carrying_hands_on_the_emptiest_sequence():
    spans = np.array([[0, 0, 4, 9, 0], [1, 0, 2, 8, 5], [2, 0, 4, 7, 0]])
    rest, carried = arrange.without_emptiest(spans, 4)
    assert rest[:, 0].tolist() == [0, 1]
    assert carried.tolist() == [[8, 5, 2]]
