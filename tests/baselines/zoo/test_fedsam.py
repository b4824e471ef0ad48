"""SAM's ascent directions: lengths, hand numbers, and zero gradients."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fedsam import adaptive_perturbation, perturbation
from hypothesis import given
from hypothesis import strategies as st


def draw(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((2, 3), (4,), ())]


def length(parts: list[torch.Tensor]) -> float:
    return sum(float(x) ** 2 for p in parts for x in p.flatten()) ** 0.5


def test_the_norm_is_over_all_parameters_together():
    params = [torch.zeros(1), torch.zeros(1)]
    found = perturbation(params, [torch.tensor([3.0]), torch.tensor([4.0])], rho=10.0)
    assert [e.item() for e in found] == [6.0, 8.0]


def test_an_adaptive_ascent_by_hand():
    """T is |-2| + 1 = 3 and 1, so T g is 3 and 4, and T^2 g is 9 and 4."""
    params = [torch.tensor([-2.0]), torch.tensor([7.0])]
    gradients = [torch.tensor([1.0]), torch.tensor([4.0])]
    found = adaptive_perturbation(params, gradients, [True, False], rho=10.0, eta=1.0)
    assert [e.item() for e in found] == pytest.approx([18.0, 8.0])


@given(st.integers(0, 1000), st.floats(0.01, 2))
def test_an_ascent_has_length_rho_and_the_gradients_direction(seed, rho):
    params, gradients = draw(seed), draw(seed + 1)
    found = perturbation(params, gradients, rho)
    assert length(found) == pytest.approx(rho)
    for e, g in zip(found, gradients, strict=True):
        torch.testing.assert_close(e, rho * g / length(gradients))


@given(st.integers(0, 1000), st.floats(0.01, 2), st.floats(0, 0.5))
def test_an_adaptive_ascent_of_a_loop(seed, rho, eta):
    params, gradients, scaled = draw(seed), draw(seed + 1), [True, False, True]
    found = adaptive_perturbation(params, gradients, scaled, rho, eta)
    scales = [w.abs() + eta if s else w * 0 + 1 for w, s in zip(params, scaled, strict=True)]
    norm = length([t * g for t, g in zip(scales, gradients, strict=True)])
    for e, t, g in zip(found, scales, gradients, strict=True):
        torch.testing.assert_close(e, rho * t**2 * g / norm)
    ratios = [e / t for e, t in zip(found, scales, strict=True)]
    assert length(ratios) == pytest.approx(rho), "the length in units of T"


def test_nothing_scaled_is_sam():
    params, gradients = draw(0), draw(1)
    plain = perturbation(params, gradients, 0.1)
    for e, f in zip(
        adaptive_perturbation(params, gradients, [False] * 3, 0.1, 0.2), plain, strict=True
    ):
        assert torch.equal(e, f)


def test_a_zero_gradient_gives_no_ascent():
    params = [torch.ones(3, requires_grad=True), torch.zeros(2, requires_grad=True)]
    gradients = [torch.zeros(3), torch.zeros(2)]
    for found in (
        perturbation(params, gradients, 0.1),
        adaptive_perturbation(params, gradients, [True, True], 0.1, 0.0),
    ):
        assert [e.tolist() for e in found] == [[0] * 3, [0] * 2]
        assert not any(e.requires_grad for e in found)


def test_types_and_shapes_are_kept():
    params = [torch.ones(2, 2), torch.ones(3)]
    found = perturbation(params, params, 0.1)
    assert [(e.shape, e.dtype) for e in found] == [(p.shape, p.dtype) for p in params]
