"""FedProx in real rounds: steps by hand, and which weights are the anchor."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from fedbench import hookimpl

ONE_BATCH = {"batch_size": 1000, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


@dataclass(frozen=True, eq=False)
class Slope:
    """A loss whose gradient is 1 plus the client's id, for every parameter."""

    @hookimpl
    def local_loss(self, ctx):
        return {"slope": sum(p.sum() for p in ctx.model.parameters()) * (1 + ctx.client)}


def test_a_round_by_hand(run_tiny, add):
    """Two steps with mu = 1: from w to w - 0.1 g, then down by 0.1 (g - 0.1 g)."""
    add(slope=Slope)
    run = run_tiny(
        "fedprox",
        rounds=1,
        without=("cross_entropy",),
        extra={
            "sgd": {"epochs": 2, **ONE_BATCH},
            "fedprox": {"mu": 1.0},
            "slope": {},
            "domains": {"clients_per_domain": {"ink": 1, "chalk": 1}},
        },
    )
    sizes = [len(part) for part in run.runtime.parts]
    mean = sum(n * 0.19 * (1 + client) for client, n in enumerate(sizes)) / sum(sizes)
    for name in ("hidden.weight", "norm.bias", "classifier.weight"):
        moved = run.runtime.initial[name] - run.state.weights[name]
        torch.testing.assert_close(moved, torch.full_like(moved, mean))
    # The mean over both steps of 1/2 |w - w_t|^2: 0 at first, then w - w_t is 0.1 g.
    parameters = sum(p.numel() for p in run.runtime.model.parameters())
    terms = [parameters * (0.1 * (1 + client)) ** 2 / 2 / 2 for client in range(len(sizes))]
    expected = sum(n * t for n, t in zip(sizes, terms, strict=True)) / sum(sizes)
    assert run.history[0].metrics["loss.fedprox"] == pytest.approx(expected, rel=1e-4)


def test_the_anchor_is_this_rounds_received_model(run_tiny):
    run = run_tiny("fedprox", rounds=3, extra={"sgd": {"epochs": 1, **ONE_BATCH}})
    assert [result.metrics["loss.fedprox"] for result in run.history] == [0, 0, 0]


def test_frozen_parameters_are_left_out(run_tiny, add):
    @dataclass(frozen=True, eq=False)
    class Freeze:
        @hookimpl(wrapper=True)
        def client_update(self, ctx):
            ctx.model.hidden.requires_grad_(False)
            result = yield
            ctx.model.hidden.requires_grad_(True)
            return result

    add(freeze=Freeze)
    before, after = {"freeze": {}, "fedprox": {"mu": 1.0}}, {"fedprox": {"mu": 1.0}, "freeze": {}}
    runs = [run_tiny("fedavg", extra=extra) for extra in (before, after)]
    for run in runs:
        start, end = run.runtime.initial, run.state.weights
        assert torch.equal(start["hidden.weight"], end["hidden.weight"])
        assert run.history[-1].metrics["loss.fedprox"] > 0
    digests = {run.result()["weights_sha256"] for run in runs}
    assert len(digests) == 1, "the plugin that freezes may come before or after"
