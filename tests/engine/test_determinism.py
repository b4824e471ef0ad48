"""A run's result depends on its config and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from fedbench.engine.run import Run
from fedbench.hookspecs import hookimpl
from fedbench.types import ServerUpdate, sha256

SEEN: list[tuple[int, int, list[int]]] = []


@dataclass(frozen=True, eq=False)
class Spy:
    """Records the labels of every training batch, which shows the order of batches."""

    @hookimpl
    def after_backward(self, ctx, batch):
        SEEN.append((ctx.round, ctx.client, batch.labels.tolist()))


@dataclass(frozen=True, eq=False)
class Watcher:
    """An observer that leaves the global generators in disorder."""

    @hookimpl
    def round_end(self):
        torch.manual_seed(12345)
        torch.rand(7)


@dataclass(frozen=True, eq=False)
class Busy:
    """Implements every hook that can be without effect, and draws numbers in each of them."""

    @hookimpl
    def init_server(self, ctx):
        return {"busy": torch.randn(3, generator=ctx.rng("busy"))}

    @hookimpl
    def broadcast(self, ctx):
        return {"busy": torch.randn(3, generator=ctx.rng("busy"))}

    @hookimpl(wrapper=True)
    def select_clients(self, ctx):
        torch.rand(3, generator=ctx.rng("busy"))
        return (yield)

    @hookimpl(wrapper=True)
    def partition(self, data, rng):
        return (yield)

    @hookimpl
    def transform(self, inputs, rng):
        torch.rand(len(inputs), generator=rng)
        return inputs

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        torch.rand(3, generator=ctx.rng("busy"))
        trained = yield
        ctx.upload("busy", torch.randn(2, generator=ctx.rng("busy2")))
        ctx.state["busy"] = torch.randn(2, generator=ctx.rng("busy3"))
        ctx.metric("busy", float(torch.rand((), generator=ctx.rng("busy4"))))
        return trained

    @hookimpl
    def server_update(self, ctx):
        return ServerUpdate(entries={"busy": torch.randn(3, generator=ctx.rng("busy"))})


def facts(run: Run) -> dict[str, object]:
    """Return everything that compared methods must share, and the final weights."""
    return {
        "partition": [part.tolist() for part in run.runtime.parts],
        "initial": sha256(dict(run.runtime.initial)),
        "batches": list(SEEN),
        "clients": [result.clients for result in run.history],
        "weights": run.result()["weights_sha256"],
        "scores": [result.scores for result in run.history],
    }


@pytest.fixture
def watched(add, run_tiny):
    """Run with the spy and, if wanted, another plugin."""
    add(spy=Spy, watcher=Watcher, busy=Busy)

    def watched(*others: str, **given):
        SEEN.clear()
        sampling = {"uniform": {"fraction": 0.5}}
        return facts(
            run_tiny(extra={**sampling, "spy": {}, **{name: {} for name in others}}, **given)
        )

    return watched


def test_one_config_gives_one_result(registry, tiny_config):
    config = tiny_config(registry)
    one, two = (Run(config, registry=registry).run() for _ in range(2))
    for key in ("weights_sha256", "metrics_sha256", "accuracy", "bytes", "config_hash"):
        assert one[key] == two[key]


@pytest.mark.parametrize("other", ["watcher", "busy"])
def test_an_unrelated_plugin_changes_nothing(watched, other):
    alone = watched()
    assert len(alone["batches"]) == 2 * 2 * 3  # rounds x clients x batches
    assert watched(other) == alone


def test_another_seed_changes_everything(watched):
    one, two = watched(seed=0), watched(seed=1)
    for key in ("partition", "initial", "batches", "weights"):
        assert one[key] != two[key]


def test_a_longer_run_begins_like_a_shorter_one(run_tiny):
    short, long = run_tiny(rounds=1), run_tiny(rounds=3)
    assert short.history[0].scores == long.history[0].scores
    assert short.history[0].metrics == long.history[0].metrics


def test_the_state_of_the_global_generators_does_not_matter(registry, tiny_config):
    config = tiny_config(registry)
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.add(Run(config, registry=registry).run()["weights_sha256"])
    assert len(digests) == 1


def test_runs_that_take_turns_do_not_touch_each_other(registry, tiny_config):
    alone = [Run(tiny_config(registry, seed=s), registry=registry).run() for s in (0, 1)]
    runs = [Run(tiny_config(registry, seed=s), registry=registry) for s in (0, 1)]
    for _ in zip(*(run.rounds() for run in runs), strict=True):
        pass
    for run, result in zip(runs, alone, strict=True):
        assert run.result()["weights_sha256"] == result["weights_sha256"]
        assert run.result()["metrics_sha256"] == result["metrics_sha256"]


def test_the_number_of_threads_outside_does_not_matter(registry, tiny_config, threads):
    config = tiny_config(registry)
    digests = set()
    for count in (1, 3):
        torch.set_num_threads(count)
        digests.add(Run(config, registry=registry).run()["weights_sha256"])
    assert len(digests) == 1


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


INSIDE: list[int] = []


@dataclass(frozen=True, eq=False)
class Threads:
    """Records how many threads a client and the server compute on."""

    @hookimpl
    def after_backward(self):
        INSIDE.append(torch.get_num_threads())

    @hookimpl
    def server_update(self):
        INSIDE.append(torch.get_num_threads())
        return ServerUpdate()


@dataclass(frozen=True, eq=False)
class Breaks:
    @hookimpl
    def server_update(self):
        raise ZeroDivisionError


def test_threads_are_one_inside_and_restored_between_and_after_rounds(
    registry, tiny_config, add, threads
):
    add(threads=Threads)
    INSIDE.clear()
    torch.set_num_threads(3)
    for _ in Run(tiny_config(registry, extra={"threads": {}}), registry=registry).rounds():
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 3
    assert set(INSIDE) == {1}


def test_threads_are_restored_after_an_error(registry, tiny_config, add, threads):
    add(breaks=Breaks)
    torch.set_num_threads(3)
    run = Run(tiny_config(registry, extra={"breaks": {}}), registry=registry)
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert torch.get_num_threads() == 3
