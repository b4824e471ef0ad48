"""Ditto, APFL, pFedMe, local training and fine-tuning in real rounds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from fedbench_baselines.apfl import alpha_step, mix
from fedbench_baselines.ditto import personal_step
from fedbench_baselines.pfedme import local_step, theta_step

from fedbench import ConfigError, hookimpl
from fedbench.pipeline import Pipeline
from fedbench.types import forward

HALF = {"uniform": {"fraction": 0.5}}
WHOLE = {"sgd": {"epochs": 1, "batch_size": 64, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.1}}
UNIFORM = {"mean": {"weights": "uniform"}}
NAMES = [
    f"{layer}.{kind}" for layer in ("hidden", "norm", "classifier") for kind in ("weight", "bias")
]
"""The parameters of the tiny model."""


def same(one, other):
    assert one.keys() == other.keys()
    return all(w.equal(other[name]) for name, w in one.items())


def close(one, other):
    for name, w in one.items():
        torch.testing.assert_close(w, other[name], rtol=1e-4, atol=1e-5)


def trained_clients(seen, number):
    return {client for at, client in seen.after if at <= number}


def gradient(seen, weights, client):
    """Return the parameters' gradient at ``weights`` over all data of a client, by hand."""
    runtime = seen.run.runtime
    model, data = runtime.model, runtime.client_data(client)
    model.load_state_dict(weights)
    model.train().requires_grad_(True)
    pipeline = Pipeline(runtime.plugins, runtime.device, lambda name: torch.Generator())
    inputs = pipeline(data.inputs, True)
    loss = torch.nn.functional.cross_entropy(forward(model, inputs).logits, data.labels)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, model.parameters()), strict=True))


@pytest.mark.parametrize("method", ["ditto", "apfl", "fedavg-ft", "fedbabu"])
def test_the_global_model_is_fedavgs_or_the_untuned_ones(method, run_tiny):
    plain = {"fedbabu": "fedbabu-global"}.get(method, "fedavg")
    extra = {**HALF, **(UNIFORM if method in ("ditto", "fedbabu") else {})}
    personal, alone = (run_tiny(m, rounds=3, extra=extra) for m in (method, plain))
    assert same(personal.state.weights, alone.state.weights)


@pytest.mark.parametrize("method", ["ditto", "apfl", "pfedme"])
def test_a_client_without_a_turn_is_scored_with_the_global_model(method, spied):
    seen = spied(method, rounds=1, extra={"uniform": {"fraction": 0.25}})
    (turn,) = seen.after
    for place, model in seen.models.items():
        assert same(model, seen.globals[1]) == (place != turn)


def test_ditto_with_weight_0_is_local_training_bit_for_bit(spied):
    ditto = spied("ditto", rounds=4, extra={**HALF, "ditto": {"weight": 0}})
    local = spied("local", rounds=4, extra=HALF)
    compared = 0
    for (number, client), model in ditto.models.items():
        if client in trained_clients(ditto, number):
            assert same(model, local.models[number, client])
            compared += 1
    assert compared > 8
    assert not same(ditto.models[4, 0], ditto.models[4, 1])


def test_a_round_of_ditto_by_hand(spied):
    seen = spied("ditto", rounds=2, extra={**WHOLE, "ditto": {"weight": 0.7}})
    for number in (1, 2):
        received = seen.globals.get(number - 1, seen.run.runtime.initial)
        for client in range(4):
            before = seen.models.get((number - 1, client), seen.run.runtime.initial)
            g = gradient(seen, before, client)
            expected = personal_step({n: before[n] for n in g}, g, received, 0.1, 0.7)
            close(expected, seen.models[number, client])


def test_a_heavier_term_keeps_dittos_models_nearer_to_the_received_one(spied):
    def distance(weight):
        seen = spied("ditto", rounds=1, extra={"ditto": {"weight": weight}})
        start = seen.run.runtime.initial["hidden.weight"]
        return sum(float((m["hidden.weight"] - start).norm()) for m in seen.models.values())

    assert distance(0) > distance(1) > distance(8)


