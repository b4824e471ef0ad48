"""Ditto: the personal model's step."""

from __future__ import annotations

import torch
from fedbench_baselines.ditto import personal_step
from fedbench_baselines.fedprox import proximal_term
from torch import Tensor

Named = dict[str, Tensor]


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Named:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (2, 3), "bias": (2,)}
    return {k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shapes.items()}


def test_a_step_by_hand() -> None:
    v, g, w = ({"w": torch.tensor([x])} for x in (3.0, 2.0, 1.0))
    # 3 - 0.5 * (2 + 0.25 * (3 - 1))
    assert personal_step(v, g, w, lr=0.5, weight=0.25)["w"].tolist() == [1.75]


def test_it_is_sgd_on_the_loss_with_the_proximal_term() -> None:
    start, received, data = draw(0), draw(1), draw(2)
    leaves = {k: v.clone().requires_grad_() for k, v in start.items()}
    loss = torch.stack([((v - data[k]) ** 4).sum() for k, v in leaves.items()]).sum()
    whole = loss + 0.7 * proximal_term(leaves.values(), received.values())
    gradient, expected = (
        dict(zip(leaves, torch.autograd.grad(x, leaves.values(), retain_graph=True), strict=True))
        for x in (loss, whole)
    )
    stepped = personal_step(start, gradient, received, lr=0.1, weight=0.7)
    for k in start:
        torch.testing.assert_close(stepped[k], start[k] - 0.1 * expected[k])


def test_weight_0_is_sgd_bit_for_bit() -> None:
    v, g, w = draw(0, torch.float32), draw(1, torch.float32), draw(2, torch.float32)
    for k, stepped in personal_step(v, g, w, lr=0.1, weight=0.0).items():
        assert stepped.equal(v[k] - 0.1 * g[k])


def test_without_a_gradient_the_model_moves_to_the_received_one() -> None:
    v, w = draw(0), draw(1)
    zero = {k: torch.zeros_like(x) for k, x in v.items()}
    for k, stepped in personal_step(v, zero, w, lr=0.5, weight=2.0).items():
        torch.testing.assert_close(stepped, w[k])


def test_arguments_stay_and_types_are_kept() -> None:
    given = [draw(seed, torch.float32) for seed in (0, 1, 2)]
    before = [{k: x.clone() for k, x in each.items()} for each in given]
    result = personal_step(*given, lr=0.1, weight=1.0)
    assert [x.dtype for x in result.values()] == [torch.float32] * 2
    assert all(
        x.equal(b[k]) for each, b in zip(given, before, strict=True) for k, x in each.items()
    )
