"""Plugins and models that do what is allowed and rare: the same bits everywhere, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from fedbench import PluginError, Run, ServerUpdate, hookimpl
from fedbench.pictures import HeatMap, Scatter
from fedbench.store.tensor_file import from_bytes, to_bytes
from fedbench.types import sha256

RunTiny = Callable[..., Run]
EXECUTORS: dict[str, Any] = {
    "inline": {"name": "inline"},
    "pool": {"name": "pool", "workers": 2},
    "pool-3": {"name": "pool", "workers": 3},
}


def digests(run: Run) -> tuple[str, str]:
    result = run.result()
    return result["weights_sha256"], result["metrics_sha256"]


def everywhere(run_tiny: RunTiny, *words: Any, **given: Any) -> list[Run]:
    """Return a run under every executor; their bits are the same."""
    runs = [run_tiny(*words, executor=executor, **given) for executor in EXECUTORS.values()]
    assert len({digests(run) for run in runs}) == 1
    return runs


# --- what clients send ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Few:
    """Take one result, in even rounds four."""

    @hookimpl
    def receive_uploads(self, ctx, results):
        return islice(results, 4 if ctx.round % 2 == 0 else 1)


def test_clients_whose_results_are_not_read_still_take_part(add, run_tiny: RunTiny) -> None:
    add(few=Few)
    for run in everywhere(run_tiny, extra={"few": {}}, rounds=4, evaluate_every=4):
        first, second = run.history[:2]
        assert first.bytes_up == second.bytes_up  # of all four clients


@dataclass(frozen=True, eq=False)
class First:
    """Send a value before the weights, and report which key clients see first."""

    outermost: ClassVar[bool] = True

    @hookimpl
    def broadcast(self):
        return {"a.extra": torch.ones(3)}

    @hookimpl
    def local_loss(self, ctx, output):
        return {"first": output.logits.sum() * (next(iter(ctx.payload)) == "weights")}


def test_clients_see_the_keys_of_the_broadcast_in_its_order(add, run_tiny: RunTiny) -> None:
    add(first=First)
    for run in everywhere(run_tiny, extra={"first": {}}, rounds=3):
        assert all(result.metrics["loss.first"] == 0 for result in run.history)


# --- what the server keeps -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Fixed:
    """Send an entry of the state that never changes."""

    @hookimpl
    def init_server(self):
        return {"fixed": torch.eye(3)}

    @hookimpl
    def broadcast(self, state):
        return {"fixed": state.entries["fixed"]}


FLIGHT = {"lognormal": {}, "buffered": {"size": 1, "at_work": 3}}


@pytest.mark.parametrize(
    ("method", "more"), [("fedavg", {"fixed": {}}), ("fedgh", {}), ("fedproto-aaai", {})]
)
def test_what_is_sent_and_kept_or_empty_is_in_a_checkpoint_in_flight(
    method: str, more: dict[str, Any], add, run_tiny: RunTiny, registry: Any, tmp_path: Path
) -> None:
    add(fixed=Fixed)
    extra = {**FLIGHT, **more}
    whole = run_tiny(method, extra=extra, rounds=4)
    config = whole.config
    part = Run(config, tmp_path / "run", registry=registry, checkpoint_rounds=1)
    with closing(part.rounds()) as rounds:
        next(rounds)
    resumed = Run.resume(tmp_path / "run", registry=registry)
    resumed.run()
    assert digests(resumed) == digests(whole)


def test_tensors_that_share_memory_are_kept() -> None:
    one = torch.arange(6.0).reshape(2, 3)
    given = {"a": one, "b": one, "c": one[1], "d": torch.zeros(0), "e": torch.zeros(0)}
    found = from_bytes(to_bytes(given))
    assert list(found) == list(given)
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())


# --- what plugins return -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Turned:
    """Return weights in another layout and type, and report a sum that depends on the layout."""

    @hookimpl
    def server_update(self, state, before):
        turned = {
            name: w.double().mT.contiguous().mT if w.ndim == 2 else w.float()
            for name, w in state.weights.items()
        }
        strides = {str(w.stride()) for w in before.values() if w.ndim == 2}
        return ServerUpdate(weights=turned, metrics={"layouts": float(len(strides))})


def test_weights_have_the_models_types_and_one_layout(add, run_tiny: RunTiny) -> None:
    add(turned=Turned)
    run = run_tiny(extra={"turned": {}}, rounds=2)
    assert run.state
    for name, initial in run.runtime.initial.items():
        now = run.state.weights[name]
        assert (now.dtype, now.shape) == (initial.dtype, initial.shape)
        assert now.is_contiguous()
    assert digests(run) == digests(run_tiny(extra={"turned": {}}, rounds=2))
    plain = run_tiny(rounds=2)
    assert sha256(run.state.weights) == sha256(plain.state.weights)  # type: ignore[union-attr]


@dataclass(frozen=True, eq=False)
class Bent:
    """Return a weight of another shape."""

    @hookimpl
    def server_update(self, state):
        name = next(iter(state.weights))
        return ServerUpdate(weights={name: state.weights[name][None]})


def test_a_weight_of_another_shape_is_named(add, run_tiny: RunTiny) -> None:
    add(bent=Bent)
    with pytest.raises(PluginError, match=r"plugin 'bent': weight '.*' has shape \(1, .*model's"):
        run_tiny(extra={"bent": {}})


def test_whole_numbers_in_pictures_and_metrics_are_those_of_the_file(
    add, run_tiny: RunTiny, registry: Any, tmp_path: Path
) -> None:
    @dataclass(frozen=True, eq=False)
    class Count:
        higher_is_better: ClassVar[bool] = True
        unit: ClassVar[str] = "plain"

        def __call__(self, scores: Tensor, labels: Tensor) -> Any:
            return int((scores.argmax(1) == labels).sum())

    @dataclass(frozen=True, eq=False)
    class Draws:
        @hookimpl
        def server_update(self):
            heat = HeatMap("h", "h", "h", 0, 1, ("a",), ("b",), ((1,),))
            points = Scatter("s", "s", "s", (1,), (2,), ("c",), ("",))
            return ServerUpdate(pictures=[heat, points])

    add(draws=Draws)
    module = SimpleNamespace(register_metrics=hookimpl(lambda: {"count": Count}))
    registry.add(module, "tests")
    given = {"extra": {"draws": {}, "backdoor": {}}, "metrics": {"accuracy": {}, "count": {}}}
    whole = run_tiny(rounds=3, **given)
    part = Run(whole.config, tmp_path / "run", registry=registry, checkpoint_rounds=1)
    with closing(part.rounds()) as rounds:
        next(rounds)
    resumed = Run.resume(tmp_path / "run", registry=registry)
    resumed.run()
    assert digests(resumed) == digests(whole)


# --- models --------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers with one weight, and a buffer that is no part of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.classifier = nn.Linear(64, 3)
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(64), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x.flatten(1)).relu())
        if self.training:
            self.centre += 0.1 * x.detach().mean(0)
        return x - self.centre


@dataclass(frozen=True, eq=False)
class TiedSource:
    """Builds `Tied`."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return Tied()


@pytest.mark.parametrize("method", ["fedavg", "fedavgm", "fedexp"])
def test_tied_weights_and_buffers_that_do_not_travel(
    method: str, run_tiny: RunTiny, registry: Any
) -> None:
    module = SimpleNamespace(register_models=hookimpl(lambda: {"tied": TiedSource}))
    registry.add(module, "tests")
    for run in everywhere(run_tiny, method, model="tied", rounds=3):
        assert run.state
        weights = run.state.weights
        assert torch.equal(weights["first.weight"], weights["second.weight"])
