"""Prototype methods in real turns and rounds: terms and servers by hand, absent classes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from fedbench_baselines import tgp
from fedbench_baselines.fedgh import FedGH, train_head
from fedbench_baselines.fednh import FedNH, class_directions, cosine_logits
from fedbench_baselines.fedpcl import FedPCL, prototype_contrast, sets_contrast, unit_sets
from fedbench_baselines.fedplvm import FedPLVM, correction_loss, local_clusters, sparsity_loss
from fedbench_baselines.fedproc import FedProc
from fedbench_baselines.fedproc import prototype_contrast as proc_contrast
from fedbench_baselines.fedtgp import FedTGP, center_loss
from safetensors.torch import load_file
from torch.nn import functional as F

from fedbench import ConfigError, PerClass, Run, hookimpl, resolve, testing
from fedbench.config import resolve as config
from fedbench.config.yamlfile import Document
from fedbench.types import forward
from fedbench.values import sha256

METHODS = ("fedtgp", "fedtgp-aaai", "fedpcl", "fedproc", "fedplvm", "fednh", "fedgh")
QUICK = {"fedtgp": {"server_epochs": 20}}


def more(method, **options):
    """Return extra plugins: fewer epochs where the server trains for long."""
    return {name: given for name, given in QUICK.items() if method.startswith(name)} | options


def digest(run):
    return sha256(run.state.weights)


def rows(labels, values, counts=None):
    counts = [1] * len(labels) if counts is None else counts
    return PerClass(torch.tensor(labels), torch.tensor(values), torch.tensor(counts))


def reports(key, *uploads):
    return [testing.report(client=i, uploads={key: one}) for i, one in enumerate(uploads)]


def one_step(plugins, **given):
    """Play a turn of one step; return its context, the outputs at the received weights, metrics."""
    data = testing.tiny_dataset().train[torch.arange(8)]
    ctx = testing.client_context(plugins=plugins, data=data, **given)
    received = copy.deepcopy(ctx.model)
    result = testing.run_turn(ctx)
    with torch.no_grad():
        output = forward(received.train(), ctx.prepare(data.inputs))
    return ctx, output, result


@dataclass(frozen=True, eq=False)
class OneClassEach:
    """Client 0 holds only class 0, client 1 only class 1; no client holds class 2."""

    @hookimpl
    def partition(self, data):
        return [(data.train.labels == c).nonzero().flatten() for c in (0, 1)]


@pytest.fixture
def one_class(registry, tiny_config, add):
    """Return a function that makes a run with one client of one class per round."""
    add(one_class=OneClassEach)

    def made(method, rounds):
        extra = more(method, uniform={"fraction": 0.5})
        data = tiny_config(registry, method, rounds=rounds, extra=extra).to_dict()
        del data["plugins"]["domains"]
        data["plugins"]["one_class"] = {}
        return Run(config.resolve(registry, file=Document(data, "test")), registry=registry)

    return made


# --- what all have in common ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("fedtgp", "fedtgp.prototypes", PerClass.means),
        ("fedpcl", "fedpcl.prototypes", PerClass.means),
        ("fedgh", "fedgh.means", PerClass.means),
        ("fedproc", "fedproc.prototypes", lambda z, y: PerClass.means(F.normalize(z, dim=1), y)),
        ("fednh", "fednh.directions", class_directions),
        ("fedplvm", "fedplvm.prototypes", local_clusters),
    ],
)
def test_uploads_come_from_the_trained_model_in_evaluation_mode(name, key, expected):
    head = {"weight": torch.ones(3, 6), "bias": torch.zeros(3)}
    payload = {"fednh.prototypes": torch.eye(3, 6), "fedgh.head": head}
    payload = {k: value for k, value in payload.items() if k.startswith(name)}
    others = {} if name in ("fedproc", "fednh") else {"cross_entropy": {}}
    ctx = testing.client_context(plugins={**others, name: {}}, payload=payload)
    upload = testing.run_turn(ctx).uploads.per_class(key)
    with torch.no_grad():
        features = forward(ctx.model.eval(), ctx.prepare(ctx.data.inputs)).features
    found = expected(features, ctx.data.labels)
    torch.testing.assert_close(upload.values, found.values)
    assert (upload.labels.tolist(), upload.counts.tolist()) == (
        found.labels.tolist(),
        found.counts.tolist(),
    )


@pytest.mark.parametrize("method", METHODS)
def test_clients_of_one_class_may_miss_rounds(method, one_class):
    run = one_class(method, 5)
    run.run()
    assert len({tuple(result.clients) for result in run.history}) == 2, "both must occur"
    terms = [v for r in run.history for k, v in r.metrics.items() if k.startswith("loss.")]
    assert all(torch.isfinite(torch.tensor(terms)))


@pytest.mark.parametrize("method", ["fedtgp", "fedpcl", "fedplvm"])
def test_with_weight_zero_they_are_fedavg_bit_for_bit(method, run_tiny):
    options = {**more(method).get(method, {}), "weight": 0}
    zero = run_tiny(method, rounds=3, extra={method: options})
    assert digest(zero) == digest(run_tiny("fedavg", rounds=3))
    assert digest(run_tiny(method, rounds=3, extra=more(method))) != digest(zero)


# --- FedTGP --------------------------------------------------------------------------------------


def test_fedtgps_server_trains_its_network_and_sends_all_classes():
    plugin = FedTGP(server_epochs=200, server_lr=0.1)
    weights = testing.server_state().weights
    kept = plugin.init_server(ctx=testing.server_context(round=0), weights=weights)
    state = testing.server_state(entries=kept)
    assert plugin.broadcast(state=state) == {}, "nothing is sent before the first training"
    given = [rows([0, 1], [[3.0] * 6, [-3.0] * 6], [4, 2]), rows([0], [[2.0] * 6], [5])]
    ctx = testing.server_context()
    found = plugin.server_update(ctx=ctx, state=state, reports=reports("fedtgp.prototypes", *given))
    prototypes = found.entries["fedtgp.prototypes"]
    assert prototypes.labels.tolist() == [0, 1, 2]
    assert prototypes.counts.tolist() == [9, 2, 0]
    margin = found.metrics["fedtgp.margin"]
    assert margin == pytest.approx(5.5 * 6**0.5), "class means at 2.5 and -3 in six dimensions"
    uploads = PerClass.concat(given)
    before, after = (
        float(center_loss(uploads.values, uploads.labels, centers, margin))
        for centers in (tgp.centers(kept["fedtgp.network"]), prototypes.values)
    )
    assert after < before
    later = testing.server_state(entries=found.entries, round=1)
    assert set(plugin.broadcast(state=later)) == {"fedtgp.prototypes"}, "the network stays"
    assert set(plugin.inference(ctx=ctx, state=later)) == {"nearest_prototype"}


def test_fedtgps_term_by_hand():
    known = rows([0, 1, 2], torch.arange(18.0).reshape(3, 6).tolist())
    plugins = {"cross_entropy": {}, "fedtgp": {"weight": 2.0}}
    ctx, output, result = one_step(plugins, payload={"fedtgp.prototypes": known}, round=2)
    expected = 2 * F.mse_loss(output.features, known.values[ctx.data.labels])
    assert result.metrics["loss.fedtgp"] == pytest.approx(float(expected), rel=1e-5)


def test_fedtgps_paper_form_sends_prototypes_only(run_tiny):
    run = run_tiny("fedtgp-aaai", rounds=2, extra=more("fedtgp"))
    assert [set(result.bytes_up) for result in run.history] == [{"fedtgp.prototypes"}] * 2
    assert [set(result.bytes_down) for result in run.history] == [set(), {"fedtgp.prototypes"}]
    assert set(run.history[-1].scores) == {"classifier", "nearest_prototype"}


def test_a_run_has_one_rule_of_the_nearest_prototype(registry):
    with pytest.raises(ConfigError, match="prototypes of its own for the rule nearest_prototype"):
        resolve(registry, "fedtgp", plus=["fedproto"])


# --- FedPCL --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.07, 1e-3])
def test_fedpcls_sum_over_sets_is_that_of_its_sets(temperature):
    generator = torch.Generator().manual_seed(1)
    parts = [
        PerClass(torch.tensor(labels), torch.randn(len(labels), 5, generator=generator).double(), c)
        for labels in ([0, 1, 3], [2], [3, 0], [0, 1, 2, 3])
        for c in [torch.ones(len(labels)).long()]
    ]
    sets = torch.arange(4).repeat_interleave(torch.tensor([len(part) for part in parts]))
    z = torch.randn(9, 5, generator=generator).double().requires_grad_()
    labels = torch.arange(9) % 5  # nobody has class 4
    fast = sets_contrast(
        z, labels, *unit_sets(PerClass.concat(parts), sets, 5), temperature=temperature
    )
    slow = sum(prototype_contrast(z, labels, part, temperature) for part in parts)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (fast, slow)))


@pytest.mark.parametrize("sets", ["all", "global"])
def test_fedpcls_server_by_hand(sets):
    given = rows([0, 2], [[1.0, 2.0], [5.0, 5.0]]), rows([0], [[3.0, 0.0]])
    found = FedPCL(sets=sets).server_update(reports=reports("fedpcl.prototypes", *given)).entries
    kept = found["fedpcl.prototypes"]
    everything = [[2.0, 1.0], [5.0, 5.0], [1.0, 2.0], [5.0, 5.0], [3.0, 0.0]]
    n = 5 if sets == "all" else 2
    assert kept.values.tolist() == everything[:n]
    assert kept.labels.tolist() == [0, 2, 0, 2, 0][:n]
    assert found["fedpcl.sets"].tolist() == [0, 0, 1, 1, 2][:n]


def test_fedpcls_term_is_the_sum_over_both_sets():
    known = rows([0, 1, 0, 2], torch.eye(6)[:4].tolist())
    payload = {"fedpcl.prototypes": known, "fedpcl.sets": torch.tensor([0, 0, 1, 1])}
    plugins = {"cross_entropy": {}, "fedpcl": {"weight": 0.5, "temperature": 0.2}}
    ctx, output, result = one_step(plugins, payload=payload, round=2)
    parts = rows([0, 1], torch.eye(6)[:2].tolist()), rows([0, 2], torch.eye(6)[2:4].tolist())
    losses = [prototype_contrast(output.features, ctx.data.labels, one, 0.2) for one in parts]
    assert result.metrics["loss.fedpcl"] == pytest.approx(0.5 * float(sum(losses)), rel=1e-5)


def test_fedpcl_runs_without_cross_entropy(run_tiny):
    run = run_tiny("fedpcl", rounds=2, without=("cross_entropy",))
    assert run.history[0].metrics["loss.fedpcl"] == 0, "nobody has uploaded yet"
    assert run.history[1].metrics["loss.fedpcl"] != 0


# --- FedProc -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("horizon", "alpha"), [(None, 1 / 4), (2, 1 / 2), (1, 1.0)])
def test_fedprocs_mixture_by_hand(horizon, alpha):
    known = rows([0, 2], torch.eye(6)[:2].tolist())
    plugins = {"fedproc": {"horizon": horizon, "temperature": 0.5}}
    payload = {"fedproc.prototypes": known}
    ctx, output, result = one_step(plugins, payload=payload, round=2, rounds=4)
    entropy = F.cross_entropy(output.logits, ctx.data.labels)
    contrast = proc_contrast(output.features, ctx.data.labels, known, 0.5)
    expected = float(alpha * entropy + (1 - alpha) * contrast)
    assert result.metrics == {"loss.fedproc": pytest.approx(expected, rel=1e-5)}


def test_fedproc_begins_with_cross_entropy(run_tiny):
    one, other = run_tiny("fedproc", rounds=1), run_tiny("fedavg", rounds=1)
    assert digest(one) == digest(other)


def test_fedprocs_prototypes_are_means_over_examples_and_absent_classes_keep_theirs():
    state = testing.server_state(
        entries={"fedproc.prototypes": rows([0, 2], [[9.0], [7.0]], [1, 8])}, round=1
    )
    given = rows([0], [[1.0]], [3]), rows([0, 1], [[5.0], [2.0]], [1, 6])
    found = FedProc().server_update(state=state, reports=reports("fedproc.prototypes", *given))
    kept = found.entries["fedproc.prototypes"]
    assert kept.labels.tolist() == [0, 1, 2]
    assert kept.values.flatten().tolist() == [2.0, 2.0, 7.0]
    assert kept.counts.tolist() == [4, 6, 8]


# --- FedPLVM -------------------------------------------------------------------------------------


def test_fedplvms_server_clusters_all_rows_of_a_class():
    """Two pairs of directions of class 0 remain two; a single row of class 1 remains."""
    given = (
        rows([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [2, 3, 4]),
        rows([0, 0], [[1.0, 0.1], [0.1, 1.0]], [5, 6]),
    )
    found = FedPLVM().server_update(reports=reports("fedplvm.prototypes", *given))
    kept = found.entries["fedplvm.prototypes"]
    assert kept.labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(kept.values[:2], torch.tensor([[1.0, 0.05], [0.05, 1.0]]))
    assert kept.counts.tolist() == [7, 9, 4]
    assert found.metrics == {"fedplvm.clusters": 3.0}


def test_fedplvms_term_by_hand():
    known = rows([0, 0, 2], torch.eye(6)[:3].tolist())
    plugins = {"cross_entropy": {}, "fedplvm": {"weight": 3.0}}
    ctx, output, result = one_step(plugins, payload={"fedplvm.prototypes": known}, round=2)
    given = output.features, ctx.data.labels, known
    expected = 3 * float(sparsity_loss(*given, 0.07, 0.25) + correction_loss(*given))
    assert result.metrics["loss.fedplvm"] == pytest.approx(expected, rel=1e-5)


# --- FedNH ---------------------------------------------------------------------------------------


def test_fednhs_classifier_is_fixed_in_training_and_its_loss_is_of_cosines():
    w = torch.eye(3, 6)
    ctx, output, result = one_step({"fednh": {"scale": 5.0}}, payload={"fednh.prototypes": w})
    expected = F.cross_entropy(cosine_logits(output.features, w, 5.0), ctx.data.labels)
    assert result.metrics == {"loss.fednh": pytest.approx(float(expected), rel=1e-5)}
    before = testing.client_context().model.classifier
    assert torch.equal(ctx.model.classifier.weight, before.weight)


def test_fednhs_server_by_hand():
    """Class 0: (3 * east + 1 * north) / 4, normalised; class 1 has nobody and keeps its row."""
    entries = {"fednh.prototypes": torch.eye(2)}
    weights = {"classifier.weight": torch.zeros(2, 2), "classifier.bias": torch.ones(2)}
    state = testing.server_state(entries=entries, weights=weights)
    given = rows([0], [[1.0, 0.0]], [3]), rows([0], [[0.0, 1.0]], [1])
    found = FedNH(smoothing=0.5).server_update(
        state=state, reports=reports("fednh.directions", *given)
    )
    mean = torch.tensor([3.0, 1.0]) / 10**0.5
    expected = F.normalize(0.5 * torch.tensor([1.0, 0.0]) + 0.5 * mean, dim=0)
    torch.testing.assert_close(found.entries["fednh.prototypes"][0], expected)
    assert found.entries["fednh.prototypes"][1].tolist() == [0, 1]
    assert torch.equal(found.weights["classifier.weight"], found.entries["fednh.prototypes"])
    assert found.weights["classifier.bias"].tolist() == [0, 0]


def test_fednhs_two_rules_predict_the_same(run_tiny):
    run = run_tiny("fednh", rounds=3)
    for result in run.history:
        rules = [result.scores[rule]["accuracy"] for rule in ("classifier", "cosine")]
        assert rules[0] == rules[1]


def test_fednh_averages_plainly(registry):
    plugins = registry.get("recipe", "fednh").value.plugins
    assert plugins["mean"] == {"weights": "uniform"}
    assert "cross_entropy" not in plugins


# --- FedGH ---------------------------------------------------------------------------------------


def test_fedghs_head_is_trained_on_the_class_means():
    given = rows([0], [[1.0] * 6]), rows([0, 2], [[2.0] * 6, [-1.0] * 6])
    plugin = FedGH(server_epochs=3, server_batch_size=2, server_lr=0.5)
    state, ctx = testing.server_state(), testing.server_context()
    found = plugin.server_update(ctx=ctx, state=state, reports=reports("fedgh.means", *given))
    weight, bias = train_head(
        *state.classifier, PerClass.concat(given), 3, 2, 0.5, ctx.rng("fedgh")
    )
    assert torch.equal(found.weights["classifier.weight"], weight)
    assert torch.equal(found.weights["classifier.bias"], bias)


def test_fedghs_clients_share_the_head_and_nothing_else(registry, tiny_config, tmp_path):
    settings = tiny_config(registry, "fedgh", rounds=2)
    run = Run(settings, tmp_path / "r", registry=registry, keep_personal=True)
    run.run()
    changed = {
        n for n, w in run.runtime.initial.items() if not torch.equal(run.state.weights[n], w)
    }
    assert changed == {"classifier.weight", "classifier.bias"}
    models = [load_file(path) for path in sorted((tmp_path / "r" / "personal").iterdir())]
    assert len(models) == 4
    head = run.state.weights["classifier.weight"]
    assert all(torch.equal(model["classifier.weight"], head) for model in models)
    bodies = {tuple(model["hidden.weight"].flatten().tolist()) for model in models}
    assert len(bodies) == 4


def test_fedghs_turn_starts_with_the_received_head():
    head = {"weight": torch.ones(3, 6), "bias": torch.arange(3.0)}
    ctx = testing.client_context(plugins={"fedgh": {}}, payload={"fedgh.head": head})
    FedGH().personalize(ctx=ctx)
    assert torch.equal(ctx.model.classifier.weight, head["weight"])
    assert torch.equal(ctx.model.classifier.bias, head["bias"])
