"""HPCL, HPAL and the client's margin, against loops written from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_fedhpro.losses import client_margin, hpal, hpcl
from torch import Tensor

CLASSES, D = 4, 6


def example(batch: int = 5, per_class: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, labels and hyper-prototypes of very different lengths, in float64."""
    generator = torch.Generator().manual_seed(batch + 10 * per_class)
    z = torch.randn(batch, D, generator=generator, dtype=torch.float64)
    s = torch.randn(CLASSES, per_class, D, generator=generator, dtype=torch.float64)
    lengths = torch.rand(CLASSES, per_class, 1, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (batch,), generator=generator)
    return z.requires_grad_(), y, (s * 10 * lengths).requires_grad_()


def hpcl_loop(z: Tensor, y: Tensor, s: Tensor, temperature: float, margin: float) -> Tensor:
    """mean_i log(sum_c exp(s_ic) + delta) - s_iy, s_ic = z/|z| . mean_m S_cm/|S_cm| / T."""
    losses = []
    for feature, label in zip(z, y.tolist(), strict=True):
        scores = []
        for prototypes in s:
            u = sum(p / p.norm() for p in prototypes) / len(prototypes)
            scores.append((feature / feature.norm()) @ u / temperature)
        total = sum(score.exp() for score in scores) + margin
        losses.append(total.log() - scores[label])
    return torch.stack(losses).mean()


def hpal_loop(z: Tensor, y: Tensor, s: Tensor) -> Tensor:
    """Mean over samples and coordinates of smooth L1 between z/|z| and Sbar_y/|Sbar_y|."""
    elements = []
    for feature, label in zip(z, y.tolist(), strict=True):
        mean = sum(s[label]) / len(s[label])
        for a, b in zip(feature / feature.norm(), mean / mean.norm(), strict=True):
            gap = (a - b).abs()
            elements.append(gap**2 / 2 if gap < 1 else gap - 0.5)
    return torch.stack(elements).mean()


