"""Stand-ins, used as a method's author would use them, equal what a run passes to a hook."""

from __future__ import annotations

import doctest
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fedbench_baselines.fedavg import Mean
from fedbench_baselines.sgd import CrossEntropy
from torch import Tensor, nn

from fedbench import (
    ClientContext,
    Output,
    PerClass,
    Report,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
    testing,
)
from fedbench.errors import ConfigError, NonFiniteError, PluginError
from fedbench.random import Streams
from fedbench.runtime import Runtime
from fedbench.testing import standins
from fedbench.types import Batch, ClientJob, ClientResult, Examples, sha256


@dataclass(frozen=True, eq=False)
class Near:
    """FedProx's term: ``mu/2 * ||w - w_received||^2``."""

    mu: float = 1.0

    @hookimpl
    def local_loss(self, ctx: ClientContext) -> Mapping[str, Tensor]:
        received = ctx.payload.weights()
        squares = [(w - received[n]).square().sum() for n, w in ctx.model.named_parameters()]
        return {"near": self.mu / 2 * torch.stack(squares).sum()}


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Upload each class's mean feature, remember it, and report how far it moved."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        output, labels = ctx.embed()
        means = PerClass.means(output.features, labels)
        if "prototypes" in ctx.state:
            ctx.metric("moved", (means.values - ctx.state["prototypes"].values).norm())
        ctx.state["prototypes"] = means
        ctx.upload("prototypes", means)
        return trained

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> ServerUpdate:
        rows = [report.uploads.per_class("prototypes") for report in reports]
        share = len(reports) / ctx.num_clients
        before = state.entries.get("prototypes")
        rows += [before] if before else []
        entries = {"prototypes": PerClass.concat(rows).average(by_count=True)}
        return ServerUpdate(entries=entries, metrics={"share": share})


OFFERED = {
    name
    for name, value in vars(standins).items()
    if getattr(value, "__module__", "") == standins.__name__ and not name.startswith("_")
}


def test_every_stand_in_is_exported_and_has_an_example_that_holds() -> None:
    assert all(getattr(testing, name) is vars(standins)[name] for name in OFFERED)
    assert set(testing.__all__) >= OFFERED
    tests = {t.name.split(".")[-1]: t for t in doctest.DocTestFinder().find(standins)}
    assert {name for name, test in tests.items() if test.examples} == OFFERED
    assert doctest.testmod(standins).failed == 0


def test_the_page_lists_every_stand_in() -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    section = page.partition("\n## Stand-ins for unit tests\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)\(", section)) == OFFERED


# --- a client's turn -----------------------------------------------------------------------------


def test_a_term_by_hand() -> None:
    ctx = testing.client_context(payload={"weights": testing.server_state().weights})
    assert Near().local_loss(ctx)["near"].item() == 0
    with torch.no_grad():
        ctx.model.classifier.bias += torch.tensor([1.0, 2.0, 3.0])
    term = Near(mu=0.5).local_loss(ctx)["near"]
    assert term.item() == pytest.approx(0.5 / 2 * (1 + 4 + 9))
    term.backward()
    torch.testing.assert_close(ctx.model.classifier.bias.grad, torch.tensor([0.5, 1.0, 1.5]))


def test_the_loss_is_the_sum_of_the_plugins_terms() -> None:
    payload = {"weights": {n: w + 1 for n, w in testing.server_state().weights.items()}}
    plugins = {"cross_entropy": CrossEntropy(weight=2.0), "near": Near()}
    ctx = testing.client_context(plugins=plugins, payload=payload)
    with torch.no_grad():
        ctx.model.classifier.bias += 1
    batch = testing.batch(ctx)
    logits = testing.output(ctx, batch).logits
    expected = 2 * nn.functional.cross_entropy(logits, batch.labels) + 3 / 2
    torch.testing.assert_close(ctx.loss(batch), expected)
    result = ctx.result(0.0)
    assert result.metrics["loss.near"] == pytest.approx(3 / 2)


def test_batch_and_output_are_the_turns_first() -> None:
    ctx = testing.client_context()
    batch, first = testing.batch(ctx), next(ctx.batches(8, 1))
    assert torch.equal(batch.inputs, first.inputs)
    assert torch.equal(batch.labels, first.labels)
    assert batch.inputs.dtype == torch.float32
    assert 0 <= batch.inputs.min() < batch.inputs.max() <= 1
    output = testing.output()
    assert torch.equal(output.logits, testing.output(ctx, batch).logits)
    assert torch.equal(output.logits, ctx.model.classifier(output.features))
    output.logits.sum().backward()


def test_the_client_holds_eight_examples_of_each_class_of_one_domain() -> None:
    data = testing.client_context().data
    assert data.labels.bincount().tolist() == [8, 8, 8]
    assert data.domains.unique().tolist() == [0]


