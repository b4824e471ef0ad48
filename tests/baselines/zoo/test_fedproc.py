"""FedProc's contrast and its mixing with cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedproc import mixing, prototype_contrast
from hypothesis import given
from hypothesis import strategies as st

from fedbench import PerClass


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rows(labels: list[int], values: torch.Tensor) -> PerClass:
    return PerClass(torch.tensor(labels).long(), values, torch.ones(len(labels)).long())


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True),
    st.integers(1, 6),
    st.sampled_from([0.05, 1.0]),
    st.integers(0, 1000),
)
def test_the_loss_of_a_loop(known, batch, temperature, seed):
    prototypes = rows(known, draw(len(known), 3, seed=seed))
    features = draw(batch, 3, seed=seed + 1).requires_grad_()
    labels = torch.randint(5, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = 0.0
    for z, y in zip(features.tolist(), labels.tolist(), strict=True):
        if y in known:
            scores = [cosine(z, p) / temperature for p in prototypes.values.tolist()]
            expected += math.log(sum(math.exp(s) for s in scores)) - scores[known.index(y)]
    loss = prototype_contrast(features, labels, prototypes, temperature)
    assert float(loss.detach()) == pytest.approx(expected / batch, abs=1e-9)
    loss.backward()
    assert torch.isfinite(features.grad).all()


def test_two_classes_by_hand_without_temperature():
    loss = prototype_contrast(torch.tensor([[3.0, 0.0]]), torch.tensor([0]),
                              rows([0, 1], torch.eye(2)))  # fmt: skip
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize(("known", "label"), [([0], 0), ([0, 1], 2), ([], 0)])
def test_one_class_alone_or_an_unknown_class_adds_nothing(known, label):
    features = torch.ones(1, 2, requires_grad=True)
    loss = prototype_contrast(
        features, torch.tensor([label]), rows(known, torch.eye(2)[: len(known)])
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert (features.grad == 0).all()


def test_cross_entropy_takes_over():
    assert [mixing(r, 4) for r in (1, 2, 3, 5, 9)] == [0, 0.25, 0.5, 1, 1]
    assert [mixing(r, 1) for r in (1, 2)] == [0, 1]
