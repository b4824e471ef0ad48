"""The baselines' formulas against plain per-sample loops, forward and gradient."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fedbench_baselines.fedavg import weighted_mean
from fedbench_baselines.fedproto import nearest, prototype_loss
from fedbench_baselines.fedprox import proximal_term
from fedbench_baselines.fpl import cluster, finch, fpl_loss
from fedbench_baselines.moon import moon_loss
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench import Output, PerClass


@pytest.fixture
def batch() -> SimpleNamespace:
    """Seven features of size five; classes 0, 1, 3 have prototypes, class 2 has none."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return SimpleNamespace(
        features=draw(7, 5).requires_grad_(),
        other=draw(7, 5),
        third=draw(7, 5),
        labels=torch.tensor([0, 1, 2, 3, 3, 0, 2]),
        single=PerClass(torch.tensor([3, 0, 1]), draw(3, 5), torch.tensor([4, 5, 6])),
        several=PerClass(torch.tensor([0, 3, 0, 1, 3, 3]), draw(6, 5), torch.arange(6) + 1),
    )


def same_with_gradient(fast: Tensor, slow: Tensor, leaf: Tensor) -> None:
    torch.testing.assert_close(fast, slow)
    (one,) = torch.autograd.grad(fast, leaf)
    (two,) = torch.autograd.grad(slow, leaf)
    torch.testing.assert_close(one, two)


def test_proximal_term_is_half_the_squared_distance() -> None:
    w = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    anchor = [torch.tensor([0.0, 4.0]), torch.tensor([[1.0]])]
    term = proximal_term(w, anchor)
    assert float(term.detach()) == (1 + 4 + 4) / 2
    gradients = torch.autograd.grad(term, w)
    assert [g.tolist() for g in gradients] == [[1.0, -2.0], [[2.0]]]


def test_moon_loss_against_a_loop(batch: SimpleNamespace) -> None:
    t = 0.5
    slow = torch.zeros((), dtype=torch.float64)
    for z, near, far in zip(batch.features, batch.other, batch.third, strict=True):
        a = torch.exp((z @ near) / (z.norm() * near.norm()) / t)
        b = torch.exp((z @ far) / (z.norm() * far.norm()) / t)
        slow = slow - torch.log(a / (a + b)) / 7
    fast = moon_loss(batch.features, batch.other, batch.third, t)
    same_with_gradient(fast, slow, batch.features)


def test_moon_loss_of_equal_models_is_log_two(batch: SimpleNamespace) -> None:
    loss = moon_loss(batch.features, batch.other, batch.other, 0.5)
    assert float(loss.detach()) == pytest.approx(math.log(2))


def test_prototype_loss_against_a_loop(batch: SimpleNamespace) -> None:
    table = dict(zip(batch.single.labels.tolist(), batch.single.values, strict=True))
    slow = torch.zeros((), dtype=torch.float64)
    for z, y in zip(batch.features, batch.labels.tolist(), strict=True):
        if y in table:
            for j in range(5):
                slow = slow + (z[j] - table[y][j]) ** 2 / (7 * 5)
    fast = prototype_loss(batch.features, batch.labels, batch.single)
    same_with_gradient(fast, slow, batch.features)


def fpl_loop(features: Tensor, labels: Tensor, prototypes: PerClass, t: float) -> Tensor:
    total = torch.zeros((), dtype=features.dtype)
    for z, y in zip(features, labels.tolist(), strict=True):
        mine = [
            p for p, c in zip(prototypes.values, prototypes.labels.tolist(), strict=True) if c == y
        ]
        if not mine:
            continue
        above = sum(torch.exp(F.cosine_similarity(z, p, dim=0) / t) for p in mine)
        below = sum(torch.exp(F.cosine_similarity(z, p, dim=0) / t) for p in prototypes.values)
        mean = sum(mine) / len(mine)
        total = total - torch.log(above / below) + ((z - mean) ** 2).mean()
    return total / len(labels)


@pytest.mark.parametrize("t", [0.02, 0.5])
def test_fpl_loss_against_a_loop(batch: SimpleNamespace, t: float) -> None:
    slow = fpl_loop(batch.features, batch.labels, batch.several, t)
    same_with_gradient(
        fpl_loss(batch.features, batch.labels, batch.several, t), slow, batch.features
    )


@pytest.mark.parametrize("loss", ["fedproto", "fpl"])
def test_a_batch_with_no_known_class_gives_zero_with_a_gradient(
    batch: SimpleNamespace, loss: str
) -> None:
    labels = torch.full((7,), 2)
    if loss == "fedproto":
        value = prototype_loss(batch.features, labels, batch.single)
    else:
        value = fpl_loss(batch.features, labels, batch.several, 0.02)
    assert float(value.detach()) == 0
    (gradient,) = torch.autograd.grad(value, batch.features)
    assert not gradient.any()