def test_uploads_metrics_and_streams_are_those_of_a_run() -> None:
    ctx = testing.client_context(round=2, client=5, seed=7)
    live = torch.ones(2, requires_grad=True) * 2
    ctx.upload("mine", live)
    assert not ctx.uploads["mine"].requires_grad
    with pytest.raises(PluginError, match=r"^two plugins upload 'mine' in round 2, client 5$"):
        ctx.upload("mine", live)
    with pytest.raises(NonFiniteError, match=r"^metric 'gap' is nan in round 2, client 5$"):
        ctx.metric("gap", torch.nan)
    expected = torch.rand(3, generator=Streams(7).torch("mine", 2, 5))
    assert torch.equal(torch.rand(3, generator=ctx.rng("mine")), expected)


def test_what_the_server_sent_is_a_copy_and_a_missing_key_is_named() -> None:
    anchor = torch.zeros(2)
    ctx = testing.client_context(payload={"mine.anchor": anchor})
    ctx.payload.tensor("mine.anchor").add_(1)
    assert anchor.tolist() == [0, 0]
    text = "no 'mine.ankor' in the broadcast (did you mean 'mine.anchor'?)"
    with pytest.raises(PluginError, match=f"^{re.escape(text)}$"):
        ctx.payload["mine.ankor"]


def test_a_wrapper_by_hand_and_in_its_turn() -> None:
    """Without any training inside it, and around the kit's training."""
    ctx = testing.client_context()
    steps = Prototypes().client_update(ctx)
    next(steps)
    with pytest.raises(StopIteration, match="done"):
        steps.send("done")
    features = ctx.embed()[0].features
    sent = ctx.uploads["prototypes"]
    assert sent.labels.tolist() == [0, 1, 2]
    torch.testing.assert_close(sent.values[1], features[ctx.data.labels == 1].mean(0))

    ctx = testing.client_context(plugins={"prototypes": Prototypes()})
    result = testing.run_turn(ctx)
    assert set(result.uploads) == {"prototypes"}
    trained = result.uploads.per_class("prototypes").values
    assert not torch.equal(trained, sent.values)
    features = ctx.embed()[0].features
    torch.testing.assert_close(trained[1], features[ctx.data.labels == 1].mean(0))


def test_what_a_client_keeps_begins_its_next_turn() -> None:
    plugins = {"prototypes": Prototypes()}
    first = testing.run_turn(testing.client_context(plugins=plugins))
    assert "moved" not in first.metrics
    ctx = testing.client_context(plugins=plugins, state=first.state, round=2)
    second = testing.run_turn(ctx)
    gap = second.state["prototypes"].values - first.state["prototypes"].values
    assert second.metrics["moved"] == pytest.approx(float(gap.norm()))
    assert second.metrics["moved"] > 0


def test_plain_sgd_trains_when_no_plugin_does() -> None:
    """With a single batch, the turn is one gradient step."""
    few = testing.tiny_dataset().train[torch.arange(6)]
    ctx, same = testing.client_context(data=few), testing.client_context(data=few)
    same.loss(testing.batch(same)).backward()
    result = testing.run_turn(ctx)
    assert result.examples == 6
    for before, after in zip(same.model.parameters(), ctx.model.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.05 * before.grad)


@pytest.mark.parametrize("method", ["fedavg", "moon", "fedproto"])
def test_a_turn_has_the_bits_of_a_run(registry, tiny_config, method: str) -> None:
    """A config with the same plugins, data, payload, round, client and seed gives the same bits."""
    config = tiny_config(registry, method, rounds=4, seed=5)
    runtime = Runtime(config, registry, Path())
    payload = {"weights": runtime.initial}
    expected = runtime.run_client(ClientJob(3, 1, {}), payload)
    assert isinstance(expected, ClientResult)
    ctx = testing.client_context(
        plugins=config.plugins,
        payload=payload,
        data=runtime.client_data(1),
        round=3,
        rounds=4,
        client=1,
        seed=5,
    )
    result = testing.run_turn(ctx)
    assert result.digests == expected.digests != {}
    assert result.metrics == expected.metrics
    assert sha256(result.state) == sha256(expected.state)


def test_a_model_and_data_of_ones_own() -> None:
    model = nn.Linear(1, 1, bias=False)
    data = Examples(torch.ones(2, 1), torch.tensor([0, 4]), torch.zeros(2).long())
    ctx = testing.client_context(
        model=model, data=data, payload={"weights": {"weight": torch.tensor([[3.0]])}}
    )
    assert ctx.model is model
    assert model.weight.item() == 3
    assert len(ctx.data) == 2
    other = testing.client_context(data=data, num_classes=5)
    assert other.embed()[0].logits.shape == (2, 5)


# --- plugins -------------------------------------------------------------------------------------


def test_an_installed_plugin_is_named_with_its_options() -> None:
    plugins = {"sgd": {"epochs": 2, "weight_decay": 0}, "exchange": {}, "near": Near()}
    payload = {"weights": testing.server_state().weights}
    result = testing.run_turn(testing.client_context(plugins=plugins, payload=payload))
    assert set(result.uploads) == {"weights"}
    assert result.metrics["loss.near"] == 0, "without another term it never moves"


