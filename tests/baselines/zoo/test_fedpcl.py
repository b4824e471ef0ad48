"""FedPCL's contrast: a plain loop, hand numbers, and samples that have nothing to contrast."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedpcl import prototype_contrast
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
    st.sampled_from([0.07, 1.0]),
    st.integers(0, 1000),
)
def test_the_loss_of_a_loop(known, batch, temperature, seed):
    prototypes = rows(known, draw(len(known), 3, seed=seed))
    features = draw(batch, 3, seed=seed + 1).requires_grad_()
    labels = torch.randint(5, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = 0.0
    for z, y in zip(features.tolist(), labels.tolist(), strict=True):
        scores = {
            c: cosine(z, p) / temperature
            for c, p in zip(known, prototypes.values.tolist(), strict=True)
        }
        own = scores.pop(y, None)
        if own is not None and scores:
            expected -= own - math.log(sum(math.exp(s) for s in scores.values()))
    loss = prototype_contrast(features, labels, prototypes, temperature)
    assert float(loss.detach()) == pytest.approx(expected / batch, abs=1e-9)
    loss.backward()
    assert torch.isfinite(features.grad).all()


def test_two_classes_by_hand():
    """Its own prototype at cosine 1, the other at 0, T = 0.5: 0 - 2."""
    loss = prototype_contrast(
        torch.tensor([[3.0, 0.0]]), torch.tensor([1]), rows([0, 1], torch.eye(2).flip(0)), 0.5
    )
    assert float(loss) == -2.0


@pytest.mark.parametrize(("known", "label"), [([0], 0), ([0, 1], 2), ([], 0)])
def test_without_a_pair_to_contrast_a_sample_adds_nothing(known, label):
    """No other class, no own prototype, no prototype at all."""
    features = torch.ones(1, 2, requires_grad=True)
    loss = prototype_contrast(
        features, torch.tensor([label]), rows(known, torch.eye(2)[: len(known)]), 0.07
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert (features.grad == 0).all()


def test_lengths_do_not_matter_and_zero_features_are_finite():
    features, labels, values = draw(4, 3), torch.tensor([0, 1, 1, 0]), draw(2, 3, seed=1)
    one = prototype_contrast(features, labels, rows([0, 1], values), 0.1)
    other = prototype_contrast(5 * features, labels, rows([0, 1], 0.1 * values), 0.1)
    torch.testing.assert_close(one, other)
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    prototype_contrast(zero, torch.tensor([0]), rows([0, 1], values), 0.1).backward()
    assert torch.isfinite(zero.grad).all()
