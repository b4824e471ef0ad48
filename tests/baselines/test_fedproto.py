"""FedProto in real rounds: what is uploaded, both inference rules, personal models."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from fedbench_baselines.fedproto import FedProto, Personal, nearest

from fedbench import Output, PerClass, PluginError, Run, ServerUpdate, hookimpl, testing
from fedbench.config import resolve as config
from fedbench.config.yamlfile import Document
from fedbench.engine.evaluation import classifier_rule
from fedbench.pipeline import Pipeline
from fedbench.store.client_states import ClientStates
from fedbench.types import Batch, forward

KEY = "fedproto.prototypes"


@dataclass(frozen=True, eq=False)
class Eyes:
    """Record every batch's features and labels, and every client's uploads."""

    seen = []  # noqa: RUF012
    sent = []  # noqa: RUF012

    @hookimpl
    def local_loss(self, ctx, batch, output):
        self.seen.append((ctx.round, ctx.client, batch, output.features.detach()))
        return {}

    @hookimpl
    def server_update(self, ctx, reports):
        self.sent.extend((ctx.round, report) for report in reports)
        return ServerUpdate()


@pytest.fixture
def eyes(add):
    Eyes.seen.clear()
    Eyes.sent.clear()
    add(eyes=Eyes)
    return Eyes


@dataclass(frozen=True, eq=False)
class OneClassEach:
    """Client 0 holds only class 0, client 1 only class 1; no client holds class 2."""

    @hookimpl
    def partition(self, data):
        return [(data.train.labels == c).nonzero().flatten() for c in (0, 1)]


def with_one_class_each(registry, tiny_config, add, method, **given):
    add(one_class=OneClassEach)
    data = tiny_config(registry, method, **given).to_dict()
    del data["plugins"]["domains"]
    data["plugins"]["one_class"] = {}
    return Run(config.resolve(registry, file=Document(data, "test")), registry=registry)


@pytest.mark.parametrize("method", ["fedproto", "fpl"])
def test_uploads_are_the_class_means_of_the_last_epochs_training_features(method, run_tiny, eyes):
    run_tiny(method, rounds=2, extra={"sgd": {"epochs": 3, "batch_size": 7}, "eyes": {}})
    assert len(eyes.sent) == 8
    for number, report in eyes.sent:
        rows = {}
        for at, client, batch, features in eyes.seen:
            if (at, client, batch.epoch) == (number, report.client, 2):
                for z, y in zip(features, batch.labels.tolist(), strict=True):
                    rows.setdefault(y, []).append(z)
        found = report.uploads.per_class(f"{method}.prototypes")
        assert found.labels.tolist() == sorted(rows)
        assert found.counts.tolist() == [len(rows[y]) for y in sorted(rows)]
        expected = torch.stack([sum(rows[y]) / len(rows[y]) for y in sorted(rows)])
        torch.testing.assert_close(found.values, expected)


@pytest.mark.parametrize("average", ["plain", "by_count"])
def test_a_round_recomputed_by_loops(average, registry, tiny_config, eyes):
    """Recompute round 1's prototypes from its uploads, and round 2's term from the prototypes."""
    extra = {
        "sgd": {"epochs": 1, "batch_size": 1000},
        "fedproto": {"mu": 2.0, "average": average},
        "domains": {"clients_per_domain": 2, "examples": 17},
        "eyes": {},
    }
    run = Run(tiny_config(registry, "fedproto", rounds=2, extra=extra), registry=registry)
    for result in run.rounds():
        if result.round == 1:
            assert "loss.fedproto" not in result.metrics
            first = run.state.entries.per_class(KEY)
    table = {}
    for y in range(3):
        sums, total = torch.zeros(6), 0.0
        for number, report in eyes.sent:
            upload = report.uploads.per_class(KEY)
            if number == 1 and y in upload.labels.tolist():
                at = upload.labels.tolist().index(y)
                n = float(upload.counts[at]) if average == "by_count" else 1.0
                sums, total = sums + n * upload.values[at], total + n
        table[y] = sums / total
    assert first.labels.tolist() == [0, 1, 2]
    torch.testing.assert_close(first.values, torch.stack([table[y] for y in range(3)]))
    term, examples = 0.0, 0
    for number, _, batch, features in eyes.seen:
        if number == 2:
            for z, y in zip(features, batch.labels.tolist(), strict=True):
                term += 2.0 * float((z - table[y]).square().mean())
                examples += 1
    assert result.metrics["loss.fedproto"] == pytest.approx(term / examples, rel=1e-5)


@pytest.mark.parametrize("method", ["fedproto", "fpl"])
def test_a_client_with_none_of_the_known_classes(method, registry, tiny_config, add):
    """One client per round, each with one class: after a change of client, it is unknown."""
    run = with_one_class_each(
        registry, tiny_config, add, method, rounds=8, extra={"uniform": {"fraction": 0.5}}
    )
    run.run()
    changes = 0
    for before, after in itertools.pairwise(run.history):
        term = after.metrics[f"loss.{method}"]
        assert (term == 0) == (before.clients != after.clients)
        changes += before.clients != after.clients
    assert 0 < changes < 7, "both cases must occur"
    labels = run.state.entries.per_class(f"{method}.prototypes").labels
    assert labels.tolist() == list(run.history[-1].clients)


def test_both_rules_are_written_by_name(registry, tiny_config, tmp_path):
    rule = {"inference": "nearest_prototype", "rule": "last"}
    settings = tiny_config(registry, "fedproto", accuracy=rule)
    Run(settings, tmp_path / "r", registry=registry).run()
    lines = (tmp_path / "r" / "rounds.jsonl").read_text().splitlines()
    rounds = [json.loads(line) for line in lines]
    assert [sorted(r["scores"]) for r in rounds] == [["classifier", "nearest_prototype"]] * 2
    accuracy = json.loads((tmp_path / "r" / "result.json").read_text())["accuracy"]
    assert accuracy["inference"] == "nearest_prototype"
    assert accuracy["mean"] == rounds[-1]["scores"]["nearest_prototype"]["accuracy"]["mean"]


# --- nearest prototype ---------------------------------------------------------------------------


def test_nearest_prototype_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=generator)
    values = torch.randn(30, 5, generator=generator)
    labels = torch.randperm(33, generator=generator)[:30]
    scores = nearest(PerClass(labels, values, labels), 33)(Output(features, features))
    for z, row in zip(features, scores, strict=True):
        for y, p in zip(labels, values, strict=True):
            assert float(row[y]) == pytest.approx(-float((z - p).square().sum()), rel=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e9])
def test_classes_without_a_prototype_are_never_chosen_and_finite(scale):
    prototypes = PerClass(torch.tensor([1, 2]), torch.ones(2, 4), torch.tensor([1, 1]))
    z = scale * torch.arange(8.0).reshape(2, 4)
    scores = nearest(prototypes, 4)(Output(z, z))
    assert torch.isfinite(scores).all()
    assert (scores[:, [0, 3]].amax(1) < scores[:, [1, 2]].amin(1)).all()


def test_without_any_prototype_there_is_no_such_rule():
    state = testing.server_state()
    assert FedProto().inference(ctx=testing.server_context(), state=state) == {}
    assert FedProto().broadcast(state=state) == {}


def test_a_trainer_without_a_last_epoch_is_told(registry, tiny_config, add):
    @dataclass(frozen=True, eq=False)
    class Endless:
        @hookimpl
        def train(self, ctx, work):
            batch = next(work.batches(8, 1))
            work.backward(Batch(batch.inputs, batch.labels, 0, 10))
            return True

    add(endless=Endless)
    settings = tiny_config(registry, "fedproto", without=("sgd",), extra={"endless": {}})
    with pytest.raises(PluginError) as caught:
        Run(settings, registry=registry).run()
    assert str(caught.value) == (
        "no features for 'fedproto.prototypes' in round 1, client 0: prototypes are computed from "
        "the batches of the last epoch, but ctx.loss received none with "
        "batch.epoch == batch.epochs - 1"
    )


# --- personal models -----------------------------------------------------------------------------


def test_a_client_goes_on_from_its_own_model(registry, tiny_config, add):
    """However many rounds it missed; its first turn starts from the run's initial weights."""
    starts = []

    @dataclass(frozen=True, eq=False)
    class Start:
        @hookimpl(wrapper=True)
        def client_update(self, ctx):
            starts.append((ctx.client, copy.deepcopy(ctx.model.state_dict())))
            return (yield)

    add(start=Start)
    extra = {"uniform": {"fraction": 0.25}, "start": {}}
    settings = tiny_config(registry, "fedproto-aaai", rounds=6, extra=extra)
    run = Run(settings, registry=registry)
    own = {}
    for result in run.rounds():
        (client,) = result.clients
        expected = own.get(client, run.runtime.initial)
        assert starts[-1][0] == client
        assert all(torch.equal(starts[-1][1][name], expected[name]) for name in expected)
        own[client] = copy.deepcopy(run._clients[client]["personal.weights"])
    assert len(own) < 6, "some client must have a second turn"


