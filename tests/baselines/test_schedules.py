"""Schedules in real rounds: the same bits everywhere, and each formula against plain arithmetic."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fedbench_baselines.partial_work import PartialWork
from fedbench_baselines.schedules import Asynchronous, Buffered, moved_weight, staleness_weight

from fedbench import ClientResult, ConfigError, Payload, Run, hookimpl, testing
from fedbench.store.directory import RunDirectory
from fedbench.turns import Effort
from fedbench.types import ClientJob, sha256

RunTiny = Callable[..., Run]
SIX = {"domains": {"clients_per_domain": 3}}
ONE_SPEED: dict[str, Any] = {"constant": {"latency": 1.0}}
DIFFERENT: dict[str, Any] = {"lognormal": {"sigma": 1.5, "jitter": 0.2}}

SCHEDULES: dict[str, dict[str, Any]] = {
    "deadline": {"deadline": {"seconds": 0.4}},
    "soft_deadline": {"soft_deadline": {"seconds": 0.4}},
    "over_select": {"over_select": {"extra": 0.5}},
    "buffered": {"buffered": {"size": 2, "at_work": 4}},
    "asynchronous": {"asynchronous": {"at_work": 3}},
}


def digests(run: Run) -> tuple[str, str]:
    result = run.result()
    return result["weights_sha256"], result["metrics_sha256"]


# --- formulas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "weights"),
    [
        ("constant", [1, 1, 1, 1]),
        ("polynomial", [1, 2**-0.5, 3**-0.5, 9**-0.5]),
        ("hinge", [1, 1, 1, 1 / (10 * 4 + 1)]),
    ],
)
def test_how_late_updates_count(form: Any, weights: list[float]) -> None:
    a = 10.0 if form == "hinge" else 0.5
    found = [staleness_weight(staleness, form, a, 4.0) for staleness in (0, 1, 2, 8)]
    assert found == pytest.approx(weights)


def model_weights(value: float) -> dict[str, torch.Tensor]:
    """Return weights of the kit's model, all of one value, the counter of batches too."""
    like = testing.server_context().model.state_dict()
    return {n: torch.full_like(w, value) for n, w in like.items()}


def late_result(trained: float, sent: float, staleness: int, client: int = 0) -> ClientResult:
    weights = {"weights": model_weights(trained)}
    result = testing.client_result(
        client=client, uploads=weights, sent={"weights": model_weights(sent)}
    )
    return replace(result, staleness=staleness)


def received(plugin: Any, now: float, *results: ClientResult) -> list[Mapping[str, torch.Tensor]]:
    state = testing.server_state(weights=model_weights(now))
    sent = Payload({"weights": model_weights(now)}, "the broadcast")
    ctx = replace(testing.server_context(), sent=sent)
    found = list(plugin.receive_uploads(ctx=ctx, state=state, results=iter(results)))
    assert [one.sent.weights()["hidden.bias"][0] for one in found if one.staleness] == [now] * sum(
        one.staleness > 0 for one in found
    )
    return [one.uploads.weights() for one in found]


def test_a_late_update_is_added_to_the_current_model() -> None:
    late, on_time = received(Buffered(), 10.0, late_result(5.0, 3.0, 3), late_result(12.0, 10.0, 0))
    assert float(late["hidden.bias"][0]) == 10 + (5 - 3) / 2  # 1 / sqrt(1 + 3)
    assert float(on_time["hidden.bias"][0]) == 12
    assert float(late["norm.running_var"][0]) == 10 + (5 - 10) / 2  # never below zero
    assert int(late["norm.num_batches_tracked"]) == 5


def test_fedasync_mixes_models() -> None:
    plugin = Asynchronous(mixing=0.6)
    late, on_time = received(plugin, 10.0, late_result(5.0, 3.0, 3), late_result(12.0, 10.0, 0))
    assert float(late["hidden.bias"][0]) == pytest.approx(0.7 * 10 + 0.3 * 5)
    assert float(on_time["hidden.bias"][0]) == pytest.approx(0.4 * 10 + 0.6 * 12)


def test_an_update_is_rounded_once() -> None:
    now, then, trained = (torch.tensor([x]) for x in (1.0, 0.1, 0.3))
    exact = 1.0 + 0.5 * (trained.double() - then.double())
    assert torch.equal(moved_weight(now, then, trained, 0.5), exact.float())


# --- runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [ONE_SPEED, DIFFERENT], ids=["one speed", "different speeds"])
def test_a_buffer_of_all_clients_is_synchronous_fedavg(clock: Any, run_tiny: RunTiny) -> None:
    everyone = {"buffered": {"size": 6, "at_work": 6}}
    plain = run_tiny(extra=SIX, rounds=3)
    timed = run_tiny(extra={**SIX, **clock}, rounds=3)
    buffered = run_tiny(extra={**SIX, **clock, **everyone}, rounds=3)
    assert sha256(buffered.state.weights) == sha256(plain.state.weights)
    assert digests(buffered) == digests(timed)


