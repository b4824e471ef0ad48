"""FedTGP: margins by hand and by a loop, and the loss by a loop, finite at distance 0."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedtgp import adaptive_margin, center_loss
from hypothesis import given
from hypothesis import strategies as st

from fedbench import PerClass


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rows(labels: list[int], values: torch.Tensor) -> PerClass:
    return PerClass(torch.tensor(labels), values, torch.ones(len(labels)).long())


# --- the margin ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "margin"), [("max_min", 5.0), ("max", 8.0)])
def test_margins_by_hand(form, margin):
    """Class means at 0, 3 and 8 (the mean of 6 and 10): the nearest are 3, 3 and 5 away."""
    prototypes = rows([0, 4, 2, 2], torch.tensor([[0.0], [3.0], [6.0], [10.0]]))
    assert adaptive_margin(prototypes, 100.0, form) == margin
    assert adaptive_margin(prototypes, 4.0, form) == 4.0, "the threshold bounds it"


@pytest.mark.parametrize("form", ["max_min", "max"])
def test_with_fewer_than_two_classes_the_margin_is_the_threshold(form):
    assert adaptive_margin(rows([1, 1], torch.eye(2)), 7.0, form) == 7.0


@given(st.integers(2, 6), st.integers(0, 1000))
def test_margins_of_a_loop(classes, seed):
    values = draw(classes, 3, seed=seed)
    distances = {
        (i, j): math.dist(values[i].tolist(), values[j].tolist())
        for i in range(classes)
        for j in range(classes)
        if i != j
    }
    gaps = [min(distances[i, j] for j in range(classes) if i != j) for i in range(classes)]
    prototypes = rows(list(range(classes)), values)
    assert adaptive_margin(prototypes, 100, "max_min") == pytest.approx(max(gaps))
    assert adaptive_margin(prototypes, 100, "max") == pytest.approx(max(distances.values()))


# --- the loss ------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0, 10), st.integers(0, 1000))
def test_the_loss_of_a_loop(n, classes, margin, seed):
    points, targets = draw(n, 3, seed=seed), draw(classes, 3, seed=seed + 1)
    labels = torch.randint(classes, (n,), generator=generator(seed))
    expected = 0.0
    for p, y in zip(points.tolist(), labels.tolist(), strict=True):
        scores = [-(math.dist(p, t) + margin * (c == y)) for c, t in enumerate(targets.tolist())]
        expected += math.log(sum(math.exp(s) for s in scores)) - scores[y]
    loss = center_loss(points, labels, targets, margin)
    assert float(loss) == pytest.approx(expected / n)


def test_a_prototype_that_is_met_exactly_has_a_finite_gradient():
    targets = torch.eye(2, requires_grad=True)
    loss = center_loss(torch.eye(2), torch.tensor([0, 1]), targets, 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(1 - 2**0.5)))
    assert torch.isfinite(targets.grad).all()
