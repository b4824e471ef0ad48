"""FedNova: normalizers are what local SGD does, and the mean is FedAvg's with equal steps."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fedavg import weighted_mean
from fedbench_baselines.fednova import normalized_mean, normalizer
from fedbench_baselines.fedprox import proximal_term
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 40), st.floats(0, 0.95), st.floats(0.001, 0.5))
def test_closed_forms(steps, rho, prox):
    assert normalizer(steps) == steps
    momentum = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
    assert normalizer(steps, momentum=rho) == pytest.approx(momentum, rel=1e-9)
    proximal = (1 - (1 - prox) ** steps) / prox
    assert normalizer(steps, proximal=prox) == pytest.approx(proximal, rel=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_it_is_what_torchs_sgd_does_with_a_gradient_of_one(momentum, mu):
    """The proximal gradient is outside the momentum buffer, as the recursion says."""
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    sgd = torch.optim.SGD([w], lr=0.1, momentum=momentum)
    for _ in range(7):
        pull = -0.1 * mu * w.detach()
        w.grad = torch.ones_like(w)
        sgd.step()
        with torch.no_grad():
            w += pull
    assert -float(w.detach()) / 0.1 == pytest.approx(normalizer(7, momentum, 0.1 * mu), rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("mu", [0.0, 0.1, 1.0])
def test_it_is_what_torchs_sgd_does_with_a_proximal_term_in_the_loss(momentum, mu):
    """As with the plugin fedprox, whose gradient enters the momentum buffer."""
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    sgd = torch.optim.SGD([w], lr=0.05, momentum=momentum)
    for _ in range(40):
        sgd.zero_grad()
        (w + mu * proximal_term([w], [torch.zeros_like(w)])).sum().backward()
        sgd.step()
    found = normalizer(40, momentum, 0.05 * mu, in_loss=True)
    assert -float(w.detach()) / 0.05 == pytest.approx(found, rel=1e-12)


def test_two_clients_by_hand():
    """Shares 1/4 and 3/4, steps 1 and 2: tau is 7/4; directions -1 and +2."""
    received = {"w": torch.tensor([0.0])}
    items = [
        ({"w": torch.tensor([-1.0])}, 10, 1.0, 1.0),
        ({"w": torch.tensor([4.0])}, 30, 2.0, 2.0),
    ]
    found = normalized_mean(received, iter(items))
    assert float(found["w"]) == 1.75 * (-1 / 4 + 3 / 4 * 2)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 9), st.integers(0, 99))
def test_with_equal_steps_it_is_fedavg(counts, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    received = {"w": torch.randn(6, generator=generator, dtype=torch.float64)}
    trained = [{"w": torch.randn(6, generator=generator, dtype=torch.float64)} for _ in counts]
    a = normalizer(steps, momentum=0.9)
    found = normalized_mean(received, ((w, n, a, a) for w, n in zip(trained, counts, strict=True)))
    expected = weighted_mean(zip(trained, counts, strict=True))
    torch.testing.assert_close(found["w"], expected["w"])


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=5))
def test_the_mean_of_a_loop(clients):
    generator = torch.Generator().manual_seed(len(clients))
    w = torch.randn(3, generator=generator, dtype=torch.float64)
    trained = torch.randn(len(clients), 3, generator=generator, dtype=torch.float64)
    total = sum(n for n, _ in clients)
    tau = sum(n / total * t for n, t in clients)
    expected = w.clone()
    for y, (n, t) in zip(trained, clients, strict=True):
        expected -= tau * n / total * (w - y) / normalizer(t, 0.5)
    items = (
        ({"w": y}, n, normalizer(t, 0.5), t) for y, (n, t) in zip(trained, clients, strict=True)
    )
    torch.testing.assert_close(normalized_mean({"w": w}, items)["w"], expected)


def test_clients_that_did_not_move_leave_the_weights_and_types_alone():
    received = {"w": torch.tensor([0.1, 0.3])}
    found = normalized_mean(received, [(received, 5, 3.0, 3.0), (received, 1, 7.0, 7.0)])
    assert torch.equal(found["w"], received["w"])
    assert found["w"].dtype == torch.float32
