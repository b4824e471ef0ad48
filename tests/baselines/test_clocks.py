"""Clocks against times computed by hand; devices stay the same; a clock changes no weight."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fedbench_baselines.clocks import Constant, LogNormal, TwoClass
from fedbench_baselines.online import Online
from fedbench_baselines.trace import Trace, devices

from fedbench import ConfigError, Run, testing
from fedbench.random import Streams
from fedbench.turns import Effort
from fedbench.types import sha256

DAY = 86400.0


def effort(client: int = 0, round: int = 1, start: float = 0.0) -> Effort:
    return Effort(client, round, start, examples=300, bytes_down=2_000_000, bytes_up=500_000)


def test_a_turn_takes_computing_both_ways_and_latency() -> None:
    clock = Constant(latency=0.25, speed=60.0, bandwidth=2.0)
    assert clock.duration(testing.server_context(), effort()) == 0.25 + 5 + 1 + 0.25


def test_jitter_differs_by_client_and_round_around_the_same_median() -> None:
    ctx = testing.server_context()
    clock, plain = Constant(jitter=0.5), Constant().duration(ctx, effort())
    found = {(c, r): clock.duration(ctx, effort(c, r)) for c in range(40) for r in range(10)}
    assert len(set(found.values())) == 400
    logs = [math.log(seconds / plain) for seconds in found.values()]
    assert abs(statistics.median(logs)) < 0.1
    assert statistics.stdev(logs) == pytest.approx(0.5, abs=0.05)
    assert clock.duration(ctx, effort(7, 3)) == found[7, 3]


def test_log_normal_devices_have_the_medians_and_the_spread_that_were_asked_for() -> None:
    clock = LogNormal(sigma=0.8, speed=50.0, bandwidth=3.0)
    found = [clock.device(Streams(1), client) for client in range(1000)]
    for values, median in (([d.speed for d in found], 50.0), ([d.down for d in found], 3e6)):
        logs = [math.log(value / median) for value in values]
        assert statistics.median(logs) == pytest.approx(0, abs=0.08)
        assert statistics.stdev(logs) == pytest.approx(0.8, abs=0.05)
    assert all(d.down == d.up for d in found)
    assert found[5] == clock.device(Streams(1), 5) != clock.device(Streams(2), 5)


def test_slow_clients_are_slower_by_one_factor_in_everything() -> None:
    clock = TwoClass(slow=0.25, factor=4.0, speed=100.0, bandwidth=1.0)
    found = [clock.device(Streams(0), client) for client in range(1000)]
    assert {(d.speed, d.down, d.up) for d in found} == {(100.0, 1e6, 1e6), (25.0, 2.5e5, 2.5e5)}
    assert sum(d.speed < 100 for d in found) / 1000 == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("now", "seconds", "takes"),
    [
        (12, 3, 3),  # within a spell
        (5, 3, 8),  # waits for it
        (18, 5, 35),  # 2 s, then 30 s offline, then 3 s
        (12, 8, 8),  # ends with the spell
        (0, 20, 60),  # both spells
        (0, 21, 111),  # and one second of the next period
        (95, 45, 220),  # two whole periods and a quarter
        (312, 3, 3),  # the same in a later period
    ],
)
def test_a_device_works_only_while_it_is_online(now: float, seconds: float, takes: float) -> None:
    online = Online(((10.0, 20.0), (50.0, 60.0)), 100.0)
    assert online.until(now, seconds) == takes


def test_how_long_a_device_is_offline() -> None:
    online = Online(((10.0, 20.0), (50.0, 60.0)), 100.0)
    assert [online.wait(now) for now in (0, 10, 19, 20, 60, 110)] == [10, 0, 0, 30, 50, 0]


def test_the_bundled_trace_has_devices_of_every_kind() -> None:
    found = devices("", DAY)
    assert len(found) == 60
    assert {online is None for _, online in found} == {True, False}
    assert max(d.speed for d, _ in found) > 10 * min(d.speed for d, _ in found)


def test_a_trace_of_the_users_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("up,name,down,speed,online\n0.5,a,2,30,0-10 20-30\n1,b,4,60,\n")
    slow, fast = devices(str(file), 40.0)
    assert (slow[0].speed, slow[0].down, slow[0].up) == (30.0, 2e6, 0.5e6)
    assert slow[1] == Online(((0.0, 10.0), (20.0, 30.0)), 40.0)
    assert fast[1] is None
    clock = Trace(file=str(file), period=40.0)
    drawn = {clock.device(Streams(0), client) for client in range(20)}
    assert drawn == {slow[0], fast[0]}


def test_a_run_reads_its_trace_again(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    for speed in (30.0, 500.0):
        file.write_text(f"speed,down,up\n{speed:g},1,1\n")
        trace = Trace(file=str(file))
        trace.run_start(testing.server_context())
        assert trace.device(Streams(0), 0).speed == speed


def test_jitter_lets_no_device_answer_while_it_is_offline(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("speed,down,up,online\n3,1000,1000,0-28800\n")
    clock = Trace(file=str(file), jitter=0.5)
    for client in range(20):
        seconds = clock.duration(testing.server_context(), effort(client, start=30_000.0))
        assert DAY < 30_000 + seconds <= DAY + 1000  # about 100 s after it is online again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed,down\n1,1\n", r"no column 'up'; a trace has speed, down, up$"),
        ("speed,down,up\n", r"no column 'speed'"),
        ("speed,down,up\n1,1,1\n0,1,1\n", r":3: speed must be a number above 0, got '0'$"),
        ("speed,down,up\n1,fast,1\n", r":2: down must be a number above 0, got 'fast'$"),
        ("speed,down,up,online\n1,1,1,5-2\n", r":2: online has the spell '5-2'; write FROM-UNTIL"),
        ("speed,down,up,online\n1,1,1,0-90000\n", r"from 0 to the period, 86400$"),
    ],
)
def test_a_damaged_trace_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        devices(str(file), DAY)


def test_a_missing_trace_is_refused_before_the_first_round(run_tiny: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match=r"^trace\.file: nowhere\.csv cannot be read"):
        run_tiny(extra={"trace": {"file": "nowhere.csv"}})


def test_clients_that_are_offline_can_be_passed_over(
    run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    file = tmp_path / "own.csv"
    rows = ["100,1,1,0-500", "100,1,1,500-1000"] * 5
    file.write_text("\n".join(["speed,down,up,online", *rows]))
    options = {"file": str(file), "period": 1000.0, "offline": False}
    run = run_tiny(extra={"trace": options}, rounds=1, seed=1)
    clock = Trace(**options)
    first = [c for c in range(4) if clock._drawn(run.runtime.streams, c)[1].wait(0) == 0]
    assert 0 < len(first) < 4
    assert run.history[0].clients == first


CLOCKS = [("constant", {}), ("lognormal", {"jitter": 0.3}), ("two_class", {}), ("trace", {})]


@pytest.mark.parametrize(("name", "options"), CLOCKS)
def test_a_clock_measures_synchronous_rounds_and_changes_nothing(
    name: str, options: dict[str, Any], run_tiny: Callable[..., Run]
) -> None:
    plain, timed = run_tiny(), run_tiny(extra={name: options})
    assert sha256(timed.state.weights) == sha256(plain.state.weights)
    assert [one.metrics for one in timed.history] == [one.metrics for one in plain.history]
    assert [one.time for one in plain.history] == [None, None]
    assert plain.summary().virtual_time is None
    start = 0.0
    for one in timed.history:
        assert [turn.client for turn in one.turns] == list(one.clients) == [0, 1, 2, 3]
        assert {turn.start for turn in one.turns} == {start}
        assert {(turn.round, turn.outcome) for turn in one.turns} == {(one.round, "used")}
        assert one.time == max(turn.end for turn in one.turns) > start
        start = one.time
    assert timed.summary().virtual_time.seconds == start
    assert timed.summary().virtual_time.turns == {"used": 8}
    assert timed.summary().virtual_time.staleness == {0: 8}


def test_clients_of_one_speed_are_always_at_work(run_tiny: Callable[..., Run]) -> None:
    run = run_tiny(extra={"constant": {}})
    assert run.summary().virtual_time.utilisation == pytest.approx(1)


def test_every_pass_takes_time(run_tiny: Callable[..., Run]) -> None:
    fast = {"constant": {"bandwidth": 1e9, "speed": 18.0}}  # a client has 18 examples
    one = run_tiny(extra=fast, rounds=1).history[0].time
    three = run_tiny(extra={**fast, "sgd": {"epochs": 3}}, rounds=1).history[0].time
    ditto = run_tiny("ditto", extra=fast, rounds=1).history[0].time
    assert [round(seconds, 6) for seconds in (one, three, ditto)] == [1, 3, 2]


def test_bytes_count_as_they_travel(run_tiny: Callable[..., Run]) -> None:
    slow = {"constant": {"bandwidth": 1e-3, "speed": 1e9}}
    plain, small = (run_tiny(extra={**slow, **more}) for more in ({}, {"topk": {"ratio": 0.1}}))
    for run in (plain, small):
        one = run.history[0]
        total = sum(one.bytes_up.values()) + sum(one.bytes_down.values())
        assert one.time == pytest.approx(total / 4 / 1e3, rel=1e-6)
    assert small.history[0].time < plain.history[0].time


def test_a_clients_attempts_all_take_time(run_tiny: Callable[..., Run]) -> None:
    clock = {"constant": {"bandwidth": 1e9, "speed": 18.0}}
    faults = {"faults": {"delay": 0.5}}
    runs = [
        run_tiny(extra={**clock, **faults}, rounds=1, failures={"policy": policy, "attempts": 3})
        for policy in ("skip", "retry")
    ]
    skipped, again = ({turn.client: turn for turn in run.history[0].turns} for run in runs)
    lost = [client for client, turn in skipped.items() if turn.outcome == "failed"]
    assert 0 < len(lost) < 4
    assert all(turn.end == pytest.approx(1) for turn in skipped.values())
    for client, turn in again.items():
        tries = sum(f.client == client for f in runs[1].history[0].failures)
        assert turn.end == pytest.approx(min(3, tries + 1))


def test_a_run_ends_at_a_virtual_time(run_tiny: Callable[..., Run]) -> None:
    clock = {"constant": {"bandwidth": 1e9, "speed": 18.0}}
    run = run_tiny(extra=clock, rounds=9, stop_time=2.5, evaluate_every=4)
    assert [one.time for one in run.history] == pytest.approx([1, 2, 3])
    assert [bool(one.scores) for one in run.history] == [False, False, True]


def test_a_virtual_time_needs_a_clock(run_tiny: Callable[..., Run]) -> None:
    message = r"stop_time: a run without a clock has no virtual time; add one of constant, lognorm"
    with pytest.raises(ConfigError, match=message):
        run_tiny(stop_time=3.0)
