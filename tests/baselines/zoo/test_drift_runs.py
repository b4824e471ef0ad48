"""Methods against drift and server optimisers in real rounds: the identities that theory gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from fedbench_baselines import fedexp, fednova
from fedbench_baselines.fedbabu import FedBabu
from fedbench_baselines.fedbn import FedBn
from fedbench_baselines.fednova import normalizer
from fedbench_baselines.fedper import FedPer
from fedbench_baselines.fedrep import FedRep
from torch import Tensor

from fedbench import ConfigError, Run
from fedbench.values import sha256

RunTiny = Callable[..., Run]
CLASSES = {"fedper": FedPer, "fedrep": FedRep, "fedbn": FedBn, "fedbabu": FedBabu}
ONE_STEP = {"sgd": {"epochs": 1, "batch_size": 10**6, "momentum": 0.0, "weight_decay": 0.0}}


def weights(run: Run) -> Mapping[str, Tensor]:
    assert run.state is not None
    return run.state.weights


def assert_close(one: Run, other: Run) -> None:
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=1e-4, atol=1e-6)


def test_momentum_zero_at_rate_one_is_fedavg_bit_for_bit(run_tiny: RunTiny) -> None:
    plain = run_tiny("fedavg", rounds=3)
    same = run_tiny("fedavgm", rounds=3, extra={"fedavgm": {"momentum": 0.0}})
    assert sha256(weights(same)) == sha256(weights(plain))
    assert sha256(weights(run_tiny("fedavgm", rounds=3))) != sha256(weights(plain))


def test_two_rounds_of_fedavgm_by_hand(run_tiny: RunTiny) -> None:
    first = run_tiny("fedavg", rounds=1)
    initial = first.runtime.initial
    run = run_tiny("fedavgm", rounds=1, extra={"fedavgm": {"lr": 0.5, "momentum": 0.9}})
    assert run.state is not None
    velocity = run.state.entries.weights("fedavgm.velocity")
    for name in velocity:
        mean = weights(first)[name]
        torch.testing.assert_close(velocity[name], mean - initial[name])
        expected = initial[name] + 0.5 * (mean - initial[name])
        torch.testing.assert_close(weights(run)[name], expected)


def test_fednova_with_equal_steps_is_fedavg(run_tiny: RunTiny) -> None:
    assert_close(run_tiny("fednova", rounds=2, extra=ONE_STEP), run_tiny("fedavg", extra=ONE_STEP))


def test_fednova_differs_where_steps_differ(run_tiny: RunTiny) -> None:
    sizes = {"domains": {"clients_per_domain": {"ink": 1, "chalk": 3}}}
    nova, plain = run_tiny("fednova", extra=sizes), run_tiny("fedavg", extra=sizes)
    assert len(set(nova.runtime.server_context(1).client_sizes)) > 1
    assert sha256(weights(nova)) != sha256(weights(plain))


def test_fednova_takes_the_proximal_term_from_fedprox(run_tiny: RunTiny, monkeypatch) -> None:
    asked = []

    def noted(steps, momentum, proximal, *, in_loss):
        asked.append((momentum, proximal, in_loss))
        return normalizer(steps, momentum, proximal, in_loss=in_loss)

    monkeypatch.setattr(fednova, "normalizer", noted)
    sgd = {"sgd": {"lr": 0.1, "momentum": 0.9}}
    run_tiny("fednova", rounds=1, extra={**sgd, "fedprox": {"mu": 0.5}})
    run_tiny("fednova", rounds=1, extra=sgd)
    run_tiny("fednova", rounds=1, extra={**sgd, "fednova": {"mu": 0.2}})  # of another plugin
    assert {*asked} == {(0.9, 0.05, True), (0.9, 0.0, True), (0.9, 0.2 * 0.1, True)}
    with pytest.raises(ConfigError, match=r"fednova\.mu is 0\.2, and fedprox\.mu is 0\.5"):
        run_tiny("fednova", extra={"fednova": {"mu": 0.2}, "fedprox": {"mu": 0.5}})


def test_scaffold_with_one_full_step_of_all_clients_is_the_plain_mean(run_tiny: RunTiny) -> None:
    uniform = {**ONE_STEP, "mean": {"weights": "uniform"}}
    assert_close(
        run_tiny("scaffold", rounds=3, extra=ONE_STEP), run_tiny("fedavg", rounds=3, extra=uniform)
    )


def test_scaffold_s_server_variate_is_the_mean_of_the_clients(run_tiny: RunTiny) -> None:
    run = run_tiny("scaffold", rounds=3)
    assert run.state is not None
    kept = [run._clients.newest(client) for client in range(len(run.runtime.parts))]
    for name, c in run.state.entries.weights("scaffold.variate").items():
        own = torch.stack([k["scaffold.variate"][name] for k in kept if k])  # type: ignore[index]
        torch.testing.assert_close(c, own.mean(0), rtol=1e-4, atol=1e-6)


def test_scaffold_sends_as_much_again_as_the_parameters_each_way(run_tiny: RunTiny) -> None:
    run = run_tiny("scaffold")
    up, down = run.history[0].bytes_up, run.history[0].bytes_down
    assert up["scaffold.delta"] == down["scaffold.variate"] > 0.9 * up["weights"]


@pytest.mark.parametrize("method", ["fedper", "fedrep", "fedbn", "fedbabu"])
def test_control_variates_of_what_stays_with_the_client_do_not_travel(spied, method) -> None:
    seen = spied(method, {"scaffold": {}, "mean": {"weights": "uniform"}})
    state = seen.run.state
    trained = {name for name, _ in seen.run.runtime.model.named_parameters()}
    part = CLASSES[method]().part(seen.run.runtime.model) & trained
    assert part
    for client in range(len(seen.run.runtime.parts)):
        kept = seen.run._clients.newest(client)
        assert {*kept["scaffold.variate"]} == trained - part
    assert not any(state.entries.weights("scaffold.variate")[name].any() for name in part)
    up, down = seen.run.history[0].bytes_up, seen.run.history[0].bytes_down
    clients = len(seen.run.runtime.parts)
    sent = sum(w.nbytes for n, w in state.weights.items() if n in trained - part)
    assert up["scaffold.delta"] == down["scaffold.variate"] == clients * sent


def test_a_variate_is_the_mean_of_all_gradients_of_a_turn(run_tiny: RunTiny) -> None:
    """pFedMe takes several gradients in a step; with tiny rates, they are nearly the same."""
    found = []
    for inner in (1, 4):
        slow = {"inner_steps": inner, "personal_lr": 1e-6, "lr": 1e-6, "batch_size": 10**6}
        extra = {"scaffold": {}, "mean": {"weights": "uniform"}, "pfedme": {**slow, "steps": 1}}
        run = run_tiny("pfedme", rounds=1, extra=extra)
        found.append(run.state.entries.weights("scaffold.variate"))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-2, atol=1e-5)


def test_feddyn_s_server_state_is_the_mean_of_the_clients(run_tiny: RunTiny) -> None:
    run = run_tiny("feddyn", rounds=3)
    assert run.state is not None
    kept = [run._clients.newest(client) for client in range(len(run.runtime.parts))]
    for name, h in run.state.entries.weights("feddyn.h").items():
        own = torch.stack([k["feddyn.gradient"][name] for k in kept if k])  # type: ignore[index]
        torch.testing.assert_close(h, own.mean(0), rtol=1e-4, atol=1e-7)


def test_feddyn_refuses_a_mean_by_unequal_examples(run_tiny: RunTiny) -> None:
    unequal = {"domains": {"clients_per_domain": {"ink": 1, "chalk": 3}}, "feddyn": {}}
    with pytest.raises(ConfigError, match=r"set mean\.weights=uniform"):
        run_tiny("fedproto", extra=unequal)
    run_tiny("fedproto", rounds=1, extra={**unequal, "mean": {"weights": "uniform"}})


def test_fedexp_of_one_client_is_fedavg(run_tiny: RunTiny) -> None:
    one = {"uniform": {"fraction": 0.25}}
    run = run_tiny("fedexp", extra={**one, "fedexp": {"average_iterates": False}})
    assert [result.metrics["fedexp.step"] for result in run.history] == [1.0, 1.0]
    assert_close(run, run_tiny("fedavg", extra=one))


@pytest.mark.parametrize("by", ["uniform", "examples"])
def test_fedexp_s_step_has_the_shares_of_the_mean(spied, by) -> None:
    unequal = {"domains": {"clients_per_domain": {"ink": 1, "chalk": 3}}}
    exp = {"fedexp": {"average_iterates": False}, "sgd": {"lr": 1.0, "batch_size": 2}}
    seen = spied("fedexp", {**unequal, **exp, "mean": {"weights": by}}, rounds=1)
    clients = range(len(seen.sizes))
    assert len({*seen.sizes.values()}) > 1
    share = [seen.sizes[k] if by == "examples" else 1 for k in clients]
    names = [name for name, _ in seen.run.runtime.model.named_parameters()]
    moved = (
        ({n: seen.after[1, k][n] - seen.before[1, k][n] for n in names}, share[k] / sum(share))
        for k in clients
    )
    expected = fedexp.step_size(moved, 1e-3)
    assert expected > 1
    assert seen.run.history[0].metrics["fedexp.step"] == pytest.approx(expected, rel=1e-4)


def test_fedexp_scores_the_mean_of_the_last_two_iterates(run_tiny: RunTiny) -> None:
    last = run_tiny("fedexp", rounds=1, extra={"fedexp": {"average_iterates": False}})
    both = run_tiny("fedexp", rounds=1)
    assert both.state is not None
    ahead = both.state.entries.weights("fedexp.ahead")
    for name in ahead:
        w = weights(both)[name]
        torch.testing.assert_close(w, (weights(last)[name] + last.runtime.initial[name]) / 2)
        torch.testing.assert_close(w + ahead[name], weights(last)[name])


def test_fedacg_without_momentum_and_term_is_the_plain_mean(run_tiny: RunTiny) -> None:
    run = run_tiny("fedacg", extra={"fedacg": {"factor": 0.0, "beta": 0.0}})
    assert_close(run, run_tiny("fedavg", extra={"mean": {"weights": "uniform"}}))


def test_sam_leaves_loss_terms_and_prototypes_to_the_first_pass(run_tiny: RunTiny) -> None:
    plain = run_tiny("fedproto", rounds=1, extra=ONE_STEP)
    sharp = run_tiny("fedproto", rounds=1, extra={**ONE_STEP, "fedsam": {}})
    name = "loss.cross_entropy"  # one step: both report the loss at the received weights
    assert sharp.history[0].metrics[name] == plain.history[0].metrics[name]
    assert sharp.history[0].bytes_up == plain.history[0].bytes_up
    assert sha256(weights(sharp)) != sha256(weights(plain))
