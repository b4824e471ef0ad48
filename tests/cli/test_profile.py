"""Profiles: every second counted once, nothing changed, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from fedbench import context
from fedbench.cli import main
from fedbench.context import ClientContext
from fedbench.engine import profiling
from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry
from fedbench.runtime import Runtime


def test_time_in_a_step_inside_another_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(now))
    timer = profiling.Timer()
    with timer.step("outer"), timer.step("inner"):
        pass
    assert dict(timer.seconds) == {"inner": 2.0, "outer": 5.0}


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
        assert {"waiting for clients", "evaluation", "aggregation: fedavg"} <= set(one.server)
        steps = {"data", "forward", "backward", "client_update: sgd", "uploads"}
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


def test_a_profiled_run_computes_the_same(
    registry: Registry, tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(registry, "fedhpro", executor={"name": "pool", "workers": 2})
    seen = []
    monkeypatch.setattr(
        profiling, "Run", lambda *a, **given: seen.append(Run(*a, **given)) or seen[-1]
    )
    list(profiling.profile(config, registry))
    plain = Run(config, registry=registry)
    plain.run()
    for key in ("weights_sha256", "metrics_sha256"):
        assert seen[0].result()[key] == plain.result()[key]


def test_no_timer_is_left_behind(registry: Registry, tiny_config: Callable[..., Any]) -> None:
    watched = [
        (context, "forward"),
        (ClientContext, "prepare"),
        (ClientContext, "batches"),
        (Runtime, "run_client"),
        (torch.Tensor, "backward"),
    ]
    before = [getattr(owner, name) for owner, name in watched]
    rounds = profiling.profile(tiny_config(registry), registry)
    next(rounds)
    assert [getattr(owner, name) for owner, name in watched] != before
    rounds.close()
    assert [getattr(owner, name) for owner, name in watched] == before


def test_the_command_prints_two_tables() -> None:
    done = CliRunner().invoke(main, ["profile", "fedavg", "--rounds", "1", "--set", "sgd.epochs=1"])
    assert done.exit_code == 0, done.output
    assert "a round, wall clock, round 1" in done.output
    assert "its 8 client turns, summed over clients" in done.output
    assert done.output.count("100.0") >= 2


def test_the_command_prints_json() -> None:
    done = CliRunner().invoke(
        main, ["profile", "fedavg", "--rounds", "1", "--set", "sgd.epochs=1", "--json"]
    )
    (one,) = json.loads(done.output)
    assert one["round"] == 1
    assert one["clients"]["forward"] > 0
