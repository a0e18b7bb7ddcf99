"""Packed sequences: what a batch says of every position, and that resuming reads on where training stopped."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sequences import Sequences, SequenceWriter

LENGTH = 12


def written(path: Path, lengths: list[list[int]], seed: int = 0, masked: bool = False) -> Sequences:
    """Sequences whose spans have these lengths, end to end; the rest is padding."""
    rng = np.random.default_rng(seed)
    with SequenceWriter(path, LENGTH, 500, ("general", "math"), masked) as writer:
        for number, own in enumerate(lengths):
            starts = np.cumsum([0, *own[:-1]]) if own else []
            spans = [(0, s, n, (number + k) % 2, k, 0) for k, (s, n) in enumerate(zip(starts, own, strict=True))]
            mask = rng.integers(0, 2, (1, LENGTH)) if masked else None
            writer.append(rng.integers(0, 500, (1, LENGTH)), np.array(spans, dtype=np.int64).reshape(-1, 6), mask)
    return Sequences.open(path)


def by_hand(data: Sequences, sequence: int) -> dict[str, list]:
    """The batch of one sequence, position by position."""
    found = {"segment": [0] * LENGTH, "position": [0] * LENGTH, "component": [-1] * LENGTH, "target": [False] * LENGTH}
    for number, (_, start, length, component, _, _) in enumerate(data.spans_of(sequence), start=1):
        for k in range(length):
            found["segment"][start + k] = number
            found["position"][start + k] = k
            found["component"][start + k] = component
            found["target"][start + k] = k > 0 and (data.loss_mask is None or bool(data.loss_mask[sequence, start + k]))
    return found


spans = st.lists(st.integers(1, 5), max_size=4).filter(lambda own: sum(own) <= LENGTH)


@settings(max_examples=40, deadline=None)
@given(st.lists(spans, min_size=1, max_size=6), st.booleans(), st.data())
def test_a_batch_says_what_its_spans_say(tmp_path_factory, lengths, masked, data):
    packed = written(tmp_path_factory.mktemp("packed"), lengths, masked=masked)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8)))
    batch = packed.batch(chosen)
    for row, sequence in enumerate(chosen):
        for name, expected in by_hand(packed, int(sequence)).items():
            assert batch[name][row].tolist() == expected
        assert batch["tokens"][row].tolist() == packed.tokens[sequence].tolist()


def test_a_batch_has_the_types_that_training_expects(tmp_path):
    batch = written(tmp_path, [[3, 4], [12]]).batch(np.array([1, 0]))
    types = {"tokens": np.int64, "segment": np.int32, "position": np.int32, "component": np.int32, "target": bool}
    assert {name: array.dtype for name, array in batch.items()} == {n: np.dtype(t) for n, t in types.items()}


def test_a_sequence_of_nothing_but_padding_has_no_target(tmp_path):
    batch = written(tmp_path, [[], [5]]).batch(np.array([0, 1]))
    assert not batch["target"][0].any()
    assert (batch["segment"][0] == 0).all()
    assert batch["target"][1].sum() == 4


@pytest.mark.parametrize("step", [0, 1, 7])
def test_resuming_at_a_step_reads_what_an_undisturbed_run_reads(tmp_path, step):
    lengths = [[1 + n % 5, 3] for n in range(40)]
    whole, size = written(tmp_path, lengths), 4
    undisturbed = [whole.batch(np.arange(k * size, (k + 1) * size)) for k in range(10)]
    again = Sequences.open(tmp_path)  # another process: nothing is carried over but the step
    for k in range(step, 10):
        resumed = again.batch(np.arange(k * size, (k + 1) * size))
        for name, array in undisturbed[k].items():
            np.testing.assert_array_equal(resumed[name], array)


def test_equal_content_has_an_equal_digest_and_other_spans_another(tmp_path):
    one, same, other = (written(tmp_path / n, [[3, k]]) for n, k in (("one", 4), ("same", 4), ("other", 5)))
    assert one.digest == same.digest != other.digest


def test_a_truncated_file_is_refused(tmp_path):
    written(tmp_path, [[3, 4]])
    (tmp_path / "tokens.bin").write_bytes(b"\0\0")
    with pytest.raises(MidtrainError, match="pack again"):
        Sequences.open(tmp_path)
