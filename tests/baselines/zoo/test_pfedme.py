"""pFedMe: steps of the personal model and of the local one."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.pfedme import local_step, theta_step
from torch import Tensor

Named = dict[str, Tensor]


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Named:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (2, 3), "bias": (2,)}
    return {k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shapes.items()}


def test_steps_by_hand() -> None:
    theta, g, w = ({"w": torch.tensor([x])} for x in (3.0, 2.0, 1.0))
    # 3 - 0.5 * (2 + 0.25 * (3 - 1)), and 1 - 0.5 * 0.25 * (1 - 3)
    assert theta_step(theta, g, w, lr=0.5, weight=0.25)["w"].tolist() == [1.75]
    assert local_step(w, theta, lr=0.5, weight=0.25)["w"].tolist() == [1.25]


def test_theta_steps_reach_the_minimum_of_the_envelope() -> None:
    """For ``F = |theta - c|^2 / 2`` the minimum is at ``(c + lambda w) / (1 + lambda)``."""
    theta, w, center = draw(0), draw(1), draw(2)
    for _ in range(200):
        gradient = {k: x - center[k] for k, x in theta.items()}
        theta = theta_step(theta, gradient, w, lr=0.05, weight=3.0)
    for k, x in theta.items():
        torch.testing.assert_close(x, (center[k] + 3 * w[k]) / 4)


def test_the_local_step_descends_along_the_gradient_of_the_envelope() -> None:
    """The envelope of that F is ``lambda / (1 + lambda) |w - c|^2 / 2``."""
    w, center = draw(1), draw(2)
    theta = {k: (center[k] + 3 * w[k]) / 4 for k in w}
    for k, stepped in local_step(w, theta, lr=0.1, weight=3.0).items():
        torch.testing.assert_close(stepped, w[k] - 0.1 * 3 / 4 * (w[k] - center[k]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_models_stay_without_a_gradient(dtype: torch.dtype) -> None:
    w = draw(0, dtype)
    zero = {k: torch.zeros_like(x) for k, x in w.items()}
    for k in w:
        assert theta_step(w, zero, w, lr=0.1, weight=15.0)[k].equal(w[k])
        assert local_step(w, w, lr=0.1, weight=15.0)[k].equal(w[k])
        assert local_step(w, w, lr=0.1, weight=15.0)[k].dtype == dtype


def test_arguments_stay() -> None:
    theta, w = draw(0), draw(1)
    theta_step(theta, draw(2), w, lr=0.1, weight=15.0)["bias"].add_(1)
    local_step(w, theta, lr=0.1, weight=15.0)["bias"].add_(1)
    for k in theta:
        assert theta[k].equal(draw(0)[k])
        assert w[k].equal(draw(1)[k])
