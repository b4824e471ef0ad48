"""A watch sees every hook call, phase and turn; a run is the same with and without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fedbench.engine.profiling import Kept
from fedbench.engine.run import Run
from fedbench.hookspecs import hookimpl
from fedbench.plugins.hooks import RunPlugins
from fedbench.plugins.registry import Registry
from fedbench.watching import UNWATCHED, Call, Watch, each


class Diary(Watch):
    """Records what it sees, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.calls: list[Call] = []

    def call(self, call: Call, run: Callable[[], Any]) -> Any:
        self.calls.append(call)
        self.lines.append(f"{call.plugin} called")
        result = run()
        self.lines.append(f"{call.plugin} returned")
        return result

    def generate(self, call: Call, steps: Any) -> Any:
        self.calls.append(call)
        self.lines.append(f"{call.plugin} began")
        result = yield from steps
        self.lines.append(f"{call.plugin} ended")
        return result

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        self.lines.append(f"{name} (")
        yield
        self.lines.append(f") {name}")

    def phase(self, name: str) -> AbstractContextManager[None]:
        return self._told(name)


# --- hook calls ----------------------------------------------------------------------------------

plugin = dataclass(frozen=True, eq=False)


@plugin
class Base:
    """The base of every single hook, and a loss."""

    @hookimpl
    def partition(self): ...

    @hookimpl
    def select_clients(self): ...

    @hookimpl
    def train(self): ...

    @hookimpl
    def aggregate(self, state):
        if state == "bad":
            raise ValueError("bad")
        return f"mean of {state}"

    @hookimpl
    def local_loss(self): ...


@plugin
class Wrapper:
    """Handles what the base can't do."""

    @hookimpl(wrapper=True)
    def aggregate(self, ctx):
        try:
            return f"{ctx}({(yield)})"
        except ValueError:
            return "mended"


@plugin
class Stream:
    """Hands results on, one by one."""

    @hookimpl
    def receive_uploads(self, results):
        yield from results

    @hookimpl
    def broadcast(self):
        return {"key": 1}


def aggregate(plugins: RunPlugins, state: str = "all") -> Any:
    return plugins.hook.aggregate(ctx="wrapped", state=state, results=None)


def test_without_a_watch_the_plugins_themselves_are_registered() -> None:
    base, wrapper = Base(), Wrapper()
    plugins = RunPlugins([("wrapper", wrapper), ("base", base)])
    found = plugins.hook.aggregate.get_hookimpls()
    assert {impl.plugin_name: impl.plugin for impl in found} == {"base": base, "wrapper": wrapper}
    assert {impl.function for impl in found} == {base.aggregate, wrapper.aggregate}
    assert UNWATCHED.phase("forward") is UNWATCHED.phase("backward")


def test_a_watch_sees_both_halves_of_a_wrapper_and_the_base_between_them() -> None:
    diary = Diary()
    plugins = RunPlugins([("wrapper", Wrapper()), ("base", Base())], diary)
    assert aggregate(plugins) == "wrapped(mean of all)"
    assert diary.lines == ["wrapper began", "base called", "base returned", "wrapper ended"]


def test_a_call_has_the_arguments_that_the_implementation_takes() -> None:
    diary = Diary()
    aggregate(RunPlugins([("wrapper", Wrapper()), ("base", Base())], diary))
    assert diary.calls == [
        Call("aggregate", "wrapper", {"ctx": "wrapped"}),
        Call("aggregate", "base", {"state": "all"}),
    ]


def test_errors_reach_a_watched_wrapper() -> None:
    diary = Diary()
    plugins = RunPlugins([("wrapper", Wrapper()), ("base", Base())], diary)
    assert aggregate(plugins, "bad") == "mended"
    assert diary.lines == ["wrapper began", "base called", "wrapper ended"]


def test_values_that_a_hook_yields_come_one_by_one() -> None:
    diary = Diary()
    plugins = RunPlugins([("base", Base()), ("stream", Stream())], diary)
    ((name, call),) = plugins.calls("receive_uploads")
    results = call(ctx=None, state=None, results=iter("ab"))
    assert (name, diary.lines) == ("stream", [])
    assert next(results) == "a"
    assert diary.lines == ["stream began"]
    assert list(results) == ["b"]
    assert diary.lines == ["stream began", "stream ended"]


