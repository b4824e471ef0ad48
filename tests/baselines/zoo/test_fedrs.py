"""FedRS: scales of both forms, and the restricted cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedrs import restricted_loss, scales
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F


def test_scales_by_hand():
    counts = torch.tensor([8, 0, 2])
    assert scales(counts, 0.5, "presence").tolist() == [1.0, 0.5, 1.0]
    assert scales(counts, 0.5, "counts").tolist() == [1.0, 0.5, 0.625]


@pytest.mark.parametrize("form", ["presence", "counts"])
def test_alpha_one_and_equal_counts_scale_nothing(form):
    assert scales(torch.tensor([5, 0, 1]), 1.0, form).tolist() == [1, 1, 1]
    assert scales(torch.tensor([5, 5]), 0.3, form).tolist() == [1, 1]


@pytest.mark.parametrize("form", ["presence", "counts"])
def test_without_any_example_all_are_scaled_by_alpha(form):
    assert scales(torch.zeros(3).long(), 0.5, form).tolist() == [0.5] * 3


@given(st.integers(1, 8), st.integers(2, 6), st.integers(0, 1000))
def test_the_loss_of_a_loop(batch, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    factors = torch.rand(classes, generator=generator)
    expected = 0.0
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        scaled = [f * s for f, s in zip(row, factors.tolist(), strict=True)]
        expected += math.log(sum(math.exp(f) for f in scaled)) - scaled[y]
    loss = restricted_loss(logits, labels, factors)
    assert float(loss) == pytest.approx(expected / batch)
    assert loss.dtype == torch.float64


def test_the_gradient_of_an_absent_class_is_weakened_by_alpha():
    """At zero logits the scale changes no probability, only the gradient."""
    logits = torch.zeros(1, 3, requires_grad=True)
    factors = scales(torch.tensor([4, 4, 0]), 0.5, "presence")
    restricted_loss(logits, torch.tensor([0]), factors).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-2 / 3, 1 / 3, 1 / 6]]))


def test_all_classes_held_are_cross_entropy():
    logits, labels = torch.eye(3), torch.tensor([0, 2, 1])
    loss = restricted_loss(logits, labels, scales(torch.tensor([1, 2, 3]), 0.5, "presence"))
    assert loss == F.cross_entropy(logits, labels)
