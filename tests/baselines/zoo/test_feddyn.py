"""FedDyn: its term against autograd, its states by hand, and what they mean at a fixed point."""

from __future__ import annotations

import torch
from fedbench_baselines.feddyn import client_gradient, dynamic_term, server_step
from hypothesis import given
from hypothesis import strategies as st


def draw(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(st.integers(0, 1000), st.floats(0.001, 1))
def test_the_term_of_a_loop_and_its_gradient(seed, alpha):
    params = [draw(seed, 2, 3).requires_grad_(), draw(seed + 1, 4).requires_grad_()]
    anchor = [draw(seed + 2, 2, 3), draw(seed + 3, 4)]
    state = [draw(seed + 4, 2, 3), draw(seed + 5, 4)]
    term = dynamic_term(iter(params), iter(anchor), iter(state), alpha)
    expected = 0.0
    for w, a, q in zip(params, anchor, state, strict=True):
        for x, y, z in zip(*(t.flatten().tolist() for t in (w, a, q)), strict=True):
            expected += -z * x + alpha / 2 * (x - y) ** 2
    torch.testing.assert_close(term.detach(), torch.tensor(expected, dtype=torch.float64))
    term.backward()
    for w, a, q in zip(params, anchor, state, strict=True):
        torch.testing.assert_close(w.grad, -q + alpha * (w.detach() - a))


def test_at_a_local_optimum_the_new_state_is_the_gradient_there():
    """The first-order condition: grad F_k(w_k) - q_k + alpha (w_k - w_t) = 0."""
    target, q, received, alpha = draw(0, 5), draw(1, 5), draw(2, 5), 0.3
    # F_k(w) = 1/2 |w - target|^2, minimised with the term in closed form.
    trained = (target + q + alpha * received) / (1 + alpha)
    found = client_gradient({"w": q}, {"w": trained}, {"w": received}, alpha)["w"]
    torch.testing.assert_close(found, trained - target)


def test_a_server_step_by_hand():
    """Two of four clients, mean 3, received 1: h falls by 0.5 * 2/4 * 2 and w is 3 - h / 0.5."""
    one, three, h = (torch.tensor([x]) for x in (1.0, 3.0, 0.25))
    weights, new = server_step({"w": h}, {"w": three}, {"w": one}, 2, 4, alpha=0.5)
    assert new["w"].tolist() == [-0.25]
    assert weights["w"].tolist() == [3.5]
    assert h.tolist() == [0.25]
    assert weights["w"].dtype == torch.float32


def test_the_released_form_is_the_same():
    """It keeps l_k = -q_k / alpha and computes the cohort's mean plus the mean of all l_k."""
    alpha, clients, weights = 0.1, 4, draw(9, 3)
    h, q = torch.zeros(3, dtype=torch.float64), torch.zeros(clients, 3, dtype=torch.float64)
    for round, cohort in enumerate([[0, 1], [2], [0, 2, 3]]):
        trained = draw(20 + round, len(cohort), 3)
        for k, y in zip(cohort, trained, strict=True):
            q[k] = client_gradient({"w": q[k]}, {"w": y}, {"w": weights}, alpha)["w"]
        mean = trained.mean(0)
        new, state = server_step({"w": h}, {"w": mean}, {"w": weights}, len(cohort), clients, alpha)
        torch.testing.assert_close(new["w"], mean + (-q / alpha).mean(0))
        torch.testing.assert_close(state["w"], q.mean(0))
        weights, h = new["w"], state["w"]


def test_rounds_converge_to_the_optimum_of_the_mean_objective():
    """With quadratic objectives the local optimum is known, and so is the global one."""
    curvature = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    optimum = torch.tensor([-1.0, 0.5, 4.0], dtype=torch.float64)
    alpha, w = 1.0, {"w": torch.zeros((), dtype=torch.float64)}
    h, states = {"w": torch.zeros_like(w["w"])}, [{"w": torch.zeros_like(w["w"])} for _ in "abc"]
    for _ in range(300):
        local = [
            {"w": (a * b + q["w"] + alpha * w["w"]) / (a + alpha)}
            for a, b, q in zip(curvature, optimum, states, strict=True)
        ]
        states = [client_gradient(q, k, w, alpha) for q, k in zip(states, local, strict=True)]
        mean = {"w": torch.stack([k["w"] for k in local]).mean()}
        w, h = server_step(h, mean, w, 3, 3, alpha)
    best = (curvature * optimum).sum() / curvature.sum()
    torch.testing.assert_close(w["w"], best)
    gradients = curvature * (best - optimum)
    torch.testing.assert_close(torch.stack([q["w"] for q in states]), gradients)
