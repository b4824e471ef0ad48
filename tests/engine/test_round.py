"""One round: worked out by hand, counted in bytes, aggregated, and taken one by one."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.config.resolve import Document, resolve
from fedbench.engine.run import Run
from fedbench.errors import FedbenchError
from fedbench.hookspecs import hookimpl
from fedbench.plugins.registry import Registry
from fedbench.types import Dataset, Examples, PerClass, RoundResult, ServerUpdate

# --- a round by hand: two clients, three weights -------------------------------------------------


@dataclass(frozen=True, eq=False)
class Points:
    """Four points in the plane: one in the first domain, three in the second; one class."""

    def load(self, root: object) -> Dataset:
        inputs = torch.tensor([[1.0, 2.0], [4.0, 0.0], [5.0, 1.0], [3.0, -1.0]])
        labels, domains = torch.zeros(4).long(), torch.tensor([0, 1, 1, 1])
        examples = Examples(inputs, labels, domains)
        return Dataset(("only",), ("left", "right"), examples, examples)


class PlaneModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(2, 1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane over the points: weights (a, b) and bias c, zero at the start."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return PlaneModule()


@dataclass(frozen=True, eq=False)
class Height:
    """The mean of ``a x + b y + c``; its gradient is (mean x, mean y, 1), whatever the weights."""

    @hookimpl
    def local_loss(self, output):
        return {"height": output.logits.mean()}


def plane_run(registry: Registry, rounds: int = 1, **sgd: Any) -> Run:
    module = types.SimpleNamespace(
        register_datasets=hookimpl(lambda: {"points": Points}),
        register_models=hookimpl(lambda: {"plane": Plane}),
        register_plugins=hookimpl(lambda: {"height": Height}),
    )
    registry.add(module, "tests")
    plugins = {
        "domains": {"clients_per_domain": 1},
        "uniform": {},
        "sgd": {"lr": 0.1, "momentum": 0, "weight_decay": 0, "epochs": 1, "batch_size": 9, **sgd},
        "exchange": {},
        "mean": {},
        "height": {},
    }
    data = {
        "data": "points",
        "model": "plane",
        "rounds": rounds,
        "executor": "inline",
        "plugins": plugins,
    }
    run = Run(resolve(registry, file=Document(data, "test")), registry=registry)
    run.run()
    return run


def weights(run: Run) -> list[float]:
    weight, bias = run.state.classifier
    return [*weight.flatten().tolist(), *bias.tolist()]


def test_a_round_of_fedavg_by_hand(registry):
    run = plane_run(registry)
    # Client 0 holds (1, 2): its weights become -0.1 (1, 2, 1).
    # Client 1 holds three points with mean (4, 0): its weights become -0.1 (4, 0, 1).
    # The average by examples: -0.1 (1 (1, 2, 1) + 3 (4, 0, 1)) / 4 = -0.1 (3.25, 0.5, 1).
    assert weights(run) == pytest.approx([-0.325, -0.05, -0.1])
    # The loss was 0 at every client, since all weights were.
    assert run.history[0].metrics == {"loss.height": 0.0}
    assert run.history[0].clients == [0, 1]


def test_a_second_round_starts_from_the_average(registry):
    run = plane_run(registry, rounds=2)
    assert weights(run) == pytest.approx([-0.65, -0.1, -0.2])
    # Round 2 begins at -0.1 (3.25, 0.5, 1): the height is -(0.325 + 0.1 + 0.1) = -0.525 at
    # (1, 2), and -(0.325 x 4 + 0.1) = -1.4 on average at client 1. By examples: -1.18125.
    assert run.history[1].metrics["loss.height"] == pytest.approx(-1.18125)


def test_one_step_an_example_when_the_batch_is_one(registry):
    # Client 1 now takes three steps, whose points add up to (12, 0, 3):
    # -0.1 (1 (1, 2, 1) + 3 (12, 0, 3)) / 4
    run = plane_run(registry, batch_size=1)
    assert weights(run) == pytest.approx([-0.925, -0.05, -0.25])


# --- bytes ---------------------------------------------------------------------------------------

# hidden 64 x 6 + 6, batch norm 4 x 6, classifier 6 x 3 + 3, all float32; one int64 counter
MODEL_BYTES = (64 * 6 + 6 + 4 * 6 + 6 * 3 + 3) * 4 + 8


@dataclass(frozen=True, eq=False)
class Extra:
    @hookimpl
    def broadcast(self, ctx):
        return {"prototypes": torch.zeros(3, 6)} if ctx.round > 1 else {}

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        trained = yield
        output, labels = ctx.embed()
        ctx.upload("means", PerClass.means(output.features, labels))
        ctx.state["kept"] = torch.zeros(1000)
        return trained


@pytest.mark.parametrize(("fraction", "clients"), [(1.0, 4), (0.5, 2)])
def test_bytes_are_counted_per_key_for_all_clients(add, run_tiny, fraction, clients):
    add(extra=Extra)
    run = run_tiny(extra={"uniform": {"fraction": fraction}, "extra": {}})
    first, second = run.history
    means = 3 * 8 + 3 * 6 * 4 + 3 * 8  # labels, values, counts of three classes
    up = {"weights": clients * MODEL_BYTES, "means": clients * means}
    assert first.bytes_up == second.bytes_up == up
    assert first.bytes_down == {"weights": clients * MODEL_BYTES}
    prototypes = clients * 3 * 6 * 4
    assert second.bytes_down == {"weights": clients * MODEL_BYTES, "prototypes": prototypes}
    # the result gives means per round; what a client keeps does not travel
    assert run.result()["bytes"] == {
        "up": up,
        "down": {"weights": clients * MODEL_BYTES, "prototypes": prototypes / 2},
    }


# --- aggregation ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class KeepsWeights:
    """An aggregator that reads no result at all."""

    @hookimpl
    def aggregate(self, state):
        return state.weights


@dataclass(frozen=True, eq=False)
class ReadsOne:
    """An aggregator that stops after the first result."""

    @hookimpl
    def aggregate(self, results: Iterator[Any]):
        return next(results).uploads.weights()


@dataclass(frozen=True, eq=False)
class SendsWeights:
    @hookimpl
    def broadcast(self, state):
        return {"weights": state.weights}

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        trained = yield
        ctx.upload("weights", ctx.model.state_dict())
        return trained


REPORTS: list[list[int]] = []


@dataclass(frozen=True, eq=False)
class CountsReports:
    @hookimpl
    def server_update(self, reports):
        REPORTS.append([r.client for r in reports])
        assert all("weights" not in r.uploads for r in reports)
        return ServerUpdate()


@pytest.mark.parametrize("aggregator", [KeepsWeights, ReadsOne])
def test_all_clients_train_even_if_the_aggregator_does_not_look(add, run_tiny, aggregator):
    REPORTS.clear()
    add(lazy=aggregator, sends=SendsWeights, counts=CountsReports)
    extra = {"sends": {}, "lazy": {}, "counts": {}}
    run = run_tiny(rounds=1, extra=extra, without=["exchange", "mean"])
    assert REPORTS == [[0, 1, 2, 3]]
    assert run.result()["bytes"]["up"] == {"weights": 4 * MODEL_BYTES}
    unchanged = torch.equal(
        run.state.weights["classifier.weight"], run.runtime.initial["classifier.weight"]
    )
    assert unchanged == (aggregator is KeepsWeights)


# --- the generator -------------------------------------------------------------------------------


def test_rounds_can_be_taken_one_by_one(registry, tiny_config):
    run = Run(tiny_config(registry, rounds=3), registry=registry)
    rounds = run.rounds()
    first = next(rounds)
    assert isinstance(first, RoundResult)
    assert (first.round, first.clients) == (1, [0, 1, 2, 3])
    assert set(first.scores["classifier"]) == {"accuracy", "loss", "class_accuracy"}
    assert set(first.scores["classifier"]["accuracy"].domains) == {"ink", "chalk"}
    assert len(first.scores["classifier"]["class_accuracy"].domains["ink"]) == 3
    assert first.metrics["loss.cross_entropy"] > 0
    assert first.seconds > 0
    # a notebook may look at the result so far and stop here
    assert run.result()["rounds"] == 1
    rounds.close()
    assert [r.round for r in run.history] == [1]


def test_progress_is_told_after_each_client(registry, tiny_config):
    seen: list[tuple[int, int, int]] = []
    config = tiny_config(registry, rounds=2, extra={"uniform": {"fraction": 0.5}})
    Run(config, registry=registry, progress=lambda *args: seen.append(args)).run()
    assert seen == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]


def test_loss_terms_are_reported_as_means_over_examples(add, run_tiny):
    run = run_tiny(rounds=1, extra={"cross_entropy": {"weight": 2.0}, "sgd": {"lr": 1e-9}})
    loss = run.history[0].metrics["loss.cross_entropy"]
    model, data = run.runtime.model, run.runtime.data.train
    model.load_state_dict(dict(run.runtime.initial))
    model.train()
    total = 0.0
    for client, part in enumerate(run.runtime.parts):
        order = run.runtime.streams.numpy("batches", 1, client).permutation(len(part))
        for start in range(0, len(part), 8):
            chosen = part[torch.from_numpy(order[start : start + 8])]
            x = (data.inputs[chosen].float() / 255 - 0.5) / 0.5
            logits = model.classifier(model.features(x))
            total += 2 * float(
                F.cross_entropy(logits, data.labels[chosen], reduction="sum").detach()
            )
    assert loss == pytest.approx(total / len(data), rel=1e-4)


# --- the result ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [Run.accuracy, Run.result])
def test_before_the_first_round_there_is_no_result(registry, tiny_config, tmp_path, ask):
    run = Run(tiny_config(registry), tmp_path / "r", registry=registry)
    with pytest.raises(FedbenchError, match=r"^no round has been run yet; call Run\.run\(\)"):
        ask(run)
    with pytest.raises(FedbenchError, match="no round has been run yet"):
        ask(Run.resume(tmp_path / "r", registry=registry))


def test_a_resumed_run_knows_its_accuracy_before_it_continues(registry, tiny_config, tmp_path):
    run = Run(tiny_config(registry, rounds=3), tmp_path / "r", registry=registry)
    rounds = run.rounds()
    next(rounds), next(rounds)
    rounds.close()
    resumed = Run.resume(tmp_path / "r", registry=registry)
    assert resumed.accuracy() == run.accuracy()
    assert resumed.result() == run.result()


def test_the_result_has_what_result_json_promises(run_tiny):
    run = run_tiny(rounds=2, seed=3)
    result = run.result()
    assert result["method"] == "fedavg"
    assert (result["data"], result["model"]) == ("tiny", "tiny_model")
    assert (result["seed"], result["rounds"]) == (3, 2)
    accuracy = result["accuracy"]
    assert list(accuracy["domains"]) == ["ink", "chalk"]
    values = list(accuracy["domains"].values())
    assert all(0 <= v <= 1 for v in values)
    assert accuracy["mean"] == pytest.approx(sum(values) / 2)
    assert accuracy["worst"] == min(values)
    assert accuracy["std"] == pytest.approx(abs(values[0] - values[1]) / 2)
    assert accuracy["rule"] == "mean of the last 2 rounds"
    assert set(result["bytes"]) == {"up", "down"}
    assert result["seconds"] == pytest.approx(sum(r.seconds for r in run.history))
    for key in ("weights_sha256", "metrics_sha256", "config_hash"):
        assert len(result[key]) == 64
    assert set(result["versions"]) >= {"python", "torch", "numpy", "fedbench-toolkit"}
    assert result["changes"] == []
    assert result["card"] == {}