def test_a_batch_of_one(batch: SimpleNamespace) -> None:
    one, label = batch.features[:1], batch.labels[:1]
    assert torch.isfinite(prototype_loss(one, label, batch.single))
    assert torch.isfinite(fpl_loss(one, label, batch.several, 0.02))
    assert torch.isfinite(moon_loss(one, batch.other[:1], batch.third[:1], 0.5))


def test_fpl_with_one_prototype_in_all_keeps_only_consistency(batch: SimpleNamespace) -> None:
    lone = PerClass(torch.tensor([0]), torch.ones(1, 5, dtype=torch.float64), torch.tensor([1]))
    value = fpl_loss(batch.features[:1], torch.tensor([0]), lone, 0.02)
    expected = (batch.features[0] - 1).square().mean()
    torch.testing.assert_close(value, expected)


def test_nearest_prototype_scores() -> None:
    prototypes = PerClass(
        torch.tensor([2, 0]), torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([1, 1])
    )
    features = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    scores = nearest(prototypes, 4)(Output(features, torch.zeros(2, 4)))
    torch.testing.assert_close(scores[:, 2], torch.tensor([-1.0, -25.0]))
    torch.testing.assert_close(scores[:, 0], torch.tensor([-18.0, 0.0]))
    assert (scores[:, [1, 3]] < scores[:, [0, 2]].min(dim=1).values[:, None]).all()
    assert scores.argmax(1).tolist() == [2, 0]


def brute_force_finch(points: np.ndarray) -> list[set[int]]:
    """FINCH as its paper states it: link i and j if one is the other's first neighbour, or if both
    have the same one; repeat with the clusters' means."""

    def groups_of(rows: np.ndarray) -> list[set[int]]:
        n = len(rows)
        first = []
        for i in range(n):
            cosines = [
                -2.0 if j == i
                else float(rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]))
                for j in range(n)
            ]  # fmt: skip
            first.append(int(np.argmax(cosines)) if n > 1 else i)
        groups = [{i} for i in range(n)]
        for i, j in itertools.combinations(range(n), 2):
            if first[i] == j or first[j] == i or first[i] == first[j]:
                a = next(g for g in groups if i in g)
                b = next(g for g in groups if j in g)
                if a is not b:
                    groups.remove(b)
                    a |= b
        return groups

    current = groups_of(points)
    while True:
        means = np.stack([points[sorted(g)].mean(axis=0) for g in current])
        merged = groups_of(means)
        if len(merged) in (1, len(current)):
            return current
        current = [set().union(*(current[i] for i in g)) for g in merged]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 20, 40])
@pytest.mark.parametrize("seed", range(5))
def test_finch_is_the_coarsest_partition_of_its_paper(n: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(n, 4))
    labels = finch(torch.from_numpy(points)).numpy()
    found = {frozenset(np.flatnonzero(labels == g).tolist()) for g in range(labels.max() + 1)}
    assert found == {frozenset(g) for g in brute_force_finch(points)}


def test_cluster_means_and_counts_by_hand() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [5.0, 5.0]])
    prototypes = PerClass(torch.tensor([4, 4, 4, 4, 7]), rows, torch.tensor([1, 2, 3, 4, 5]))
    found = cluster(prototypes)
    assert found.labels.tolist() == [4, 4, 7]
    expected = torch.tensor([[0.95, 0.05], [0.05, 0.95], [5.0, 5.0]])
    torch.testing.assert_close(found.values, expected)
    assert found.counts.tolist() == [3, 7, 5]


def test_weighted_mean_by_hand_and_identity() -> None:
    one = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    two = {"w": torch.tensor([4.0, 8.0]), "n": torch.tensor(4)}
    mean = weighted_mean([(one, 1), (two, 2)])
    assert mean["w"].tolist() == [3.0, 6.0]
    assert mean["n"].item() == 4
    assert mean["n"].dtype == torch.int64
    odd = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0))}
    again = weighted_mean([(odd, n) for n in (3, 11, 7)])["w"]
    assert torch.equal(again, odd["w"])


def test_gradients_reach_batch_normalised_features_of_one_sample() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    z = model(torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0)))
    prototypes = PerClass(torch.tensor([0]), torch.zeros(1, 18), torch.tensor([1]))
    prototype_loss(z, torch.tensor([0]), prototypes).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_terms_compose_with_personal_models_too(run_tiny) -> None:
    run = run_tiny("fedproto-aaai", rounds=2, extra={"fedprox": {}, "fpl": {}})
    metrics = run.history[-1].metrics
    for name in ("cross_entropy", "fedproto", "fedprox", "fpl"):
        assert math.isfinite(metrics[f"loss.{name}"])
    assert metrics["loss.fpl"] > metrics["loss.fedproto"] > 0
    assert set(run.history[-1].bytes_up) == {"fedproto.prototypes", "fpl.prototypes"}
