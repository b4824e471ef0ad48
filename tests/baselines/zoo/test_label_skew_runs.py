"""Methods against label skew in real turns and rounds: terms by hand, identities, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from fedbench_baselines.balanced_softmax import balanced_loss
from fedbench_baselines.ccvr import (
    Ccvr,
    class_statistics,
    pooled_statistics,
    pooled_uploads,
    virtual_features,
)
from fedbench_baselines.feddecorr import decorrelation_loss
from fedbench_baselines.fedgh import train_head
from fedbench_baselines.fedlc import calibrated_loss
from fedbench_baselines.fedntd import ntd_loss
from fedbench_baselines.fedrs import restricted_loss, scales

from fedbench import PerClass, testing
from fedbench.types import forward
from fedbench.values import sha256


def digest(run):
    return sha256(run.state.weights)


def skewed():
    """Return eight examples, six of class 0 and two of class 1; class 2 is absent."""
    train = testing.tiny_dataset().train
    of = [(train.labels == c).nonzero().flatten() for c in (0, 1)]
    return train[torch.cat([of[0][:6], of[1][:2]])]


def turn(plugins, **given):
    """Return the context before a turn of one step, the model received, and the turn's result."""
    ctx = testing.client_context(plugins=plugins, data=skewed(), **given)
    received = copy.deepcopy(ctx.model)
    return ctx, received, testing.run_turn(ctx)


# --- terms ---------------------------------------------------------------------------------------

COUNTS = torch.tensor([6, 2, 0])
TERMS = {
    "fedlc": ({"tau": 0.3}, lambda z, y: calibrated_loss(z, y, COUNTS, 0.3)),
    "balanced_softmax": ({"tau": 0.7}, lambda z, y: balanced_loss(z, y, COUNTS, 0.7)),
    "fedrs": (
        {"alpha": 0.1, "form": "counts"},
        lambda z, y: restricted_loss(z, y, scales(COUNTS, 0.1, "counts")),
    ),
}


