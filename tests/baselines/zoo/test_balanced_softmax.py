"""Balanced softmax: a plain loop, hand numbers, priors that cancel, and absent classes."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.balanced_softmax import balanced_loss
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F


def draw(batch: int, classes: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, classes, generator=generator, dtype=torch.float64)


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=6),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 1000),
)
def test_the_loss_of_a_loop(counts, batch, tau, seed):
    logits = draw(batch, len(counts), seed).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(counts), (batch,), generator=generator)
    expected = 0.0
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        if counts[y]:  # exp(f) * share^tau
            weight = [
                math.exp(f) * (n / sum(counts)) ** tau if n else 0.0
                for f, n in zip(row, counts, strict=True)
            ]
            expected -= math.log(weight[y] / sum(weight))
    loss = balanced_loss(logits, labels, torch.tensor(counts), tau)
    assert float(loss.detach()) == pytest.approx(expected / batch, abs=1e-12)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:, torch.tensor(counts) == 0] == 0).all()


def test_two_classes_by_hand():
    """Equal logits and shares 3/4, 1/4: the softmax is the shares."""
    loss = balanced_loss(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([6, 2]))
    assert float(loss) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


def test_logits_that_are_minus_the_log_shares_leave_a_uniform_softmax():
    counts = torch.tensor([1, 2, 5])
    logits = -(counts / 8).log().expand(4, 3)
    loss = balanced_loss(logits, torch.tensor([0, 1, 2, 2]), counts)
    assert float(loss) == pytest.approx(math.log(3))


def test_equal_counts_are_cross_entropy():
    logits, labels = draw(5, 4, 0), torch.tensor([0, 1, 2, 3, 3])
    loss = balanced_loss(logits, labels, torch.full((4,), 9))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_only_shares_count():
    logits, labels, counts = draw(5, 3, 1), torch.tensor([0, 1, 2, 2, 0]), torch.tensor([4, 1, 2])
    one, ten = balanced_loss(logits, labels, counts), balanced_loss(logits, labels, 10 * counts)
    torch.testing.assert_close(one, ten)