def test_local_clients_share_nothing(spied):
    seen = spied("local", rounds=3, extra=HALF)
    for result in seen.run.history:
        assert result.bytes_up == result.bytes_down == result.personal_bytes == {}
    last = {}
    for (number, client), before in sorted(seen.before.items()):
        assert same(before, last.get(client, seen.run.runtime.initial))
        last[client] = seen.after[number, client]
    for client in range(4):
        assert same(seen.models[3, client], last.get(client, seen.run.runtime.initial))


def test_apfl_with_alpha_0_scores_the_global_model(spied):
    seen = spied("apfl", rounds=3, extra={**HALF, "apfl": {"alpha": 0}})
    assert all(same(model, seen.globals[number]) for (number, _), model in seen.models.items())


def test_apfl_with_alpha_1_is_local_training_by_plain_steps(spied):
    extra = {**HALF, "sgd": {"momentum": 0.0, "weight_decay": 0.0, "epochs": 2}}
    apfl = spied("apfl", rounds=4, extra={**extra, "apfl": {"alpha": 1}})
    local = spied("local", rounds=4, extra=extra)
    for (number, client), model in apfl.models.items():
        if client in trained_clients(apfl, number):
            expected = local.models[number, client]
            integer = {n for n, w in model.items() if not w.is_floating_point()}
            close({n: w for n, w in model.items() if n not in integer}, expected)


@pytest.mark.parametrize("adaptive", [False, True])
def test_rounds_of_apfl_by_hand(adaptive, spied):
    options = {"alpha": 0.3, "adaptive": adaptive}
    seen = spied("apfl", rounds=2, extra={**WHOLE, "apfl": options})
    initial = seen.run.runtime.initial
    personal, alpha = dict.fromkeys(range(4), initial), dict.fromkeys(range(4), 0.3)
    for number in (1, 2):
        received = seen.globals.get(number - 1, initial)
        for client in range(4):
            v, a = personal[client], alpha[client]
            g = gradient(seen, {**received, **mix({n: v[n] for n in NAMES}, received, a)}, client)
            if adaptive:
                alpha[client] = alpha_step(a, {n: v[n] for n in g}, received, g, 0.1)
            personal[client] = {n: v[n] - 0.1 * a * g[n] for n in g}
            close(
                mix(personal[client], seen.globals[number], alpha[client]),
                seen.models[number, client],
            )
        if adaptive:
            mean = sum(alpha[c] * seen.sizes[c] for c in alpha) / sum(seen.sizes.values())
            found = seen.run.history[number - 1].metrics["apfl.alpha"]
            assert found == pytest.approx(mean, rel=1e-4)
    assert (alpha[0] != 0.3) == adaptive


PFEDME = {"steps": 3, "batch_size": 64, "inner_steps": 2, "lr": 0.02, "weight": 4.0}


def test_rounds_of_pfedme_by_hand(spied):
    """With one batch of all data, each of the three batches of a turn has the same examples."""
    options = {**PFEDME, "personal_lr": 0.05, "beta": 0.5}
    seen = spied("pfedme", rounds=2, extra={"pfedme": options})
    for number in (1, 2):
        received = seen.globals.get(number - 1, seen.run.runtime.initial)
        locals_ = {}
        for client in range(4):
            w = theta = {n: received[n] for n in NAMES}
            for _ in range(3):
                for _ in range(2):
                    g = gradient(seen, {**received, **theta}, client)
                    theta = theta_step(theta, g, w, 0.05, 4.0)
                w = local_step(w, theta, 0.02, 4.0)
            close(theta, seen.models[number, client])
            close(w, seen.after[number, client])
            locals_[client] = w
        total = sum(seen.sizes.values())
        for n in NAMES:
            mean = sum(seen.sizes[c] / total * locals_[c][n] for c in range(4))
            close({n: 0.5 * received[n] + 0.5 * mean}, seen.globals[number])


def test_pfedme_scores_theta_and_not_what_it_sends(spied):
    seen = spied("pfedme", rounds=2, extra={"pfedme": PFEDME})
    assert len(seen.models) == 8
    for place, model in seen.models.items():
        assert not model["hidden.weight"].equal(seen.after[place]["hidden.weight"])
        assert not model["hidden.weight"].equal(seen.globals[place[0]]["hidden.weight"])