@pytest.mark.parametrize("name", TERMS)
def test_the_loss_uses_the_clients_own_counts(name):
    options, formula = TERMS[name]
    ctx, received, result = turn({name: options})
    logits = forward(received.train(), ctx.prepare(ctx.data.inputs)).logits
    expected = float(formula(logits.detach(), ctx.data.labels))
    assert result.metrics == {f"loss.{name}": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize(
    ("name", "options", "moves"),
    [
        ("fedlc", {}, False),
        ("balanced_softmax", {}, False),
        ("fedrs", {"alpha": 0}, False),
        ("fedrs", {"alpha": 0.5}, True),
        ("cross_entropy", {}, True),
    ],
)
def test_the_row_of_an_absent_class_is_left_alone(name, options, moves):
    ctx, received, _ = turn({name: options})
    before, after = received.classifier, ctx.model.classifier
    assert torch.equal(before.weight[2], after.weight[2]) != moves
    assert not torch.equal(before.weight[0], after.weight[0])


def test_ntds_teacher_is_the_received_model_in_evaluation_mode():
    ctx, received, result = turn({"fedntd": {"beta": 2.0, "temperature": 3.0}, "cross_entropy": {}})
    inputs = ctx.prepare(ctx.data.inputs)
    with torch.no_grad():
        known = forward(copy.deepcopy(received).eval(), inputs).logits
        logits = forward(received.train(), inputs).logits
    expected = 2 * float(ntd_loss(logits, known, ctx.data.labels, 3.0))
    assert expected > 0, "batch norm makes the two modes differ"
    assert result.metrics["loss.fedntd"] == pytest.approx(expected, rel=1e-4)


def test_decorrelation_is_of_the_features_in_training():
    ctx, received, result = turn({"feddecorr": {"beta": 0.5}, "cross_entropy": {}})
    features = forward(received.train(), ctx.prepare(ctx.data.inputs)).features.detach()
    expected = 0.5 * float(decorrelation_loss(features))
    assert result.metrics["loss.feddecorr"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [("fedntd", {"beta": 0}), ("feddecorr", {"beta": 0}), ("fedrs", {"alpha": 1})],
)
def test_without_their_effect_they_are_fedavg_bit_for_bit(method, options, run_tiny):
    plain = run_tiny("fedavg", rounds=3)
    assert digest(run_tiny(method, rounds=3, extra={method: options})) == digest(plain)
    assert digest(run_tiny(method, rounds=3)) != digest(plain) or method == "fedrs"


def test_fedrs_by_presence_is_fedavg_for_clients_that_hold_all_classes(run_tiny):
    assert digest(run_tiny("fedrs")) == digest(run_tiny("fedavg"))


# --- calibration ---------------------------------------------------------------------------------


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_class_statistics_are_torchs():
    features, labels = draw(9, 4), torch.tensor([2, 0, 2, 2, 0, 2, 5, 0, 2])
    means, upper = class_statistics(features, labels)
    i, j = torch.triu_indices(4, 4)
    assert means.labels.tolist() == upper.labels.tolist() == [0, 2, 5]
    assert means.counts.tolist() == [3, 5, 1]
    for row, label in enumerate((0, 2)):
        own = features[labels == label]
        torch.testing.assert_close(means.values[row], own.mean(0))
        torch.testing.assert_close(upper.values[row], own.T.cov()[i, j])
    assert upper.values[2].tolist() == [0] * 10, "a single example has no covariance"


def test_pooled_uploads_are_the_statistics_of_all_features_together():
    features, labels = draw(30, 4), torch.arange(30) % 3  # nobody holds class 3
    reports = []
    for client, index in enumerate(torch.arange(30).split([1, 17, 12])):
        means, upper = class_statistics(features[index], labels[index])
        uploads = {"ccvr.means": means, "ccvr.covariances": upper}
        reports.append(testing.report(client=client, uploads=uploads))
    counts, means, covariances = pooled_uploads(reports, 4, 4)
    assert counts.tolist() == [10, 10, 10, 0]
    for label in range(3):
        own = features[labels == label]
        torch.testing.assert_close(means[label], own.mean(0))
        torch.testing.assert_close(covariances[label], own.T.cov())
    assert not means[3].any()
    assert not covariances[3].any()


def test_the_last_round_by_hand():
    """One client holds classes 0 and 1 of three; its statistics are those that are pooled."""
    ctx, received, result = turn({"ccvr": {}, "cross_entropy": {}, "exchange": {}}, round=3)
    features = forward(received.eval(), ctx.prepare(ctx.data.inputs)).features.detach()
    means, upper = class_statistics(features, ctx.data.labels)
    torch.testing.assert_close(result.uploads.per_class("ccvr.means").values, means.values)
    torch.testing.assert_close(result.uploads.per_class("ccvr.covariances").values, upper.values)

    server, before = testing.server_context(round=3), dict(received.state_dict())
    report = testing.report(uploads=result.uploads)
    found = Ccvr(per_class=5, lr=0.1).server_update(ctx=server, before=before, reports=[report])
    rng = server.rng("ccvr")
    whole = [torch.zeros(1, 3, *shape, dtype=torch.float64) for shape in ((), (6,), (6, 6))]
    whole[0][0, :2] = torch.tensor([6.0, 2.0])
    for c in (0, 1):
        own = features[ctx.data.labels == c].double()
        whole[1][0, c], whole[2][0, c] = own.mean(0), own.T.cov()
    z, y = virtual_features(*pooled_statistics(*whole), 5, rng)
    rows = PerClass(y, z, torch.ones_like(y))
    weight, bias = before["classifier.weight"], before["classifier.bias"]
    w, b = train_head(weight[:2], bias[:2], rows, 1, 64, 0.1, rng)
    torch.testing.assert_close(found.weights["classifier.weight"][:2], w, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.weights["classifier.bias"][:2], b, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.weights["classifier.weight"][2], weight[2]), "nobody holds class 2"
    assert not torch.equal(w, weight[:2])


@pytest.mark.parametrize("method", ["fedavg", "fedavgm", "fedproto"])
def test_the_run_ends_with_the_extractor_of_the_round_before(method, run_tiny):
    shorter = run_tiny(method, rounds=2)
    run = run_tiny(method, rounds=3, extra={"ccvr": {}})
    for name, value in shorter.state.weights.items():
        same = torch.equal(run.state.weights[name], value)
        assert same != name.startswith("classifier."), name


def test_only_the_last_round_sends_statistics(run_tiny):
    run = run_tiny("ccvr", rounds=3)
    sent = [set(result.bytes_up) - {"weights"} for result in run.history]
    assert sent == [set(), set(), {"ccvr.means", "ccvr.covariances"}]
    d, rows = 6, 4 * 3  # four clients hold three classes each
    numbers = 4 * (d * (d + 1) // 2) + 8 + 8  # float32 values, and label and count per row
    assert run.history[-1].bytes_up["ccvr.covariances"] == rows * numbers
