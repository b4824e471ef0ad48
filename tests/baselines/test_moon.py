"""MOON in real rounds: which model is the previous one, and the term recomputed from it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from fedbench_baselines.moon import moon_loss

from fedbench import Run, hookimpl

ALONE = {"uniform": {"fraction": 0.25}}
"""One of the four clients takes part in each round, so the average is its model."""


def test_the_previous_model_is_what_the_client_ended_its_last_turn_with(registry, tiny_config):
    run = Run(tiny_config(registry, "moon", rounds=6, extra=ALONE), registry=registry)
    ended = {}
    for result in run.rounds():
        (client,) = result.clients
        ended[client] = copy.deepcopy(run.state.weights)
        assert set(run._clients) == set(ended)
        for other, weights in ended.items():  # clients that missed this round keep theirs
            kept = run._clients[other]["moon.previous"]
            assert all(torch.equal(kept[name], weights[name]) for name in weights)
    assert len(ended) < 6, "some client must have a second turn"


def test_the_term_recomputed_from_the_three_models(registry, tiny_config, add):
    """One batch per turn: the metric is the term at the received weights, before any step."""
    batches = []

    @dataclass(frozen=True, eq=False)
    class Eyes:
        @hookimpl
        def local_loss(self, ctx, batch, output):
            batches.append((ctx.round, ctx.client, batch.inputs, output.features.detach()))
            return {}

    add(eyes=Eyes)
    extra = {"sgd": {"epochs": 1, "batch_size": 1000}, "moon": {"mu": 3.0}, "eyes": {}}
    run = Run(tiny_config(registry, "moon", rounds=2, extra=extra), registry=registry)
    rounds = run.rounds()
    next(rounds)
    received = copy.deepcopy(run.state.weights)
    previous = {c: copy.deepcopy(run._clients[c]["moon.previous"]) for c in run._clients}
    model = copy.deepcopy(run.runtime.model)
    result = next(rounds)

    @torch.no_grad()
    def features(weights, inputs):
        model.load_state_dict(weights)
        return model.eval().features(inputs)

    expected, examples = 0.0, 0
    for number, client, inputs, z in batches:
        if number == 2:
            both = features(received, inputs), features(previous[client], inputs)
            expected += 3.0 * float(moon_loss(z, *both, 0.5)) * len(z)
            examples += len(z)
    assert result.metrics["loss.moon"] == pytest.approx(expected / examples, rel=1e-5)


def test_looking_at_the_frozen_models_changes_nothing_else(run_tiny):
    """With mu = 0 the term is there, and weights and batch-norm statistics are FedAvg's."""
    plain, zero = (
        run_tiny("fedavg", rounds=3),
        run_tiny("moon", rounds=3, extra={"moon": {"mu": 0}}),
    )
    assert zero.history[-1].metrics["loss.moon"] == 0
    assert zero.result()["weights_sha256"] == plain.result()["weights_sha256"]


def test_mu_and_temperature_matter(run_tiny):
    digests = {
        run_tiny("moon", rounds=2, extra={"moon": options}).result()["weights_sha256"]
        for options in ({}, {"mu": 5.0}, {"temperature": 0.1})
    }
    assert len(digests) == 3


def test_loss_at_its_ends_by_hand():
    z = torch.tensor([[2.0, 0.0]])
    opposite = -3 * z
    # s = 1 and -1 at T = 0.5: -log(e^2 / (e^2 + e^-2)) = log(1 + e^-4), and vice versa.
    assert float(moon_loss(z, z, opposite, 0.5)) == pytest.approx(0.0181499, rel=1e-4)
    assert float(moon_loss(z, opposite, z, 0.5)) == pytest.approx(4.0181499, rel=1e-5)
    # A small temperature does not overflow.
    assert float(moon_loss(z, opposite, z, 1e-3)) == pytest.approx(2000)
