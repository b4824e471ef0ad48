"""FedPer, FedRep, FedBABU and FedBN in real rounds: what travels, what stays, what is scored."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from fedbench_baselines.fedbn import norm_keys
from fedbench_baselines.personal_parts import head_keys

from fedbench import ConfigError, hookimpl, testing
from fedbench.types import nbytes

HALF = {"uniform": {"fraction": 0.5}}
PARTS = {"fedper": head_keys, "fedrep": head_keys, "fedbabu": head_keys, "fedbn": norm_keys}
KEPT = ("fedper", "fedrep", "fedbn")


def own(method, seen, weights):
    names = PARTS[method](seen.run.runtime.model)
    return {name: w for name, w in weights.items() if name in names}


def rest(method, seen, weights):
    names = PARTS[method](seen.run.runtime.model)
    return {name: w for name, w in weights.items() if name not in names}


def same(one, other):
    assert one.keys() == other.keys()
    return all(w.equal(other[name]) for name, w in one.items())


@pytest.mark.parametrize("method", PARTS)
def test_nothing_of_the_part_travels_either_way(method, spied):
    seen = spied(method, rounds=2)
    sent = nbytes(rest(method, seen, seen.run.state.weights))
    assert sent < nbytes(seen.run.state.weights)
    for result in seen.run.history:
        assert result.bytes_up == result.bytes_down == {"weights": 4 * sent}
        assert result.personal_bytes == {"weights": 4 * sent}


@pytest.mark.parametrize("method", PARTS)
def test_the_global_part_keeps_its_initial_values_and_the_rest_is_the_mean(method, spied):
    seen = spied(method, rounds=1, extra={"domains": {"clients_per_domain": 2, "examples": 9}})
    initial = seen.run.runtime.initial
    assert same(own(method, seen, seen.globals[1]), own(method, seen, initial))
    for name, w in rest(method, seen, seen.globals[1]).items():
        if w.is_floating_point():  # all clients have 9 examples: both means are plain
            mean = sum(seen.after[1, client][name].double() for client in range(4)) / 4
            torch.testing.assert_close(w, mean.to(w.dtype))


@pytest.mark.parametrize("method", KEPT)
def test_a_client_goes_on_with_its_part_however_many_rounds_it_misses(method, spied):
    seen = spied(method, rounds=5, extra=HALF)
    last = {}
    missed = False
    for (number, client), before in sorted(seen.before.items()):
        at, expected = last.get(client, (0, seen.run.runtime.initial))
        missed |= bool(at) and number > at + 1
        assert same(own(method, seen, before), own(method, seen, expected))
        received = seen.globals.get(number - 1, seen.run.runtime.initial)
        assert same(rest(method, seen, before), rest(method, seen, received))
        last[client] = number, seen.after[number, client]
    assert missed


@pytest.mark.parametrize("method", KEPT)
def test_a_client_is_scored_with_its_part_and_the_new_global_rest(method, spied):
    quick = {"fedrep": {"final_epochs": 0}} if method == "fedrep" else {}
    seen = spied(method, rounds=3, extra={**HALF, **quick})
    assert {client for _, client in seen.models} == {0, 1, 2, 3}
    for (number, client), model in seen.models.items():
        turns = [at for at, who in seen.after if who == client and at <= number]
        trained = seen.after[max(turns), client] if turns else seen.run.runtime.initial
        assert same(own(method, seen, model), own(method, seen, trained))
        assert same(rest(method, seen, model), rest(method, seen, seen.globals[number]))


def test_fedrep_trains_the_head_with_the_body_still_then_the_body_with_the_head_still(spied):
    seen = spied("fedrep", rounds=1, extra={"sgd": {"epochs": 4}, "fedrep": {"final_epochs": 0}})
    assert len(seen.passes) == 8
    for (_, client, start, head), (_, _, between, body) in zip(
        seen.passes[::2], seen.passes[1::2], strict=True
    ):
        assert head.steps == 3 * body.steps > 0
        end = seen.after[1, client]
        assert same(rest("fedrep", seen, start), rest("fedrep", seen, between))
        assert not same(own("fedrep", seen, start), own("fedrep", seen, between))
        assert same(own("fedrep", seen, between), own("fedrep", seen, end))
        assert not same(rest("fedrep", seen, between), rest("fedrep", seen, end))


def test_a_trainer_of_one_epoch_makes_one_of_each_phase(spied):
    seen = spied("fedrep", rounds=1, extra={"fedrep": {"final_epochs": 0}})
    assert [work.steps for *_, work in seen.passes[::2]] == [
        work.steps for *_, work in seen.passes[1::2]
    ]


def test_fedrep_trains_the_head_alone_before_the_scores(spied):
    seen = spied("fedrep", rounds=1, extra={"fedrep": {"final_epochs": 2}})
    for (_, client), model in seen.models.items():
        assert same(rest("fedrep", seen, model), rest("fedrep", seen, seen.globals[1]))
        kept = own("fedrep", seen, seen.after[1, client])
        assert not same(own("fedrep", seen, model), kept)


def test_fedbabu_never_moves_the_classifier_in_a_turn(spied):
    seen = spied("fedbabu-global", rounds=3, extra={**HALF, "sgd": {"weight_decay": 0.1}})
    initial = own("fedbabu", seen, seen.run.runtime.initial)
    for place, after in seen.after.items():
        assert same(own("fedbabu", seen, after), initial)
        assert not same(rest("fedbabu", seen, after), rest("fedbabu", seen, seen.before[place]))


def test_fedbabus_two_recipes_differ_in_the_scored_models_alone(spied):
    tuned, alone = spied("fedbabu", rounds=2), spied("fedbabu-global", rounds=2)
    assert same(tuned.run.state.weights, alone.run.state.weights)
    for place, model in tuned.models.items():
        assert same(alone.models[place], alone.globals[place[0]])
        untuned = alone.models[place]
        assert not any(w.equal(untuned[n]) for n, w in own("fedbabu", tuned, model).items())
        assert not same(rest("fedbabu", tuned, model), rest("fedbabu", tuned, untuned))


def test_fedbn_refuses_a_model_without_batch_norm(run_tiny):
    with pytest.raises(ConfigError, match="the model has no batch norm, so nothing would stay"):
        run_tiny("fedbn", model="logistic")


@dataclass(frozen=True, eq=False)
class Received:
    """Record which weights a plugin finds in the payload."""

    names = []  # noqa: RUF012

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        self.names.append(set(ctx.payload.weights()))
        assert all(
            w.equal(ctx.model.state_dict()[name]) for name, w in ctx.payload.weights().items()
        )
        return (yield)


@pytest.mark.parametrize("method", KEPT)
def test_other_plugins_find_all_weights_in_the_payload(method, add, run_tiny):
    Received.names.clear()
    add(received=Received)
    run = run_tiny(method, extra={"received": {}})
    assert Received.names == [set(run.state.weights)] * 8


def test_the_kits_turn_loads_what_a_client_kept():
    first = testing.run_turn(testing.client_context(plugins={"exchange": {}, "fedper": {}}))
    assert not [name for name in first.uploads.weights() if name.startswith("classifier.")]
    model = testing.client_context().model
    body = {n: w for n, w in model.state_dict().items() if not n.startswith("classifier.")}
    ctx = testing.client_context(
        plugins={"exchange": {}, "fedper": {}}, payload={"weights": body}, state=first.state
    )
    kept = first.state["fedper.classifier"]
    testing.run_turn(ctx)
    assert same(dict(kept), {n: ctx.payload.weights()[n].cpu() for n in kept})
