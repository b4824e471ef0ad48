"""Class gradients against autograd; matching against a plain loop with double backward."""

from __future__ import annotations

import pytest
import torch
from fedbench_fedhpro.hyper_prototypes import (
    class_gradients,
    distance,
    initial,
    match,
    matching_loss,
)
from torch import Tensor
from torch.nn import functional as F

CLASSES, D = 4, 6
KINDS = ["coordinate", "cosine", "mse"]


@pytest.fixture
def classifier() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(CLASSES, D, generator=generator, dtype=torch.float64)
    return weight, torch.randn(CLASSES, generator=generator, dtype=torch.float64)


@pytest.fixture
def targets() -> dict[int, Tensor]:
    """The clients' mean gradients by class; no client holds class 2."""
    generator = torch.Generator().manual_seed(2)
    g = torch.randn(CLASSES, D, generator=generator, dtype=torch.float64) * 0.1
    return {c: g[c] for c in (3, 0, 1)}


def prototypes(per_class: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(CLASSES, per_class, D, generator=generator, dtype=torch.float64)


class TestInitial:
    def test_normal_is_standard_normal(self):
        found = initial(4, 3, 5, "normal", torch.Generator().manual_seed(0))
        assert torch.equal(found, torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)))

    def test_orthogonal_directions_are_the_same_within_a_class(self):
        found = initial(4, 3, 9, "orthogonal", torch.Generator().manual_seed(0))
        assert found.shape == (4, 3, 9)
        assert torch.equal(found[:, 0], found[:, 2])
        products = found[:, 0] @ found[:, 0].T
        torch.testing.assert_close(products, 9 * torch.eye(4), atol=1e-5, rtol=0)

    def test_more_classes_than_features_still_have_directions(self):
        found = initial(6, 1, 2, "orthogonal", torch.Generator().manual_seed(0))
        torch.testing.assert_close(found.norm(dim=2), torch.full((6, 1), 2**0.5))


class TestClassGradients:
    def test_are_autograd_s_per_class_averaged_over_samples(self, classifier):
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(11, D, generator=generator, dtype=torch.float64)
        y = torch.tensor([0, 3, 3, 0, 1, 3, 0, 3, 3, 3, 3])
        got = class_gradients(z, y, *classifier)
        assert got.labels.tolist() == [0, 1, 3]
        assert got.counts.tolist() == [3, 1, 7]
        for c, row in zip(got.labels.tolist(), got.values, strict=True):
            mine = z[y == c].requires_grad_()
            loss = F.cross_entropy(F.linear(mine, *classifier), y[y == c])  # one factor 1/n
            (gradient,) = torch.autograd.grad(loss, mine)
            torch.testing.assert_close(row, gradient.mean(dim=0))  # the other

    def test_on_paper(self):
        # At z = 0 both probabilities are 1/2: (1/2 (2, 0) + 1/2 (0, 4)) - (2, 0) = (-1, 2).
        weight, bias = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.zeros(2)
        once = class_gradients(torch.zeros(1, 2), torch.tensor([0]), weight, bias)
        assert once.values.tolist() == [[-1, 2]]
        four_times = class_gradients(torch.zeros(4, 2), torch.zeros(4).long(), weight, bias)
        assert four_times.values.tolist() == [[-0.25, 0.5]]


def distance_loop(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Return one class's distance between gradients (d,), coordinate by coordinate."""
    pairs = list(zip(a, b, strict=True))
    if kind == "coordinate":
        return sum(1 - x * y / (x.abs() * y.abs() + 1e-6) for x, y in pairs)
    if kind == "mse":
        return sum((x - y) ** 2 for x, y in pairs)
    length_a, length_b = (sum(x**2 for x in v).sqrt() for v in (a, b))
    return 1 - sum(x * y for x, y in pairs) / (length_a * length_b + 1e-6)


class TestDistance:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [1.0, 1e-3], ids=["large", "as small as the 1e-6"])
    def test_is_the_loop_over_coordinates(self, kind, size):
        generator = torch.Generator().manual_seed(4)
        a, b = size * torch.randn(2, 3, D, generator=generator, dtype=torch.float64)
        expected = torch.stack([distance_loop(x, y, kind) for x, y in zip(a, b, strict=True)])
        torch.testing.assert_close(distance(a, b, kind), expected)

    @pytest.mark.parametrize(
        ("kind", "value"), [("coordinate", 1), ("cosine", 1 - 2 / 5**0.5), ("mse", 2)]
    )
    def test_on_paper(self, kind, value):
        # (2, 1) and (3, 0): the first coordinates agree in sign, the second product is 0.
        a, b = torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0, 0.0]])
        assert distance(a, b, kind).tolist() == pytest.approx([value], abs=1e-6)

    def test_coordinate_counts_signs_and_forgets_sizes(self):
        a, b = torch.tensor([[5.0, -0.1, 3.0]]), torch.tensor([[0.2, 7.0, 1.0]])
        assert float(distance(a, b, "coordinate")) == pytest.approx(2, abs=1e-5)