@dataclass(frozen=True, eq=False)
class Fixed:
    """Let clients 0, 1 and 2 take 1, 2 and 5 seconds, and the last one very long."""

    @hookimpl
    def duration(self, effort: Effort) -> float:
        return [1.0, 2.0, 5.0, 1e6][effort.client]


def test_clients_of_different_speeds_computed_by_hand(run_tiny: RunTiny, add: Any) -> None:
    """The times are those of tests/engine/test_timing.py, the weights those of FedBuff."""
    add(fixed=Fixed)
    run = run_tiny(
        "fedbuff",
        model={"name": "tiny_model", "norm": "none"},
        without=["lognormal"],
        extra={"fixed": {}, "buffered": {"size": 2, "at_work": 4}},
        rounds=4,
    )
    assert [one.time for one in run.history] == [2, 4, 5, 6]
    weights = [run.runtime.initial]
    used = [[(0, 1), (1, 1)], [(0, 2), (1, 2)], [(0, 3), (2, 1)], [(0, 4), (1, 3)]]
    for round, pairs in enumerate(used, 1):
        assert [(t.client, t.round) for t in run.history[round - 1].turns] == pairs
        total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights[0].items()}
        for client, started in pairs:
            base = weights[started - 1]
            job = ClientJob(started, client, {})
            trained = run.runtime.run_client(job, {"weights": base}).uploads.weights()
            late = 1 / (1 + round - started) ** 0.5
            for name, w in trained.items():
                total[name] += late * (w.double() - base[name].double())
        new = {n: (w.double() + total[n] / 2).float() for n, w in weights[-1].items()}
        weights.append(new)
    for name, w in run.state.weights.items():
        torch.testing.assert_close(w, weights[-1][name])


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_does_what_it_says(name: str, run_tiny: RunTiny) -> None:
    run = run_tiny(extra={**SIX, **DIFFERENT, **SCHEDULES[name]}, rounds=6)
    turns = [turn for one in run.history for turn in one.turns]
    used = [sum(turn.outcome == "used" for turn in one.turns) for one in run.history]
    ends = [one.time for one in run.history]
    lengths = [end - start for start, end in zip([0.0, *ends[:-1]], ends, strict=True)]
    dropped = sum(turn.outcome == "dropped" for turn in turns)
    late = sum(one.round > turn.round for one in run.history for turn in one.turns)
    under_way = len(run.state.flight.turns)
    if name == "deadline":
        assert dropped
        assert not late + under_way
        assert min(lengths) == pytest.approx(0.4)
    if name == "soft_deadline":
        assert late
        assert not dropped
    if name == "over_select":
        assert used == [4] * 6
        assert dropped == 12
    if name == "buffered":
        assert used == [2] * 6
        assert late
        assert under_way == 4 - 1  # the fourth starts with the next round's model
    if name == "asynchronous":
        assert used == [1] * 6
        assert late
        assert under_way == 3 - 1
    started = sum(one.bytes_down["weights"] for one in run.history) / one_model(run)
    assert started == len(turns) + under_way
    assert sum(one.bytes_up["weights"] for one in run.history) / one_model(run) == sum(used)
    assert run.summary().virtual_time.turns.get("dropped", 0) == dropped


def one_model(run: Run) -> int:
    return sum(w.numel() * w.element_size() for w in run.runtime.initial.values())


def resumed(config: Any, registry: Any, path: Path, after: int) -> Run:
    """Interrupt a run after a round, resume it in the middle of its clients' turns, finish it."""
    rounds = Run(config, path, registry=registry).rounds()
    for result in rounds:
        if result.round == after:
            rounds.close()
            break
    again = Run.resume(path, registry=registry)
    assert again.state.round == after
    again.run()
    return again


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_resumed_in_mid_flight_has_the_same_bits(
    name: str, run_tiny: RunTiny, registry: Any, tiny_config: Any, tmp_path: Path
) -> None:
    given = {"extra": {**SIX, **DIFFERENT, **SCHEDULES[name]}, "rounds": 5}
    whole = run_tiny(directory=tmp_path / "whole", **given)
    again = resumed(tiny_config(registry, **given), registry, tmp_path / "again", 3)
    assert digests(again) == digests(whole)
    assert RunDirectory(tmp_path / "again").read_rounds() == again.history


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool needs fork")
@pytest.mark.parametrize("method", ["fedavg", "fedhpro", "scaffold"])
@pytest.mark.parametrize("name", ["synchronous", *SCHEDULES])
def test_every_executor_and_an_interruption_give_the_same_bits(
    name: str, method: str, run_tiny: RunTiny, registry: Any, tiny_config: Any, tmp_path: Path
) -> None:
    extra = {**SIX, **DIFFERENT, **SCHEDULES.get(name, {})}
    given = {"extra": extra, "rounds": 5, "failures": {"policy": "skip"}}
    plain = digests(run_tiny(method, **given))
    for workers in (1, 2, 3):
        pool = {"name": "pool", "workers": workers}
        assert digests(run_tiny(method, executor=pool, **given)) == plain, workers
    for executor in ("inline", "pool"):
        config = tiny_config(registry, method, executor=executor, **given)
        again = resumed(config, registry, tmp_path / executor, 2)
        assert digests(again) == plain, executor


