"""FedAvgM: momentum by hand, and what it is without momentum."""

from __future__ import annotations

import torch
from fedbench_baselines.fedavgm import momentum_step
from hypothesis import given
from hypothesis import strategies as st


def test_two_rounds_by_hand():
    """The mean is always 1 ahead of the weights: steps of 1, then of 1 + 0.5, halved by lr."""
    w, v = {"w": torch.tensor([2.0])}, {"w": torch.tensor([0.0])}
    for expected_w, expected_v in ((2.5, 1.0), (3.25, 1.5)):
        mean = {"w": w["w"] + 1}
        w, v = momentum_step(w, mean, v, lr=0.5, momentum=0.5)
        assert (float(w["w"]), float(v["w"])) == (expected_w, expected_v)


@given(st.integers(0, 1000))
def test_without_momentum_and_with_rate_one_it_is_the_mean(seed):
    generator = torch.Generator().manual_seed(seed)
    w, mean, v = ({"w": x} for x in torch.randn(3, 5, generator=generator))
    new, velocity = momentum_step(w, mean, v, lr=1.0, momentum=0.0)
    torch.testing.assert_close(new["w"], mean["w"])
    torch.testing.assert_close(velocity["w"], mean["w"] - w["w"])


@given(st.integers(0, 1000), st.floats(0, 0.99), st.floats(0.01, 2))
def test_it_is_torchs_sgd_on_the_negative_update(seed, momentum, lr):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(4, generator=generator, dtype=torch.float64)
    weight = torch.nn.Parameter(start.clone())
    sgd = torch.optim.SGD([weight], lr=lr, momentum=momentum)
    w, v = {"w": start}, {"w": torch.zeros(4, dtype=torch.float64)}
    for _ in range(4):
        update = torch.randn(4, generator=generator, dtype=torch.float64)
        weight.grad = -update
        sgd.step()
        w, v = momentum_step(w, {"w": w["w"] + update}, v, lr, momentum)
    torch.testing.assert_close(w["w"], weight.detach())


def test_types_are_kept_and_arguments_are_left_alone():
    w = {"w": torch.ones(2)}
    new, v = momentum_step(w, {"w": torch.zeros(2)}, {"w": torch.zeros(2)}, 1.0, 0.9)
    assert new["w"].dtype == v["w"].dtype == torch.float32
    assert w["w"].tolist() == [1, 1]
