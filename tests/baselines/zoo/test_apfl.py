"""APFL: the mix of two models and the step of its ratio."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.apfl import alpha_step, mix
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

Named = dict[str, Tensor]


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Named:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (2, 3), "bias": (2,)}
    return {k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shapes.items()}


def loss_of(model: Named, data: Named) -> Tensor:
    return torch.stack([((model[k] - data[k]) ** 4).sum() for k in model]).sum()


def test_a_mix_and_a_step_by_hand() -> None:
    v, w, g = ({"w": torch.tensor(x)} for x in ([4.0, 0.0], [0.0, 8.0], [1.0, 0.5]))
    assert mix(v, w, 0.25)["w"].tolist() == [1.0, 6.0]
    # <v - w, g> = 4 * 1 - 8 * 0.5 = 0, then 4 * 1 - 8 * 0.25 = 2
    assert alpha_step(0.5, v, w, g, lr=0.1) == 0.5
    g["w"][1] = 0.25
    assert alpha_step(0.5, v, w, g, lr=0.1) == pytest.approx(0.3)


@given(st.floats(0, 1))
def test_mix_against_the_formula(alpha: float) -> None:
    v, w = draw(0), draw(1)
    for k, mixed in mix(v, w, alpha).items():
        torch.testing.assert_close(mixed, alpha * v[k] + (1 - alpha) * w[k])


@given(st.floats(0, 1))
def test_the_ends_and_the_mix_of_equal_models_are_exact(alpha: float) -> None:
    v, w = draw(0, torch.float32), draw(1, torch.float32)
    for k in v:
        assert mix(v, w, 1.0)[k].equal(v[k])
        assert mix(v, w, 0.0)[k].equal(w[k])
        assert mix(v, v, alpha)[k].equal(v[k])


def test_the_personal_model_gets_alpha_times_the_gradient_at_the_mix() -> None:
    v, w, data = draw(0), draw(1), draw(2)
    leaves = {k: x.clone().requires_grad_() for k, x in v.items()}
    loss_of(mix(leaves, w, 0.3), data).backward()
    for k, mixed in mix(v, w, 0.3).items():
        torch.testing.assert_close(leaves[k].grad, 0.3 * 4 * (mixed - data[k]) ** 3)


def test_alpha_follows_the_derivative_of_the_loss() -> None:
    v, w, data = draw(0), draw(1), draw(2)
    alpha = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    mixed = {k: alpha * v[k] + (1 - alpha) * w[k] for k in v}
    slope = torch.autograd.grad(loss_of(mixed, data), alpha)[0]
    gradient = {k: 4 * (x.detach() - data[k]) ** 3 for k, x in mixed.items()}
    assert alpha_step(0.4, v, w, gradient, lr=1e-3) == pytest.approx(0.4 - 1e-3 * float(slope))


def test_alpha_stays_between_0_and_1() -> None:
    v, w, g = ({"w": torch.tensor([x])} for x in (1.0, 0.0, 5.0))
    assert alpha_step(0.5, v, w, g, lr=1.0) == 0.0
    assert alpha_step(0.5, w, v, g, lr=1.0) == 1.0


def test_equal_models_leave_alpha() -> None:
    v = draw(0, torch.float32)
    assert alpha_step(0.37, v, v, draw(1, torch.float32), lr=1.0) == 0.37


def test_arguments_stay_and_types_are_kept() -> None:
    v, w = draw(0, torch.float32), draw(1, torch.float32)
    mix(v, w, 0.5)["bias"].add_(1)
    alpha_step(0.5, v, w, draw(2, torch.float32), lr=0.1)
    assert mix(v, w, 0.5)["bias"].dtype == torch.float32
    for k, fresh in draw(0, torch.float32).items():
        assert v[k].equal(fresh)