@pytest.mark.parametrize("limit", [256_000_000, 0], ids=["in memory", "on disk"])
def test_a_domains_score_is_the_mean_over_its_clients_models(limit, registry, tiny_config):
    """Test each client's model at the end of the round alone."""
    settings = tiny_config(registry, "fedproto-aaai", rounds=2)
    run = Run(settings, registry=registry)
    run._clients = ClientStates(limit=limit)
    for result in run.rounds():
        runtime = run.runtime
        prototypes = run.state.entries.per_class(KEY)
        rules = {"classifier": classifier_rule, "nearest_prototype": nearest(prototypes, 3)}
        pipeline = Pipeline(runtime.plugins, runtime.device, lambda name: torch.Generator())
        for number, domain in enumerate(runtime.data.domains):
            test = runtime.data.test[runtime.data.test.domains == number]
            shares = {rule: [] for rule in rules}
            for client in runtime.clients_of(number):
                runtime.model.load_state_dict(run._clients[client]["personal.weights"])
                runtime.model.eval()
                with torch.no_grad():
                    output = forward(runtime.model, pipeline(test.inputs, False))
                for rule, scores in rules.items():
                    right = scores(output).argmax(1) == test.labels
                    shares[rule].append(float(right.float().mean()))
            for rule, each in shares.items():
                assert len(each) == 2
                found = result.scores[rule]["accuracy"].domains[domain]
                assert found == pytest.approx(sum(each) / 2)


def test_a_client_is_scored_with_the_model_that_it_kept():
    """One that has had no turn is scored with what it was sent, the run's initial weights."""
    kept = {"personal.weights": {"weight": torch.tensor([[3.0]])}}
    for state, expected in ((kept, 3.0), ({}, 1.0)):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        Personal().personalize(SimpleNamespace(model=model, state=state))
        assert model.weight.item() == expected
