"""Profiles: every second counted once, nothing changed, nothing patched."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from fedbench.cli import main
from fedbench.engine import profiling
from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry
from fedbench.watching import Call


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiling, "time", clock)
    return clock


def test_time_in_a_step_inside_another_is_counted_once(clock: Clock) -> None:
    timer = profiling.Timer()
    with timer.step("outer"):
        clock.spend(1)
        with timer.step("inner"):
            clock.spend(2)
        clock.spend(4)
    assert dict(timer.seconds) == {"inner": 2.0, "outer": 5.0}


class Fails(Exception):
    """What is raised where a wrapper waits."""


def test_a_wrapper_is_timed_in_its_own_halves(clock: Clock) -> None:
    def wrapper() -> Generator[None, str, str]:
        clock.spend(1)
        try:
            found = yield
        except Fails:
            found = "an error"
        clock.spend(2)
        return f"after {found}"

    for given, result in (("value", "after value"), (Fails(), "after an error")):
        watch = profiling.Stopwatch()
        steps = watch.generate(Call("aggregate", "mine", {}), wrapper())
        next(steps)
        clock.spend(10)
        with pytest.raises(StopIteration) as end:
            steps.throw(given) if isinstance(given, Fails) else steps.send(given)
        assert end.value.value == result
        assert dict(watch.timer.seconds) == {"aggregation: mine": 3.0}


def test_values_that_a_hook_yields_are_timed_without_their_use(clock: Clock) -> None:
    closed = []

    def models() -> Iterator[int]:
        try:
            for number in range(3):
                clock.spend(1)
                yield number
        finally:
            closed.append(True)

    watch = profiling.Stopwatch()
    steps = watch.generate(Call("receive_uploads", "mine", {}), models())
    for number in steps:
        clock.spend(10)
        if number == 1:
            break
    steps.close()
    assert dict(watch.timer.seconds) == {"aggregation: mine": 2.0}
    assert closed == [True]


@pytest.mark.parametrize("executor", ["inline", "pool"])
@pytest.mark.parametrize("method", ["fedavg", "fedhpro", "moon"])
def test_every_second_of_a_round_has_a_name(
    method: str, executor: str, registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    config = tiny_config(registry, method, executor=executor)
    found = list(profiling.profile(config, registry))
    assert [one.round for one in found] == [1, 2]
    for one in found:
        assert sum(one.server.values()) == pytest.approx(one.seconds)
        assert all(seconds >= 0 for seconds in (*one.server.values(), *one.clients.values()))
        assert {"waiting for clients", "evaluation", "aggregation: mean"} <= set(one.server)
        steps = {"data", "forward", "backward", "optimiser", "train: sgd", "uploads"}
        assert steps <= set(one.clients)
        assert any(name.startswith("loss terms: ") for name in one.clients)
        assert one.turns == 4
        assert 0 < one.server["waiting for clients"] < one.seconds


def test_a_method_s_own_work_stands_under_its_plugins(
    registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    *_, last = profiling.profile(tiny_config(registry, "fedhpro"), registry)
    assert "server update: hyper_prototypes" in last.server
    assert "client_update: class_batches" in last.clients


def test_clients_own_models_are_timed_and_are_no_turns(
    registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    *_, last = profiling.profile(tiny_config(registry, "fedproto-aaai"), registry)
    assert "evaluation: personal" in last.clients
    assert "client states" in last.server
    assert last.turns == 4
    assert sum(last.server.values()) == pytest.approx(last.seconds)


@pytest.mark.parametrize("executor", ["inline", {"name": "pool", "workers": 2}], ids=str)
@pytest.mark.parametrize("method", ["fedavg", "fedhpro"])
def test_a_profiled_run_computes_the_same(
    method: str,
    executor: Any,
    registry: Registry,
    tiny_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config(registry, method, executor=executor)
    seen = []
    monkeypatch.setattr(
        profiling, "Run", lambda *a, **given: seen.append(Run(*a, **given)) or seen[-1]
    )
    list(profiling.profile(config, registry))
    plain = Run(config, registry=registry)
    plain.run()
    for key in ("weights_sha256", "metrics_sha256"):
        assert seen[0].result()[key] == plain.result()[key]


def test_the_command_prints_two_tables() -> None:
    done = CliRunner().invoke(main, ["profile", "fedavg", "--rounds", "1", "--set", "sgd.epochs=1"])
    assert done.exit_code == 0, done.output
    assert "per round, wall clock, round 1" in done.output
    assert "its 8 client turns, summed over clients" in done.output
    assert done.output.count("100.0") >= 2


def test_the_default_number_of_rounds_is_below_what_is_set() -> None:
    words = ["profile", "fedavg", "--set", "rounds=1", "--set", "sgd.epochs=1"]
    done = CliRunner().invoke(main, words)
    assert "per round, wall clock, round 1" in done.output
    assert CliRunner().invoke(main, ["profile", "fedavg", "--rounds", "0"]).exit_code != 0


def test_the_command_prints_json() -> None:
    done = CliRunner().invoke(
        main, ["profile", "fedavg", "--rounds", "1", "--set", "sgd.epochs=1", "--json"]
    )
    (one,) = json.loads(done.output)
    assert one["round"] == 1
    assert one["clients"]["forward"] > 0
