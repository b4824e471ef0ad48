"""What plugins observe in a turn reaches the server without travelling; models can be examined."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import pytest
import torch

from fedbench import (
    ClientContext,
    PerClass,
    PluginError,
    Report,
    Run,
    ServerContext,
    ServerUpdate,
    hookimpl,
    testing,
)

SEEN: list[dict[int, tuple[list[float], list[int]]]] = []
NAMES: list[tuple[tuple[str, ...], tuple[str, ...]]] = []


@dataclass(frozen=True, eq=False)
class Looks:
    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        ctx.observe("looks", torch.tensor([float(ctx.client)]))
        ctx.observe("rows", PerClass.means(torch.ones(2, 3), torch.tensor([1, ctx.client])))
        return (yield)

    @hookimpl
    def server_update(self, ctx: ServerContext, reports: Sequence[Report]) -> ServerUpdate:
        NAMES.append((ctx.classes, ctx.domains))
        SEEN.append(
            {
                r.client: (
                    r.observed.tensor("looks").tolist(),
                    r.observed.per_class("rows").labels.tolist(),
                )
                for r in reports
            }
        )
        return ServerUpdate()


@pytest.mark.parametrize(
    "executor",
    ["inline", pytest.param({"name": "pool", "workers": 2}, marks=pytest.mark.long)],
)
def test_observations_reach_the_server_and_do_not_travel(
    executor: object, run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    SEEN.clear()
    NAMES.clear()
    add(looks=Looks)
    run = run_tiny("fedavg", executor=executor, extra={"looks": {}})
    for one, seen in zip(run.history, SEEN, strict=True):
        assert seen == {c: ([float(c)], sorted({1, c})) for c in one.clients}
        assert {*one.bytes_up} == {"weights"}
    assert NAMES[0] == (run.runtime.data.classes, run.runtime.data.domains)
    plain = run_tiny("fedavg", executor=executor)
    assert run.result()["weights_sha256"] == plain.result()["weights_sha256"]


def test_reports_of_the_kit_have_observations() -> None:
    found = testing.report(observed={"looks": torch.ones(2)}).observed
    assert found.tensor("looks").tolist() == [1, 1]
    with pytest.raises(PluginError, match="no 'look' in the observations of client 0"):
        found.tensor("look")


def test_an_observation_is_a_sealed_copy_made_once() -> None:
    ctx = testing.client_context()
    value = torch.ones(2)
    ctx.observe("mine", value)
    value.zero_()
    assert ctx.result(0.0).observed["mine"].tolist() == [1, 1]
    with pytest.raises(PluginError, match="two plugins observe 'mine' in round 1, client 0"):
        ctx.observe("mine", value)


def test_examining_a_model_is_as_embedding_and_leaves_its_mode() -> None:
    ctx = testing.client_context()
    ctx.model.train()
    output, _ = ctx.embed()
    assert ctx.examine(ctx.data, "mine").features.equal(output.features)
    assert ctx.model.training
    assert not output.features.requires_grad


def test_the_probe_is_the_same_for_all_clients_and_never_held_out(
    run_tiny: Callable[..., Run],
) -> None:
    runtime = run_tiny("fedavg", rounds=1, clients={"validation": 0.25}).runtime
    training = torch.cat(list(runtime.held.train))
    few, more = runtime.probe(5), runtime.probe(10**6)
    assert len(few) == 5
    assert len(more) == len(training)
    assert few.inputs.equal(more.inputs[:5])
    drawn = {row.numpy().tobytes() for row in more.inputs}
    assert drawn == {row.numpy().tobytes() for row in runtime.data.train.inputs[training]}
