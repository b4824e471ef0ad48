"""FedLC's calibrated cross-entropy: a plain loop, hand numbers, and classes that nobody holds."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedlc import calibrated_loss
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F


def draw(batch: int, classes: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, classes, generator=generator, dtype=torch.float64)


def plain(logits: torch.Tensor, labels: torch.Tensor, counts: list[int], tau: float) -> float:
    total = 0.0
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        if counts[y] == 0:
            continue
        shifted = {c: f - tau * n**-0.25 for c, f in enumerate(row) if (n := counts[c])}
        total += math.log(sum(math.exp(f) for f in shifted.values())) - shifted[y]
    return total / len(labels)


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=6), st.integers(1, 8), st.integers(0, 1000)
)
def test_the_loss_of_a_loop(counts, batch, seed):
    logits = draw(batch, len(counts), seed).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(counts), (batch,), generator=generator)
    loss = calibrated_loss(logits, labels, torch.tensor(counts), tau=0.7)
    assert float(loss.detach()) == pytest.approx(plain(logits, labels, counts, 0.7), abs=1e-12)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    absent = torch.tensor(counts) == 0
    assert (logits.grad[:, absent] == 0).all(), "no gradient reaches the row of an absent class"
    assert (logits.grad[absent[labels]] == 0).all(), "nor comes from a sample of one"


def test_two_classes_by_hand():
    """16 and 1 examples: shifts of -1/2 and -1, so the margin of equal logits is 1/2."""
    loss = calibrated_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([16, 1]), tau=1.0)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(0.5)))


@pytest.mark.parametrize("tau", [0.0, 2.0])
def test_equal_counts_are_cross_entropy(tau):
    logits, labels = draw(5, 4, 0), torch.tensor([0, 1, 2, 3, 3])
    loss = calibrated_loss(logits, labels, torch.full((4,), 9), tau)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_a_class_with_a_tiny_count_is_the_same_as_one_left_out():
    """Public code writes 1e-8 for 0, a shift of -100 tau."""
    logits, labels = draw(5, 3, 1), torch.tensor([0, 0, 1, 1, 0])
    shifted = logits - torch.tensor([7.0, 3.0, 1e-8]).pow(-0.25)
    loss = calibrated_loss(logits, labels, torch.tensor([7, 3, 0]), tau=1.0)
    torch.testing.assert_close(loss, F.cross_entropy(shifted, labels))


def test_a_client_with_one_class_has_nothing_to_learn():
    logits = draw(4, 3, 2).requires_grad_()
    loss = calibrated_loss(logits, torch.ones(4).long(), torch.tensor([0, 4, 0]), tau=1.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (logits.grad == 0).all()


def test_large_logits_and_types():
    logits = torch.tensor([[1e4, -1e4]])
    loss = calibrated_loss(logits, torch.tensor([1]), torch.tensor([3, 3]), tau=1.0)
    assert float(loss) == 2e4
    assert loss.dtype == torch.float32
