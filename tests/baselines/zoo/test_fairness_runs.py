"""q-FedAvg, AFL and TERM in real rounds, and the streamed tilted mean."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.afl import moved_shares, project_simplex
from fedbench_baselines.fedavg import weighted_mean
from fedbench_baselines.qfedavg import fair_step
from fedbench_baselines.term import tilted_mean, tilted_weights
from torch.nn import functional as F

from fedbench.pipeline import Pipeline
from fedbench.types import forward

HALF = {"uniform": {"fraction": 0.5}}
UNEVEN = {"domains": {"clients_per_domain": {"ink": 1, "chalk": 3}}}
METHODS = ("qfedavg", "afl", "term")


def same(one, other):
    assert one.keys() == other.keys()
    return all(w.equal(other[name]) for name, w in one.items())


def close(one, other):
    for name, w in one.items():
        torch.testing.assert_close(w, other[name])


def losses(seen, number):
    """Return client -> loss of the received weights on all its data, by hand."""
    runtime, found = seen.run.runtime, {}
    runtime.model.load_state_dict(seen.globals.get(number - 1, runtime.initial))
    runtime.model.eval()
    pipeline = Pipeline(runtime.plugins, runtime.device, lambda name: torch.Generator())
    for at, client in seen.after:
        if at == number:
            data = runtime.client_data(client)
            with torch.no_grad():
                logits = forward(runtime.model, pipeline(data.inputs, False)).logits
            found[client] = float(F.cross_entropy(logits, data.labels))
    return found


def split(seen, weights):
    names = [name for name, _ in seen.run.runtime.model.named_parameters()]
    buffers = {name: w for name, w in weights.items() if name not in names}
    return {name: weights[name] for name in names}, buffers


@pytest.mark.parametrize("method", METHODS)
def test_a_client_sends_the_loss_of_the_received_weights(method, spied):
    seen = spied(method, rounds=2, extra=UNEVEN)
    for number, reports in seen.reports.items():
        expected = losses(seen, number)
        found = {r.client: float(r.uploads.tensor(f"{method}.loss")) for r in reports}
        assert found == pytest.approx(expected, rel=1e-5)
        result = seen.run.history[number - 1]
        assert result.metrics[f"{method}.worst_loss"] == pytest.approx(max(expected.values()))
        assert result.bytes_up[f"{method}.loss"] == 4 * len(expected)


@pytest.mark.parametrize("method", METHODS)
def test_buffers_are_averaged_by_number_of_examples(method, spied):
    seen = spied(method, rounds=1, extra=UNEVEN)
    weights = ((seen.after[1, c], seen.sizes[c]) for c in range(4))
    assert same(split(seen, weighted_mean(weights))[1], split(seen, seen.globals[1])[1])


@pytest.mark.parametrize(
    ("options", "q", "lipschitz"), [({"q": 2}, 2, 20), ({"lipschitz": 3}, 1, 3)]
)
def test_rounds_of_qfedavg_by_hand(options, q, lipschitz, spied):
    """The trainer's learning rate is 0.05, so the Lipschitz constant is 20 by default."""
    seen = spied("qfedavg", rounds=2, extra={**UNEVEN, "qfedavg": options})
    for number in (1, 2):
        received = split(seen, seen.globals.get(number - 1, seen.run.runtime.initial))[0]
        found = losses(seen, number)
        items = [(split(seen, seen.after[number, c])[0], found[c]) for c in range(4)]
        expected = fair_step(received, items, q, lipschitz)
        close(expected, seen.globals[number])


def test_qfedavg_with_q_0_is_the_plain_mean(spied, run_tiny):
    fair = spied("qfedavg", rounds=1, extra={**UNEVEN, "qfedavg": {"q": 0}})
    plain = run_tiny("fedavg", rounds=1, extra={**UNEVEN, "mean": {"weights": "uniform"}})
    parameters, _ = split(fair, fair.globals[1])
    close(parameters, plain.state.weights)


def test_rounds_of_afl_by_hand(spied):
    seen = spied("afl", rounds=3, extra={**UNEVEN, "afl": {"lr": 0.4}})
    shares = torch.full((4,), 0.25, dtype=torch.float64)
    for number in (1, 2, 3):
        items = [(split(seen, seen.after[number, c])[0], float(shares[c])) for c in range(4)]
        close(weighted_mean(items), seen.globals[number])
        found = losses(seen, number)
        shares = project_simplex(shares + 0.4 * torch.tensor([found[c] for c in range(4)]).double())
    torch.testing.assert_close(seen.run.state.entries.tensor("afl.shares"), shares)
    assert not shares.allclose(torch.full_like(shares, 0.25), atol=1e-3)


def test_afl_says_that_a_sample_of_the_clients_is_not_what_it_is_for(spied):
    with pytest.warns(UserWarning, match="afl is defined for rounds with all clients"):
        seen = spied("afl", rounds=1, extra={**HALF, "afl": {"lr": 0.4}})
    shares = seen.run.state.entries.tensor("afl.shares")
    absent = [c for c in range(4) if (1, c) not in seen.after]
    assert shares[absent].tolist() == [0.25, 0.25]
    assert float(shares.sum()) == pytest.approx(1)


def test_shares_of_absent_clients_and_the_sum_stay() -> None:
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    moved = moved_shares(shares, {1: 5.0, 3: 0.5}, 0.02)
    # Of 0.6 together, 0.2 + 0.1 and 0.4 + 0.01 are each 0.055 too much.
    torch.testing.assert_close(moved, torch.tensor([0.1, 0.245, 0.3, 0.355], dtype=torch.float64))


def test_clients_that_all_have_share_0_are_left_as_they_are() -> None:
    shares = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert moved_shares(shares, {0: 3.0}, 0.1).equal(shares)


def test_term_with_t_0_is_fedavg_bit_for_bit(run_tiny):
    extra = {**HALF, **UNEVEN}
    tilted = run_tiny("term", rounds=3, extra={**extra, "term": {"t": 0}})
    assert same(tilted.state.weights, run_tiny("fedavg", rounds=3, extra=extra).state.weights)


@pytest.mark.parametrize("t", [-2.0, 3.0])
def test_rounds_of_term_by_hand(t, spied):
    seen = spied("term", rounds=2, extra={**UNEVEN, "term": {"t": t}})
    for number in (1, 2):
        found = losses(seen, number)
        clients = sorted(found)
        shares = torch.tensor([seen.sizes[c] for c in clients]).double()
        factors = tilted_weights(torch.tensor([found[c] for c in clients]).double(), shares, t)
        expected = weighted_mean(
            (split(seen, seen.after[number, c])[0], float(f))
            for c, f in zip(clients, factors, strict=True)
        )
        close(expected, seen.globals[number])


@pytest.mark.parametrize("t", [-1000.0, -1.0, 0.0, 1.0, 1000.0])
def test_the_streamed_mean_has_the_tilted_weights_without_overflow(t: float) -> None:
    given = torch.tensor([2.0, 0.5, 9.0, 8.0], dtype=torch.float64)
    sizes = torch.tensor([3.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    rows = torch.eye(4, dtype=torch.float64)
    items = [({"w": row}, float(f), float(n)) for row, f, n in zip(rows, given, sizes, strict=True)]
    torch.testing.assert_close(tilted_mean(items, t)["w"], tilted_weights(given, sizes, t))
    assert all(map(math.isfinite, tilted_mean(items[::-1], t)["w"].tolist()))
