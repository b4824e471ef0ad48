"""Only sealed copies cross the boundary between client and server, and into a client's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from fedbench.engine.run import Run
from fedbench.hookspecs import hookimpl
from fedbench.types import PerClass, ServerUpdate, sha256

KEPT: list[Tensor] = []
ARRIVED: list[dict[str, Any]] = []


@dataclass(frozen=True, eq=False)
class Restless:
    """Keeps writing into everything that it has sent or received."""

    @hookimpl
    def broadcast(self):
        for tensor in KEPT:
            tensor.fill_(-1)
        sent = torch.ones(2)
        KEPT.append(sent)
        return {"sent": sent}

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        received = ctx.payload.tensor("sent")
        seen = received.clone()
        received.fill_(-2)
        ctx.payload.weights()["classifier.bias"].fill_(-3)
        trained = yield
        mine = torch.full((2,), float(ctx.client))
        rows = PerClass(torch.tensor([ctx.client]), mine[None], torch.tensor([1]))
        ctx.upload("seen", seen)
        ctx.upload("mine", mine)
        ctx.upload("rows", rows)
        ctx.upload("model", ctx.model.state_dict())
        before = ctx.model.classifier.weight.detach().clone()
        ctx.upload("before", before)
        for tensor in (mine, seen, before, rows.labels, *KEPT):
            tensor.fill_(-4)
        KEPT.extend((mine, received))
        with torch.no_grad():
            for parameter in ctx.model.parameters():
                parameter.fill_(7)
        return trained

    @hookimpl
    def server_update(self, reports):
        for report in reports:
            ARRIVED.append({"client": report.client, **report.uploads})
        return ServerUpdate()


def test_live_references_cannot_leak(add, run_tiny):
    KEPT.clear()
    ARRIVED.clear()
    add(restless=Restless)
    run = run_tiny(rounds=2, extra={"restless": {}})
    assert len(ARRIVED) == 2 * 4
    for report in ARRIVED:
        client = report["client"]
        assert report["seen"].tolist() == [1, 1]
        assert report["mine"].tolist() == [client, client]
        assert report["rows"].labels.tolist() == [client]
        assert report["rows"].values.tolist() == [[client, client]]
        assert not (report["before"] == -4).any()
        assert torch.equal(report["model"]["classifier.weight"], report["before"])
    models = {tuple(report["before"].flatten().tolist()) for report in ARRIVED}
    assert len(models) == len(ARRIVED), "each upload is its own client's model"
    # `exchange` is outside this one, so it uploads the model full of sevens.
    assert (run.state.weights["classifier.weight"] == 7).all()


@dataclass(frozen=True, eq=False)
class Forgetful:
    """Counts its turns, and forgets the count after three of them."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        trained = yield
        turns = ctx.state.get("turns", torch.zeros(1))
        turns += 1
        ctx.metric("turns", turns)
        ctx.metric("weight", ctx.model.classifier.weight.sum())  # a live tensor with a gradient
        ctx.state["turns"] = turns
        if turns == 3:
            del ctx.state["turns"]
        return trained


def test_a_client_keeps_its_state_until_it_drops_it(add, run_tiny):
    add(forgetful=Forgetful)
    run = run_tiny(rounds=5, extra={"forgetful": {}})
    assert [r.metrics["turns"] for r in run.history] == [1, 2, 3, 1, 2]


@dataclass(frozen=True, eq=False)
class Smudges:
    """Overwrites the model after all other plugins' part of the turn."""

    outermost: ClassVar[bool] = True

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        trained = yield
        with torch.no_grad():
            for tensor in ctx.model.state_dict().values():
                tensor.fill_(7)
        return trained


@pytest.mark.parametrize("method", ["moon", "fedproto-aaai"])
def test_a_wrapper_further_out_does_not_change_what_a_client_keeps(add, run_tiny, method):
    add(smudges=Smudges)
    plain, smudged = run_tiny(method), run_tiny(method, extra={"smudges": {}})
    assert plain.result()["metrics_sha256"] == smudged.result()["metrics_sha256"]
    for client in plain._clients:
        assert sha256(plain._clients[client]) == sha256(smudged._clients[client])


@dataclass(frozen=True, eq=False)
class Reassigns:
    """Replaces its whole state in odd rounds, and adds a value to it in even ones."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        live = torch.full((1,), float(ctx.round))
        if ctx.round % 2:
            ctx.state = {"odd": live}
        else:
            ctx.state |= {"even": live}
        live.fill_(0)
        ctx.metric("keys", len(ctx.state))
        return (yield)


def test_a_state_that_is_assigned_as_a_whole_is_sealed_too(add, run_tiny):
    add(reassigns=Reassigns)
    run = run_tiny(rounds=2, extra={"reassigns": {}})
    assert [r.metrics["keys"] for r in run.history] == [1, 2]
    assert {k: float(v) for k, v in run._clients[0].items()} == {"odd": 1, "even": 2}


@dataclass(frozen=True, eq=False)
class Borrowed:
    """Trains and is scored in the memory of its own state."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        if "own" in ctx.state:
            ctx.model.load_state_dict(ctx.state["own"], assign=True)
        trained = yield
        ctx.state["own"] = ctx.model.state_dict()
        return trained

    @hookimpl
    def personalize(self, ctx):
        ctx.model.load_state_dict(ctx.state["own"], assign=True)
        for tensor in ctx.state["own"].values():
            tensor.zero_()
        ctx.state["own"] = ctx.model.state_dict()


def test_memory_that_a_plugin_borrows_from_the_state_is_its_own(add, run_tiny):
    add(borrowed=Borrowed)
    run = run_tiny(rounds=3, extra={"borrowed": {}})
    kept = [sha256(run._clients[client]) for client in run._clients]
    assert len(set(kept)) == 4, "every client keeps what it trained itself"
    assert all(bool(run._clients[c]["own"]["hidden.weight"].any()) for c in run._clients)


def test_an_interrupted_round_leaves_the_kept_states_alone(add, registry, tiny_config):
    add(forgetful=Forgetful)
    run = Run(tiny_config(registry, rounds=2, extra={"forgetful": {}}), registry=registry)

    def stop(number: int, done: int, total: int) -> None:
        if (number, done) == (2, 3):
            raise KeyboardInterrupt

    run.progress = stop
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert [float(run._clients[c]["turns"]) for c in run._clients] == [1, 1, 1, 1]
