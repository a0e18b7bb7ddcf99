"""Packed documents do not see each other, and the loss is the one computed by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch

from midtrain_dagster.sequences import Sequences


def batch_of(sequences: Sequences, rows: list[int]) -> dict[str, torch.Tensor]:
    import numpy as np

    return {name: torch.from_numpy(array) for name, array in sequences.batch(np.array(rows)).items()}


@pytest.mark.parametrize("attention", ["documents", "sdpa", "eager", pytest.param("flex", marks=pytest.mark.slow)])
def test_logits_equal_each_document_alone(model_dir: Path, sequences: Sequences, attention: str) -> None:
    from midtrain_dagster.train.models import load_model
    from midtrain_dagster.train.objective import Objective

    model = load_model(model_dir, attention).eval()
    alone: Any = load_model(model_dir, "sdpa").eval()
    batch = batch_of(sequences, [0, 1, 2])
    with torch.no_grad():
        packed = model.get_output_embeddings()(Objective.hidden_states(model, batch))
        for row in range(3):
            for _, start, length, *_ in sequences.spans_of(row):
                document = batch["tokens"][row : row + 1, start : start + length]
                expected = alone(document).logits[0]
                assert torch.allclose(packed[row, start : start + length], expected, atol=2e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_short_documents_in_bf16_attend_as_the_kernel_does(window: int | None) -> None:
    """Values and gradients of the products are those of torch's own attention in fp32, within what bf16 resolves."""
    from midtrain_dagster.train import attention

    torch.manual_seed(0)
    runs, length = [3, 17, 12], 16
    query, key, value = (torch.randn(2, heads, length, 8) for heads in (6, 2, 2))
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
        out, _ = attention.document_attention(None, *inputs, None, runs=runs, sliding_window=window)
        results.append([out, *torch.autograd.grad((out.float() * torch.arange(8.0)).sum(), inputs)])
    for short, exact in zip(*results, strict=True):
        assert short.dtype == torch.bfloat16
        assert torch.allclose(short.float(), exact, atol=0.03 * float(exact.abs().max()))


def test_loss_and_gradient_by_hand(model_dir: Path, sequences: Sequences) -> None:
    from midtrain_dagster.train.models import load_model
    from midtrain_dagster.train.objective import Objective

    batch = batch_of(sequences, [3, 4])
    model, plain = load_model(model_dir), load_model(model_dir)
    total, sums, losses = Objective(model, 2)(batch)
    total.backward()
    expected, count = torch.zeros(2), torch.zeros(2)
    everything = torch.zeros(())
    for row, number in enumerate((3, 4)):
        for _, start, length, component, *_ in sequences.spans_of(number):
            document = batch["tokens"][row : row + 1, start : start + length]
            logits = plain(document).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, document[0, 1:], reduction="sum")
            expected[component] += loss.detach()
            count[component] += length - 1
            everything = everything + loss
    everything.backward()
    assert sums[:, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert sums[:, 1].tolist() == count.tolist()
    assert float(total) == pytest.approx(float(losses.sum()))
    for (name, found), (_, wanted) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(found.grad, wanted.grad, atol=1e-4), name


def test_masked_tokens_are_no_targets(tmp_path: Path, model_dir: Path) -> None:
    import numpy as np

    from midtrain_dagster.sequences import SequenceWriter
    from midtrain_dagster.train.models import load_model
    from midtrain_dagster.train.objective import Objective

    with SequenceWriter(tmp_path, 8, 61, ("general",), masked=True) as writer:
        writer.append(np.arange(8)[None], np.array([(0, 0, 6, 0, 0, 0)]), np.array([[0, 0, 0, 1, 1, 1, 1, 1]]))
    _, sums, losses = Objective(load_model(model_dir), 1)(batch_of(Sequences.open(tmp_path), [0]))
    assert sums[0, 1] == 3
    assert len(losses) == 3


def test_chunks_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from midtrain_dagster.train import objective

    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    targets = torch.randint(30, (50,))
    monkeypatch.setattr(objective, "LOGITS", 7 * 30)
    total, _ = objective.LinearCrossEntropy.apply(hidden, weight, targets)
    found = torch.autograd.grad(total * 0.5, (hidden, weight))
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    wanted = torch.autograd.grad(plain * 0.5, (hidden, weight))
    assert float(total.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