@dataclass(frozen=True, eq=False)
class Trainer:
    @hookimpl
    def train(self, ctx: ClientContext) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Unknown:
    @hookimpl
    def local_los(self) -> dict[str, Tensor]:
        return {}


@dataclass
class Thawed:
    pass


@pytest.mark.parametrize(
    ("plugins", "error", "text"),
    [
        ({"exchagne": {}}, ConfigError, "no plugin 'exchagne' (did you mean 'exchange'?)"),
        ({"sgd": {"lr": -1}}, ConfigError, "sgd.lr: "),
        (
            {"sgd": {}, "mine": Trainer()},
            ConfigError,
            "2 plugins implement 'train': sgd, mine; a run needs exactly one",
        ),
        ({"mine": Unknown()}, PluginError, "plugin 'mine' implements unknown hook 'local_los'"),
        ({"mine": Thawed()}, PluginError, "'mine' (Thawed) must be @dataclass(frozen=True, eq"),
        ({"mine": Near}, PluginError, "'mine' must be a dataclass of options"),
    ],
    ids=["name", "option", "two trainers", "hook", "class", "not an instance"],
)
def test_plugins_that_no_run_would_accept_are_refused(
    plugins: Mapping[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        testing.client_context(plugins=plugins)


# --- the server ----------------------------------------------------------------------------------


def rows(labels: list[int], values: list[list[float]], counts: list[int]) -> PerClass:
    return PerClass(torch.tensor(labels), torch.tensor(values), torch.tensor(counts))


def test_server_update_on_reports_made_by_hand() -> None:
    update = Prototypes().server_update(
        ctx=testing.server_context(client_sizes=(4, 4, 4, 4)),
        state=testing.server_state(entries={"prototypes": rows([2], [[5.0]], [1])}, round=1),
        reports=[
            testing.report(client=1, uploads={"prototypes": rows([0, 2], [[1.0], [1.0]], [3, 3])}),
            testing.report(client=3, uploads={"prototypes": rows([0], [[5.0]], [1])}),
        ],
    )
    found = update.entries["prototypes"]
    assert found.labels.tolist() == [0, 2]
    assert found.values.tolist() == [[2.0], [2.0]]
    assert found.counts.tolist() == [4, 4]
    assert update.metrics == {"share": 0.5}


def test_a_report_has_no_weights_and_names_the_client_of_a_missing_key() -> None:
    uploads: dict[str, Value] = {"weights": {"w": torch.ones(1)}, "mine": torch.ones(1)}
    report = testing.report(client=4, examples=7, uploads=uploads, metrics={"gap": 0.5})
    assert (report.client, report.examples, report.metrics["gap"]) == (4, 7, 0.5)
    assert list(report.uploads) == ["mine"]
    with pytest.raises(PluginError, match=r"^no 'weights' in the uploads of client 4"):
        report.uploads.weights()


def test_aggregate_reads_results_made_by_hand() -> None:
    def results() -> Iterator[ClientResult]:
        for client, (size, value) in enumerate([(1, 2.0), (3, 6.0)]):
            weights: Weights = {"w": torch.tensor([value])}
            yield testing.client_result(client=client, examples=size, uploads={"weights": weights})

    context = testing.server_context()
    assert Mean().aggregate(ctx=context, results=results())["w"].tolist() == [(2 + 3 * 6) / 4]


def test_the_state_begins_with_the_model_that_clients_begin_with() -> None:
    state, model = testing.server_state(), testing.client_context().model
    assert state.round == 0
    assert all(torch.equal(state.weights[n], w) for n, w in model.state_dict().items())
    mine = {"w": torch.ones(1, requires_grad=True)}
    assert not testing.server_state(weights=mine).weights["w"].requires_grad


def test_the_servers_context_counts_clients_and_draws_from_the_runs_streams() -> None:
    ctx = testing.server_context(round=4, rounds=9, client_sizes=(1, 2, 3), seed=2)
    assert (ctx.round, ctx.rounds, ctx.num_clients, ctx.num_classes) == (4, 9, 3, 3)
    expected = torch.rand(3, generator=Streams(2).torch("mine", 4))
    assert torch.equal(torch.rand(3, generator=ctx.rng("mine")), expected)


def test_the_tiny_data_set() -> None:
    data = testing.tiny_dataset(examples=9, classes=2)
    assert (data.classes, data.domains) == (("circle", "square"), ("ink", "chalk"))
    assert (len(data.train), len(data.test)) == (18, 24)
    assert testing.tiny_dataset(form="ids").train.inputs.dtype == torch.int64


def test_hand_made_batches_and_outputs_do_as_well() -> None:
    """For a term on features alone it is simpler to write the two values down."""
    batch = Batch(torch.zeros(2, 1), torch.tensor([0, 2]), epoch=0, epochs=1)
    output = Output(torch.zeros(2, 1), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    term = CrossEntropy().local_loss(batch=batch, output=output)["cross_entropy"]
    assert float(term) == pytest.approx(torch.tensor(3.0).log().item())