@pytest.mark.long
@pytest.mark.parametrize("name", SCHEDULES)
def test_faults_live_on_the_same_clock(
    name: str, run_tiny: RunTiny, registry: Any, tiny_config: Any, tmp_path: Path
) -> None:
    faults = {"faults": {"drop": 0.2, "crash": 0.1, "stale": 0.1}}
    given: dict[str, Any] = {
        "extra": {**SIX, **DIFFERENT, **SCHEDULES[name], **faults},
        "rounds": 8,
        "failures": {"policy": "skip"},
    }
    run = run_tiny(**given)
    failed = [turn for one in run.history for turn in one.turns if turn.outcome == "failed"]
    lost = [failure for one in run.history for failure in one.failures if failure.lost]
    assert sorted(turn.client for turn in failed) == sorted(failure.client for failure in lost)
    assert failed
    again = resumed(tiny_config(registry, **given), registry, tmp_path / "again", 4)
    assert digests(again) == digests(run)


def test_what_needs_rounds_of_their_own_is_refused(run_tiny: RunTiny) -> None:
    message = r"'ccvr' and 'buffered' cannot be in the same run: its statistics travel in the last"
    with pytest.raises(ConfigError, match=message):
        run_tiny(extra={"ccvr": {}, **DIFFERENT, "buffered": {}})
    with pytest.raises(
        ConfigError, match=r"buffered\.size is 7, and a client is in an update once"
    ):
        run_tiny(extra={**DIFFERENT, "buffered": {"size": 7}})


# --- partial work --------------------------------------------------------------------------------


def test_partial_work_of_all_epochs_changes_nothing(run_tiny: RunTiny) -> None:
    full = {"sgd": {"epochs": 3}}
    plain = run_tiny(extra=full)
    same = run_tiny(extra={**full, "partial_work": {"least": 3}})
    assert sha256(same.state.weights) == sha256(plain.state.weights)


def test_clients_train_for_different_numbers_of_epochs(run_tiny: RunTiny) -> None:
    clock = {"constant": {"speed": 18.0, "bandwidth": 1e9}}  # an epoch takes a second
    run = run_tiny(extra={**SIX, **clock, "sgd": {"epochs": 5}, "partial_work": {}}, rounds=4)
    epochs = [(turn.end - turn.start) * 1.5 for one in run.history for turn in one.turns]
    assert {round(n) for n in epochs} == {1, 2, 3, 4, 5}
    few = run_tiny(
        extra={**SIX, **clock, "sgd": {"epochs": 5}, "partial_work": {"share": 0.3}}, rounds=4
    )
    all_epochs = [round((t.end - t.start) * 1.5) for one in few.history for t in one.turns]
    assert 0.5 < all_epochs.count(5) / len(all_epochs) < 0.95


def test_slow_clients_train_for_as_long_as_they_can(run_tiny: RunTiny) -> None:
    clock = {"two_class": {"slow": 0.5, "factor": 4.0, "speed": 12.0, "bandwidth": 1e9}}
    work = {"sgd": {"epochs": 4}, "partial_work": {"seconds": 8.5}}
    run = run_tiny(extra={**SIX, **clock, **work}, rounds=1)
    taken = {round(turn.end - turn.start, 6) for turn in run.history[0].turns}
    assert taken == {4.0, 8.0}  # four epochs of a second, and two of four seconds


def test_the_time_to_compute_in_needs_a_clock(run_tiny: RunTiny) -> None:
    with pytest.raises(ConfigError, match=r"^partial_work\.seconds needs a clock that tells"):
        run_tiny(extra={"partial_work": {"seconds": 3.0}})
    assert PartialWork().least == 1


def test_fednova_weighs_partial_work_by_its_steps(run_tiny: RunTiny) -> None:
    work = {"sgd": {"epochs": 3}, "partial_work": {}}
    run, plain = (run_tiny(method, extra=work) for method in ("fednova", "fedavg"))
    assert sha256(run.state.weights) != sha256(plain.state.weights)
