"""FedNTD: divergence over the not-true classes, by a plain loop and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedntd import ntd_loss
from hypothesis import given
from hypothesis import strategies as st


def draw(batch: int, classes: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, classes, generator=generator, dtype=torch.float64)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


@given(st.integers(1, 6), st.integers(2, 6), st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 1000))
def test_the_loss_of_a_loop(batch, classes, temperature, seed):
    local, teacher = draw(batch, classes, seed), draw(batch, classes, seed + 1)
    labels = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = 0.0
    for f, g, y in zip(local.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        q = softmax([v / temperature for c, v in enumerate(f) if c != y])
        p = softmax([v / temperature for c, v in enumerate(g) if c != y])
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    loss = ntd_loss(local, teacher, labels, temperature)
    assert float(loss) == pytest.approx(temperature**2 * expected / batch, abs=1e-12)


def test_three_classes_by_hand():
    """The teacher says 1/2, 1/2 of classes 0 and 2, the student 1/4, 3/4; class 1 is true."""
    student = torch.tensor([[0.0, 99.0, math.log(3)]])
    loss = ntd_loss(student, torch.zeros(1, 3), torch.tensor([1]), 1.0)
    assert float(loss) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_the_gradient_is_that_of_the_student_alone():
    local, teacher = draw(4, 5, 0).requires_grad_(), draw(4, 5, 1).requires_grad_()
    labels = torch.tensor([0, 4, 2, 2])
    ntd_loss(local, teacher, labels, 2.0).backward()
    assert teacher.grad is None
    rows = torch.arange(4)
    assert (local.grad[rows, labels] == 0).all(), "the true class is left alone"
    mask = torch.nn.functional.one_hot(labels, 5).bool()
    q, p = ((v.detach() / 2).masked_fill(mask, -torch.inf).softmax(1) for v in (local, teacher))
    torch.testing.assert_close(local.grad, 2.0 * (q - p) / 4)


def test_two_classes_leave_nothing_to_distil():
    local = draw(3, 2, 0).requires_grad_()
    loss = ntd_loss(local, draw(3, 2, 1), torch.tensor([0, 1, 1]), 1.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (local.grad == 0).all()


def test_equal_not_true_logits_are_no_loss_whatever_the_true_one():
    teacher, labels = draw(3, 4, 0), torch.tensor([1, 2, 3])
    local = teacher.clone()
    local[torch.arange(3), labels] += 5
    assert float(ntd_loss(local + 2.0, teacher, labels, 1.0)) == pytest.approx(0, abs=1e-12)


def test_extreme_logits_stay_finite():
    local = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = ntd_loss(local, torch.tensor([[-1e4, 1e4, 0.0]]), torch.tensor([2]), 1.0)
    loss.backward()
    assert float(loss.detach()) == 2e4
    assert torch.isfinite(local.grad).all()
