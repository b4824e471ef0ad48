"""Recalibration: its gradients, its matching and its training, against autograd and torch.optim."""

from __future__ import annotations

import pytest
import torch
from fedbench_fedhpro.recalibration import classifier_gradients, match_features, train_classifier
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, D = 4, 6


@pytest.fixture
def classifier() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(CLASSES, D, generator=generator, dtype=torch.float64)
    return weight, torch.randn(CLASSES, generator=generator, dtype=torch.float64)


@pytest.fixture
def targets() -> dict[int, tuple[Tensor, Tensor]]:
    """The clients' mean (dW, db) by class; no client holds class 1."""
    generator = torch.Generator().manual_seed(2)
    dw = torch.randn(CLASSES, CLASSES, D, generator=generator, dtype=torch.float64)
    db = torch.randn(CLASSES, CLASSES, generator=generator, dtype=torch.float64)
    return {c: (dw[c], db[c]) for c in (2, 3, 0)}


def features(per_class: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(CLASSES, per_class, D, generator=generator, dtype=torch.float64).to(dtype)


def layer_gradients(z: Tensor, c: int, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return (dW, db) of the mean cross-entropy of features that all belong to class c."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    loss = F.cross_entropy(F.linear(z, weight, bias), torch.full((len(z),), c))
    return list(torch.autograd.grad(loss, [weight, bias], create_graph=True))


def test_classifier_gradients_are_autograd_s_class_by_class(classifier):
    z = features(3).flatten(0, 1)
    y = torch.tensor([0, 3, 3, 0, 2, 3, 0, 3, 3, 3, 3, 3])
    weights, biases = classifier_gradients(z, y, *classifier)
    for part in (weights, biases):
        assert part.labels.tolist() == [0, 2, 3]
        assert part.counts.tolist() == [3, 1, 8]
    for n, c in enumerate([0, 2, 3]):
        dw, db = layer_gradients(z[y == c], c, *classifier)
        torch.testing.assert_close(weights.values[n], dw.detach())
        torch.testing.assert_close(biases.values[n], db.detach())


def one_minus_cosine(a: Tensor, b: Tensor) -> Tensor:
    return 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)


def matching_loss(
    x: Tensor, targets: dict[int, tuple[Tensor, Tensor]], weight: Tensor, bias: Tensor
) -> Tensor:
    """Sum over reported classes: each row of dW, and db."""
    loss = torch.zeros((), dtype=x.dtype)
    for c, (dw, db) in targets.items():
        mine_w, mine_b = layer_gradients(x[c], c, weight, bias)
        for mine, theirs in zip(mine_w, dw, strict=True):
            loss = loss + one_minus_cosine(mine, theirs)
        loss = loss + one_minus_cosine(mine_b, db)
    return loss


class TestMatchFeatures:
    @pytest.fixture
    def gradients(self, targets, rows):
        return (
            rows({c: dw for c, (dw, _) in targets.items()}),
            rows({c: db for c, (_, db) in targets.items()}),
        )

    @pytest.mark.parametrize("per_class", [1, 7])
    def test_is_the_loop_with_double_backward(self, classifier, targets, gradients, per_class):
        start = features(per_class)
        x = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([x], lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            matching_loss(x, targets, *classifier).backward()
            optimizer.step()
        got = match_features(start, *gradients, *classifier, steps=5, lr=0.1)
        assert (got - start).abs().max() > 1e-3
        torch.testing.assert_close(got, x.detach(), rtol=1e-9, atol=1e-12)

    def test_a_class_that_nobody_reports_stays_as_it_is(self, classifier, gradients):
        start = features(3)
        got = match_features(start, *gradients, *classifier, 3, 0.1)
        moved = [not torch.equal(a, b) for a, b in zip(got, start, strict=True)]
        assert moved == [True, False, True, True]

    def test_its_input_is_left_alone_and_no_step_changes_nothing(self, classifier, gradients):
        start = features(3)
        kept = start.clone()
        match_features(start, *gradients, *classifier, 3, 0.1)
        assert torch.equal(start, kept)
        assert torch.equal(match_features(start, *gradients, *classifier, 0, 0.1), kept)

    def test_brings_the_gradients_together(self, classifier, targets, gradients):
        start = features(7)
        after = match_features(start, *gradients, *classifier, steps=100, lr=0.1)
        losses = [matching_loss(x, targets, *classifier).detach() for x in (start, after)]
        assert losses[1] < 0.7 * losses[0]


class TestTrainClassifier:
    @pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
    def test_is_a_linear_layer_under_sgd(self, batch_size):
        x = features(3, torch.float32)
        got = train_classifier(x, 4, batch_size, 0.05, torch.Generator().manual_seed(0))

        generator = torch.Generator().manual_seed(0)
        layer = nn.Linear(D, CLASSES)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(-(D**-0.5), D**-0.5, generator=generator)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
        z, y = x.reshape(12, D), torch.tensor([c for c in range(CLASSES) for _ in range(3)])
        for _ in range(4):
            order = torch.randperm(12, generator=generator)
            for start in range(0, 12, batch_size):
                index = order[start : start + batch_size]
                optimizer.zero_grad()
                F.cross_entropy(layer(z[index]), y[index]).backward()
                optimizer.step()
        torch.testing.assert_close(got[0], layer.weight.detach())
        torch.testing.assert_close(got[1], layer.bias.detach())

    def test_starts_from_the_distribution_of_a_fresh_layer(self):
        def weights(made: tuple[Tensor, Tensor]) -> Tensor:
            return torch.cat([made[0].flatten(), made[1]])

        ours = train_classifier(torch.zeros(50, 1, 64), 1, 50, 1e-9, torch.Generator())
        torch.manual_seed(0)
        layer = nn.Linear(64, 50)
        theirs = weights((layer.weight.detach(), layer.bias.detach()))
        assert float(weights(ours).abs().max()) == pytest.approx(64**-0.5, rel=0.01)
        assert float(weights(ours).std()) == pytest.approx(float(theirs.std()), rel=0.05)

    def test_depends_on_its_generator_alone(self):
        def trained(seed: int) -> Tensor:
            torch.manual_seed(trained.calls)
            trained.calls += 1
            generator = torch.Generator().manual_seed(seed)
            return train_classifier(features(3, torch.float32), 2, 5, 0.05, generator)[0]

        trained.calls = 0
        assert torch.equal(trained(0), trained(0))
        assert not torch.equal(trained(0), trained(1))

    def test_learns_to_tell_the_classes_apart(self):
        x = features(10, torch.float32) * 0.3 + 2 * torch.eye(CLASSES, D)[:, None, :]
        weight, bias = train_classifier(x, 50, 10, 0.1, torch.Generator().manual_seed(0))
        assert F.linear(x, weight, bias).argmax(-1).tolist() == [[c] * 10 for c in range(CLASSES)]