def test_an_unstable_step_of_pfedme_is_refused(run_tiny):
    with pytest.raises(ConfigError, match=r"lr x weight must be below 1 .* got 1\.5"):
        run_tiny("pfedme", extra={"pfedme": {"lr": 0.1}})


@pytest.mark.parametrize("part", ["model", "head"])
def test_every_scoring_tunes_the_current_global_model(part, spied):
    seen = spied("fedavg-ft", rounds=2, extra={"fine_tuning": {"part": part, "epochs": 2}})
    for (number, client), model in seen.models.items():
        still = {n for n, w in model.items() if w.equal(seen.globals[number][n])}
        heads = {"classifier.weight", "classifier.bias"}
        assert still == (set(model) - heads if part == "head" else set())
        steps = [w.steps for at, c, start, w in seen.passes if (at, c) == (number, client)]
        assert steps[1] == 2 * steps[0]
    # The trainer's own epoch is 1; the tuning pass starts from the new global weights.
    for number, _, start, work in seen.passes:
        if not work.record:
            assert same(start, seen.globals[number])


def test_tuning_one_step_by_hand(spied):
    seen = spied("fedavg-ft", rounds=1, extra={**WHOLE, "fine_tuning": {"epochs": 1}})
    for client in range(4):
        g = gradient(seen, seen.globals[1], client)
        close({n: seen.globals[1][n] - 0.1 * g[n] for n in g}, seen.models[1, client])


@pytest.mark.parametrize("other", ["ditto", "apfl", "fedbn", "fedper"])
@pytest.mark.parametrize("method", ["fedrep", "fedbabu", "local"])
def test_two_rules_for_the_scored_model_are_refused(method, other, run_tiny):
    with pytest.raises(ConfigError, match="each has its own rule for the model that a client uses"):
        run_tiny(method, extra={other: {}})


def test_a_client_can_tune_what_another_method_makes(spied):
    tuned = spied("fedper", rounds=1, extra={"fine_tuning": {"epochs": 1, "part": "head"}})
    plain = spied("fedper", rounds=1)
    for place, model in tuned.models.items():
        still = {n for n, w in model.items() if w.equal(plain.models[place][n])}
        assert still == {n for n in model if not n.startswith("classifier.")}


@dataclass(frozen=True, eq=False)
class Secretive:
    """A trainer that states no learning rate."""

    @hookimpl
    def train(self, work):
        for batch in work.batches(8, 1):
            work.backward(batch)
        return True


@pytest.mark.parametrize("method", ["apfl", "qfedavg"])
def test_a_trainer_without_a_learning_rate_is_refused_where_it_is_needed(method, add, run_tiny):
    add(secretive=Secretive)
    with pytest.raises(ConfigError, match=f"plugin '{method}' needs the learning rate of SGD"):
        run_tiny(method, extra={"secretive": {}}, without=["sgd"])


@pytest.mark.parametrize("term", ["fedprox", "moon", "fedproto", "fpl"])
@pytest.mark.parametrize(
    "method",
    [
        "fedrep",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("fedper", "fedbabu", "fedbn", "ditto", "apfl", "fedavg-ft", "local")
        ),
    ],
)
def test_personal_methods_run_with_loss_terms_of_others(method, term, spied):
    seen = spied(method, rounds=2, extra={**HALF, term: {}}, clients={"test": 0.2})
    assert {number for number, _ in seen.models} == {1, 2}
    assert seen.run.history[-1].client_scores["classifier"]["accuracy"].clients.keys() == {
        0,
        1,
        2,
        3,
    }


PERSONAL = ("fedper", "fedrep", "fedbabu", "fedbn", "ditto", "apfl", "pfedme", "fedavg-ft", "local")


@pytest.mark.parametrize("method", PERSONAL)
def test_workers_give_the_same_bits(method, run_tiny):
    pool = {"name": "pool", "workers": 2}
    inline, pooled = (
        run_tiny(
            method,
            rounds=2,
            extra=HALF,
            clients={"test": 0.2},
            executor=executor,
        )
        for executor in ("inline", pool)
    )
    assert same(inline.state.weights, pooled.state.weights)
    for one, other in zip(inline.history, pooled.history, strict=True):
        assert one.client_scores == other.client_scores
        assert one.scores == other.scores
