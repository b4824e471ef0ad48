"""Passes of the trainer: how long, on what, over which batches, and what of them is recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fedbench import ClientContext, PluginError, Run, hookimpl, testing
from fedbench.types import Batch

SEEN: list[tuple[Any, ...]] = []


@dataclass(frozen=True, eq=False)
class Sees:
    """Adds a term, writes into the scratch, and notes each gradient."""

    @hookimpl
    def local_loss(self, ctx, batch, output):
        ctx.scratch["sees"] = ctx.scratch.get("sees", 0) + 1
        return {"sees": output.logits.square().mean()}

    @hookimpl
    def after_backward(self, ctx, batch):
        SEEN.append((ctx.model, ctx.training.steps))


def context(**given: Any) -> ClientContext:
    """Return a client with 24 examples, hence 3 batches of 8 per epoch."""
    SEEN.clear()
    return testing.client_context(plugins={"sees": Sees()}, **given)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({}, 3),
        ({"epochs": 2}, 6),
        ({"epochs": 0}, 0),
        ({"steps": 0}, 0),
        ({"steps": 2}, 2),
        ({"steps": 7}, 7),
        ({"epochs": 1, "steps": 4}, 4),
    ],
    ids=str,
)
def test_a_pass_is_as_long_as_it_is_asked_to_be(given: dict[str, int], steps: int) -> None:
    """In epochs or in exactly so many steps; otherwise as the trainer's options say."""
    ctx = context()
    before = weights(ctx.model)
    assert ctx.train(**given).steps == steps
    assert len(SEEN) == steps
    assert same(before, weights(ctx.model)) == (steps == 0)


def test_a_stream_of_its_own_draws_other_batches_and_the_turns_own_draws_the_same() -> None:
    ctx = context()
    initial = copy.deepcopy(ctx.model)
    turn, again, other = (copy.deepcopy(initial) for _ in range(3))
    ctx.train(turn)
    ctx.train(again)
    ctx.train(other, stream="mine")
    assert same(weights(turn), weights(again)), "bit for bit"
    assert not same(weights(turn), weights(other))
    repeated = copy.deepcopy(initial)
    ctx.train(repeated, stream="mine")
    assert same(weights(other), weights(repeated))


def test_only_some_parameters_and_buffers_change_and_the_rest_keep_their_bits() -> None:
    ctx = context()
    before = weights(ctx.model)
    ctx.train(only=lambda name: name.startswith("classifier."))
    assert changed(ctx.model, before) == {"classifier.weight", "classifier.bias"}
    assert all(p.requires_grad for p in ctx.model.parameters()), "only for the pass"
    before = weights(ctx.model)
    ctx.train(only=lambda name: not name.startswith("classifier."))
    body = set(before) - {"classifier.weight", "classifier.bias"}
    assert changed(ctx.model, before) == body
    assert {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"} < body


def test_a_parameter_that_is_frozen_anyway_stays_frozen() -> None:
    ctx = context()
    ctx.model.hidden.weight.requires_grad_(False)
    ctx.train(only=lambda name: name.startswith("classifier."))
    assert not ctx.model.hidden.weight.requires_grad
    assert ctx.model.hidden.bias.requires_grad


def test_a_pass_on_another_model_leaves_the_turn_alone() -> None:
    """Its terms are not reported, its scratch is not kept, and nobody sees its gradients."""
    ctx, plain = context(), context()
    plain.train()
    ctx.scratch["sees"] = 0
    mine, other = weights(ctx.model), copy.deepcopy(ctx.model)
    work = ctx.train(other, epochs=2)
    assert work.steps == 6
    assert not work.record
    assert {id(model) for model, _ in SEEN} == {id(plain.model)}, "only the plain turn's"
    assert ctx.scratch["sees"] == 0
    assert same(mine, weights(ctx.model))
    assert not same(mine, weights(other))
    with pytest.raises(PluginError, match=r"^nothing has been trained yet in round 1, client 0$"):
        _ = ctx.training
    turn = ctx.train()
    assert ctx.training is turn
    assert ctx.result(0.0).metrics == plain.result(0.0).metrics


def test_the_training_is_the_pass_under_way_and_then_the_last_one_recorded() -> None:
    ctx = context()
    found = []

    def loss(batch: Batch) -> torch.Tensor:
        found.append((ctx.training, ctx.model))
        return ctx.loss(batch)

    turn = ctx.train(loss=loss)
    other = copy.deepcopy(ctx.model)
    more = ctx.train(other, loss=loss, steps=1)
    assert [work for work, _ in found] == [turn] * 3 + [more]
    assert found[-1][1] is other, "plugins see the model that is trained"
    assert ctx.training is turn
    assert (turn.lr, turn.momentum, turn.steps) == (0.05, 0.0, 3)


def test_a_further_pass_is_recorded_when_asked_for() -> None:
    ctx = context()
    ctx.train(copy.deepcopy(ctx.model), record=True)
    assert len(SEEN) == 3
    assert "loss.sees" in ctx.result(0.0).metrics


def test_a_pass_that_fails_leaves_the_turns_model_in_place() -> None:
    ctx = context()
    model = ctx.model

    def loss(batch: Batch) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ctx.train(copy.deepcopy(model), loss=loss, only=lambda name: name == "classifier.bias")
    assert ctx.model is model
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(PluginError, match=r"nothing has been trained"):
        _ = ctx.training


def test_a_second_forward_pass_on_another_model_is_neither_reported_nor_kept() -> None:
    ctx = context()
    other = copy.deepcopy(ctx.model)
    with torch.no_grad():
        other.classifier.weight.zero_()
        other.classifier.bias.zero_()
    batch = testing.batch(ctx)
    assert float(ctx.loss(batch, model=other, record=False).detach()) == 0
    assert "sees" not in ctx.scratch
    assert ctx.model is not other
    assert "loss.sees" not in ctx.result(0.0).metrics


@dataclass(frozen=True, eq=False)
class Beside:
    """Trains a second model in each turn, which the client keeps; it is not recorded."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        own = copy.deepcopy(ctx.model)
        if "beside" in ctx.state:
            own.load_state_dict(ctx.state["beside"])
        ctx.train(own, epochs=2)
        ctx.state["beside"] = own.state_dict()
        return (yield)

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        if "beside" in ctx.state:
            ctx.model.load_state_dict(ctx.state["beside"])


@pytest.mark.parametrize("method", ["fedavg", "fedproto", "moon", "fpl", "fedhpro"])
def test_a_pass_that_is_not_recorded_changes_no_bit_of_any_method(
    method: str, add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    """Neither weights nor metrics, prototypes that are gathered, or the model kept by MOON."""
    add(beside=Beside)
    plain = run_tiny(method)
    more = run_tiny(method, extra={"beside": {}}, accuracy={"model": "global"})
    for key in ("weights_sha256", "metrics_sha256"):
        assert plain.result()[key] == more.result()[key]