def test_list_hooks_and_rules_know_watched_plugins_by_their_names() -> None:
    base, stream = Base(), Stream()
    plugins = RunPlugins([("base", base), ("stream", stream)], Diary())
    assert plugins.plugins == [("base", base), ("stream", stream)]
    assert plugins.collect_owned("broadcast", ctx=None, state=None) == {"key": ("stream", 1)}
    assert plugins.calls("server_update") == []


def test_a_watch_may_answer_in_place_of_a_plugin() -> None:
    class Answers(Watch):
        def call(self, call: Call, run: Callable[[], Any]) -> Any:
            return "mine"

    assert aggregate(RunPlugins([("base", Base())], Answers())) == "mine"


# --- phases --------------------------------------------------------------------------------------


def test_each_surrounds_the_wait_for_a_value_and_not_its_use() -> None:
    diary = Diary()
    for value in each(diary, "wait", "ab"):
        diary.lines.append(value)
    around = ["wait (", ") wait"]
    assert diary.lines == [*around, "a", *around, "b", *around]


def test_a_run_tells_its_phases(registry: Registry, tiny_config: Callable[..., Any]) -> None:
    diary = Diary()
    Run(tiny_config(registry, "moon", rounds=1), registry=registry, watch=diary).run()
    phases = {line.removesuffix(" (") for line in diary.lines if line.endswith(" (")}
    client = {"data", "forward", "backward", "optimiser", "uploads"}
    assert phases == {*client, "waiting for clients", "client states", "evaluation"}


def test_a_step_of_training_is_forward_losses_backward_optimiser(
    registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    diary = Diary()
    Run(tiny_config(registry, rounds=1), registry=registry, watch=diary).run()
    start = diary.lines.index("forward (")
    assert diary.lines[start : start + 8] == [
        *("forward (", ") forward", "cross_entropy called", "cross_entropy returned"),
        *("backward (", ") backward", "optimiser (", ") optimiser"),
    ]


# --- turns ---------------------------------------------------------------------------------------


class Passport(Watch):
    """Stamps what leaves a worker, and removes the stamp on arrival."""

    def __init__(self) -> None:
        self.turns: list[tuple[int, int]] = []
        self.stamps: dict[int, float] = {}

    def turn(self, job: Any, run: Callable[[], Any]) -> Any:
        self.turns.append((job.round, job.client))
        answer = run()
        return replace(answer, metrics={**answer.metrics, "stamp": float(os.getpid())})

    def arrive(self, answer: Any) -> Any:
        metrics = dict(answer.metrics)
        self.stamps[answer.client] = metrics.pop("stamp")
        return replace(answer, metrics=metrics)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_turn_adds_travels_to_the_server_and_no_further(
    workers: int, registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    executor = {"name": "pool", "workers": workers} if workers else "inline"
    watch = Passport()
    run = Run(tiny_config(registry, rounds=1, executor=executor), registry=registry, watch=watch)
    run.run()
    assert sorted(watch.stamps) == [0, 1, 2, 3]
    assert (float(os.getpid()) in watch.stamps.values()) == (workers == 0)
    # A forked worker has a watch of its own.
    assert watch.turns == ([] if workers else [(1, client) for client in range(4)])
    assert "stamp" not in run.history[0].metrics


@pytest.mark.parametrize("executor", ["inline", "pool"])
@pytest.mark.parametrize("method", ["fedavg", "fedhpro", "fedproto-aaai"])
def test_a_watched_run_has_the_same_bits(
    method: str, executor: str, registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    given = {"name": "pool", "workers": 2} if executor == "pool" else executor
    config = tiny_config(registry, method, executor=given)
    plain, watched = (Run(config, registry=registry, watch=w).run() for w in (UNWATCHED, Diary()))
    for key in ("weights_sha256", "metrics_sha256", "bytes"):
        assert watched[key] == plain[key]


def test_the_client_that_keeps_most_counts_by_its_last_values() -> None:
    kept = Kept()
    assert kept.largest == 0
    kept.keep("round 1, client 0", "a", torch.zeros(10))
    kept.keep("round 2, client 0", "a", torch.zeros(2))
    kept.keep("round 2, client 1", "a", torch.zeros(2))
    kept.keep("round 2, client 1", "b", torch.zeros(1, dtype=torch.int64))
    assert kept.largest == 4 * 2 + 8
