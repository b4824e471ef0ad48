"""q-FedAvg: the server's step."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.qfedavg import fair_step
from torch import Tensor

Named = dict[str, Tensor]


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Named:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (2, 3), "bias": (2,)}
    return {k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shapes.items()}


def plain(received: Named, items: list[tuple[Named, float]], q: float, lip: float) -> Named:
    """Return the step, entry by entry."""
    names = [(k, i) for k, w in received.items() for i in range(w.numel())]
    at = {(k, i): float(received[k].flatten()[i]) for k, i in names}
    step, total = dict.fromkeys(names, 0.0), 0.0
    for trained, loss in items:
        f = loss + 1e-10
        delta = {(k, i): lip * (at[k, i] - float(trained[k].flatten()[i])) for k, i in names}
        for name in names:
            step[name] += f**q * delta[name]
        total += q * f ** (q - 1) * sum(d * d for d in delta.values()) + lip * f**q
    return {
        k: torch.tensor(
            [at[k, i] - step[k, i] / total for i in range(w.numel())], dtype=w.dtype
        ).reshape(w.shape)
        for k, w in received.items()
    }


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 5.0, 15.0])
@pytest.mark.parametrize("clients", [1, 3])
def test_a_step_against_a_loop(q: float, clients: int) -> None:
    received = draw(0)
    items = [(draw(k + 1), loss) for k, loss in zip(range(clients), (0.3, 2.0, 0.9), strict=False)]
    expected = plain(received, items, q, 10.0)
    for k, new in fair_step(received, iter(items), q, 10.0).items():
        torch.testing.assert_close(new, expected[k])


def test_a_step_by_hand() -> None:
    received, one, two = ({"w": torch.tensor([x])} for x in (1.0, 0.0, 3.0))
    # L = 2, q = 1: D = 2, -4; sums 1*2 + 2*(-4) = -6 and (4 + 2*1) + (16 + 2*2) = 26
    new = fair_step(received, [(one, 1.0), (two, 2.0)], q=1.0, lipschitz=2.0)
    assert float(new["w"]) == pytest.approx(1 + 6 / 26)


def test_q_0_is_the_plain_mean_whatever_the_losses_and_the_constant() -> None:
    items = [(draw(1), 0.0), (draw(2), 7.0), (draw(3), 0.1)]
    for k, new in fair_step(draw(0), items, q=0.0, lipschitz=3.0).items():
        torch.testing.assert_close(new, torch.stack([w[k] for w, _ in items]).mean(dim=0))


def test_a_larger_q_leans_towards_the_client_with_the_higher_loss() -> None:
    received, low, high = ({"w": torch.tensor([x])} for x in (0.0, -1.0, 1.0))
    items = [(low, 0.5), (high, 2.0)]
    steps = [float(fair_step(received, items, q, 1.0)["w"]) for q in (0.0, 0.1, 0.5)]
    assert steps[0] == 0 < steps[1] < steps[2]


def test_losses_of_0_and_clients_that_did_not_move() -> None:
    received = draw(0)
    for q in (0.0, 0.5, 1.0, 2.0, 15.0):
        for new in fair_step(received, [(draw(1), 0.0), (draw(2), 0.0)], q, 1.0).values():
            assert new.isfinite().all()
        for k, new in fair_step(received, [(received, 0.0), (received, 1.0)], q, 1.0).items():
            assert new.equal(received[k])


def test_sums_are_in_float64() -> None:
    """In float32, steps of 2^-24 would be lost beside those of 2^24 there and back."""
    received, trained = {"w": torch.ones(1)}, {"w": torch.ones(1) - 2**-24}
    there = ({"w": torch.tensor([2.0**24])}, 1.0)
    back = ({"w": torch.tensor([2.0 - 2**24])}, 1.0)
    new = fair_step(received, [there, *[(trained, 1.0)] * 998, back], q=0.0, lipschitz=1.0)
    assert float(new["w"]) == 1 - 2**-24
    assert new["w"].dtype == torch.float32


def test_arguments_stay() -> None:
    received, trained = draw(0), draw(1)
    new = fair_step(received, [(trained, 1.0), (trained, 2.0)], q=0.0, lipschitz=1.0)
    new["bias"].fill_(math.pi)
    for k in received:
        assert received[k].equal(draw(0)[k])
        assert trained[k].equal(draw(1)[k])