def same_with_gradients(got: Tensor, expected: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(got, expected)
    for mine, other in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(mine, other)


class TestHpcl:
    @pytest.mark.parametrize("margin", [0.0, 0.3, 40.0])
    @pytest.mark.parametrize("batch", [1, 5])
    @pytest.mark.parametrize("per_class", [1, 3])
    def test_is_the_loop_over_samples_forward_and_backward(self, batch, per_class, margin):
        z, y, s = example(batch, per_class)
        got = hpcl(z, y, s, temperature=0.2, margin=margin)
        same_with_gradients(got, hpcl_loop(z, y, s, 0.2, margin), z, s)

    @pytest.mark.parametrize("margin", [0.0, 2.0])
    def test_its_gradient_is_that_of_finite_differences(self, margin):
        z, y, s = example(3, 2)
        assert torch.autograd.gradcheck(lambda z, s: hpcl(z, y, s, 0.5, margin), (z, s))

    def test_on_paper(self):
        # Two orthogonal classes and a feature on the first: scores 1/T and 0.
        s = torch.eye(2)[:, None, :]
        loss = hpcl(torch.tensor([[7.0, 0.0]]), torch.tensor([0]), s, temperature=0.5)
        assert float(loss) == pytest.approx(math.log(1 + math.exp(-2)))

    @pytest.mark.parametrize("batch", [1, 2, 7])
    def test_published_reduction_divides_the_mean_by_the_batch_size_once_more(self, batch):
        z, y, s = example(batch)
        mean = hpcl(z, y, s, 0.2, 0.1)
        torch.testing.assert_close(hpcl(z, y, s, 0.2, 0.1, reduction="published"), mean / batch)

    def test_a_margin_as_large_as_the_sum_adds_log_2(self):
        # Both scores are 0, so the sum of exponentials is 2.
        z, y, s = torch.tensor([[0.0, 0, 1]]), torch.tensor([1]), torch.eye(3)[:2, None, :]
        assert float(hpcl(z, y, s, 0.1)) == pytest.approx(math.log(2))
        assert float(hpcl(z, y, s, 0.1, margin=2.0)) == pytest.approx(math.log(4))

    @pytest.mark.parametrize("margin", [0.0, -1e-9, -3.0])
    def test_a_margin_that_is_not_positive_adds_nothing(self, margin):
        z, y, s = example()
        assert torch.equal(hpcl(z, y, s, 0.2, margin=margin), hpcl(z, y, s, 0.2))

    def test_the_length_of_a_feature_or_of_a_hyper_prototype_does_not_matter(self):
        z, y, s = example()
        torch.testing.assert_close(hpcl(3 * z, y, 5 * s, 0.2), hpcl(z, y, s, 0.2))

    def test_a_lower_temperature_punishes_the_wrong_class_more(self):
        s = torch.eye(2)[:, None, :]
        z, wrong = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
        losses = [float(hpcl(z, wrong, s, t)) for t in (1.0, 0.5, 0.05)]
        assert losses == pytest.approx([math.log(1 + math.exp(1 / t)) for t in (1.0, 0.5, 0.05)])
        assert losses == sorted(losses)

    def test_scores_far_beyond_the_exponential_do_not_overflow(self):
        # 1/T is 1000; exp(1000) is infinite in float32 and in float64.
        s, z = torch.eye(2)[:, None, :], torch.tensor([[1.0, 0.0]], requires_grad=True)
        wrong = hpcl(z, torch.tensor([1]), s, temperature=1e-3, margin=0.5)
        assert float(wrong.detach()) == pytest.approx(1000)
        assert torch.isfinite(torch.autograd.grad(wrong, z)[0]).all()
        right = hpcl(z.detach(), torch.tensor([0]), s, temperature=1e-3, margin=0.5)
        assert float(right) == 0


class TestHpal:
    @pytest.mark.parametrize("batch", [1, 5])
    @pytest.mark.parametrize("per_class", [1, 3])
    def test_is_the_loop_over_coordinates_forward_and_backward(self, batch, per_class):
        z, y, s = example(batch, per_class)
        same_with_gradients(hpal(z, y, s), hpal_loop(z, y, s), z, s)

    def test_its_linear_part_beyond_a_gap_of_1(self):
        s = torch.tensor([[[1.0, 0.1]]], dtype=torch.float64)
        z = torch.tensor([[-1.0, 0.3]], dtype=torch.float64, requires_grad=True)
        y = torch.tensor([0])
        same_with_gradients(hpal(z, y, s), hpal_loop(z, y, s), z)

    def test_its_gradient_is_that_of_finite_differences(self):
        z, y, s = example(3, 2)
        assert torch.autograd.gradcheck(lambda z, s: hpal(z, y, s), (z, s))

    def test_on_paper(self):
        # Gaps 1 and -1: each gives 1/2, and the mean is over coordinates.
        z, s = torch.tensor([[2.0, 0.0]]), torch.tensor([[[0.0, 1.0], [0.0, 3.0]]])
        assert float(hpal(z, torch.tensor([0]), s)) == pytest.approx(0.5)

    def test_is_zero_along_the_mean_hyper_prototype_of_the_class_at_any_length(self):
        _, y, s = example()
        s = s.detach()
        aligned = 4 * s.mean(dim=1)[y]
        assert float(hpal(aligned, y, s)) == pytest.approx(0, abs=1e-15)


class TestClientMargin:
    @pytest.mark.parametrize("held", [2, 3, CLASSES])
    def test_is_the_loop_over_ordered_pairs_of_held_classes(self, held):
        means = example(held)[0].detach()
        pairs = [(a, b) for a in range(held) for b in range(held) if a != b]
        expected = sum(float(means[a] @ means[b]) for a, b in pairs) / (CLASSES - 1) ** 2
        assert client_margin(means, CLASSES) == pytest.approx(expected)

    def test_divides_by_all_classes_not_by_the_held_ones(self):
        means = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        assert client_margin(means, 3) == pytest.approx(2 * 11 / 2**2)
        assert client_margin(means, 11) == pytest.approx(2 * 11 / 10**2)

    def test_is_negative_for_opposed_classes_and_zero_for_orthogonal_ones(self):
        assert client_margin(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 2) == -2
        assert client_margin(torch.eye(3), 3) == 0

    @pytest.mark.parametrize("classes", [1, 10])
    def test_a_client_with_one_class_has_none(self, classes):
        assert client_margin(torch.tensor([[0.3, 0.7]]), classes) == 0