def match_loop(
    s: Tensor,
    targets: dict[int, Tensor],
    weight: Tensor,
    bias: Tensor,
    steps: int,
    lr: float,
    kind: str,
) -> tuple[Tensor, list[float]]:
    """Run SGD on sum_c D(ghat_c, g_c) with double backward; also return the loss per step."""
    s = s.clone().requires_grad_()
    optimizer = torch.optim.SGD([s], lr=lr)
    losses = []
    for _ in range(steps):
        loss = torch.zeros((), dtype=s.dtype)
        for c, target in targets.items():
            logits = F.linear(s[c], weight, bias)
            entropy = F.cross_entropy(logits, torch.full((len(s[c]),), c))
            (gradient,) = torch.autograd.grad(entropy, s, create_graph=True)
            loss = loss + distance_loop(gradient[c].mean(dim=0), target, kind)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return s.detach(), losses


class TestMatch:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("per_class", [1, 5])
    def test_is_the_loop_with_double_backward(self, classifier, targets, rows, kind, per_class):
        start = prototypes(per_class)
        expected, losses = match_loop(start, targets, *classifier, 6, 0.1, kind)
        got = match(start, rows(targets), *classifier, steps=6, lr=0.1, distance=kind)
        assert (got - start).abs().max() > 1e-4
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        first = matching_loss(start, rows(targets), *classifier, kind)
        assert float(first) == pytest.approx(losses[0])

    def test_a_class_that_nobody_reports_stays_as_it_is(self, classifier, targets, rows):
        start = prototypes(5)
        got = match(start, rows(targets), *classifier, 3, 0.1, "coordinate")
        moved = [not torch.equal(a, b) for a, b in zip(got, start, strict=True)]
        assert moved == [True, True, False, True]

    def test_the_order_of_the_rows_does_not_matter(self, classifier, targets, rows):
        back = dict(reversed(targets.items()))
        one, two = (
            match(prototypes(2), rows(g), *classifier, 5, 0.1, "cosine") for g in (targets, back)
        )
        torch.testing.assert_close(one, two)

    def test_its_input_is_left_alone_and_no_step_changes_nothing(self, classifier, targets, rows):
        start = prototypes(5)
        kept = start.clone()
        match(start, rows(targets), *classifier, 3, 0.1, "mse")
        assert torch.equal(start, kept)
        still = match(start, rows(targets), *classifier, 0, 0.1, "mse")
        assert torch.equal(still, kept)
        assert still.data_ptr() != start.data_ptr()

    def test_takes_a_live_layer_and_returns_a_plain_tensor(self, targets, rows):
        layer = torch.nn.Linear(D, CLASSES, dtype=torch.float64)
        got = match(prototypes(5), rows(targets), layer.weight, layer.bias, 2, 0.1, "mse")
        assert not got.requires_grad
        assert layer.weight.grad is None

    @pytest.mark.parametrize(("kind", "lr"), [("cosine", 1.0), ("mse", 20.0)])
    def test_brings_the_gradients_together(self, classifier, kind, lr):
        # Gradients of real features, so that hyper-prototypes can match them.
        z = torch.randn(40, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        real = class_gradients(z, torch.arange(40) % CLASSES, *classifier)
        path = [prototypes(5)]
        for _ in range(5):
            path.append(match(path[-1], real, *classifier, 20, lr, kind))
        losses = [float(matching_loss(s, real, *classifier, kind)) for s in path]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 0.5 * losses[0]
