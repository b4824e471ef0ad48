"""Faults occur by rate and seed, each does what its name says, and all executors agree on them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fedbench_baselines.faults import KINDS, Faults, draw, spoiled

from fedbench import ClientContext, ConfigError, PerClass, Run, hookimpl
from fedbench.config import resolve as configs
from fedbench.config.changes import describe_changes
from fedbench.errors import NonFiniteError
from fedbench.failures import ClientFailed
from fedbench.plugins.registry import Registry
from fedbench.random import Streams

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool needs fork")
SKIP = {"policy": "skip"}
MIXED = {"drop": 0.2, "crash": 0.1, "delay": 0.1, "stale": 0.2, "nan": 0.1}
WIDE = {"clients_per_domain": 5}


@pytest.fixture
def faulty(registry: Registry) -> Callable[..., Run]:
    """Make runs of a method on the tiny data set with `Faults` as the outermost plugin."""

    def run(
        method: str = "fedavg",
        directory: Path | None = None,
        failures: dict[str, Any] = SKIP,
        rounds: int = 3,
        executor: dict[str, Any] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Run:
        return Run(
            faulty_config(registry, method, failures, rounds, executor, seed, options),
            directory,
            registry=registry,
        )

    return run


def faulty_config(
    registry: Registry,
    method: str,
    failures: dict[str, Any],
    rounds: int,
    executor: dict[str, Any] | None,
    seed: int,
    options: dict[str, Any],
) -> configs.RunConfig:
    recipe = registry.get("recipe", method).value
    trains = any("train" in registry.get("plugin", name).hooks for name in recipe.plugins)
    sgd = {} if trains else {"sgd": {"epochs": 1, "batch_size": 4, "lr": 0.05}}
    data = {
        "method": method,
        "data": "tiny",
        "model": "tiny_model",
        "rounds": rounds,
        "seed": seed,
        "failures": failures,
        "executor": executor or {"name": "inline"},
        "plugins": {
            "domains": WIDE,
            "normalize": {},
            "uniform": {},
            **sgd,
            **recipe.plugins,
            "faults": options,
        },
    }
    return configs.resolve(registry, file=configs.Document(data, "test"))


# --- the draw ------------------------------------------------------------------------------------


def test_faults_come_at_their_rates_and_one_at_a_time() -> None:
    rates = tuple(MIXED[kind] for kind in KINDS)
    streams, n = Streams(3), 20_000
    found = Counter(draw(rates, streams.torch("faults/1", i // 100, i % 100)) for i in range(n))
    for index, rate in [*enumerate(rates), (None, 1 - sum(rates))]:
        # Four standard deviations of a binomial share.
        assert abs(found[index] / n - rate) < 4 * (rate * (1 - rate) / n) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_rate_one_always_and_rate_zero_never(kind: str) -> None:
    rates = tuple(float(k == kind) for k in KINDS)
    drawn = {draw(rates, Streams(seed).torch("faults/1", 1, 1)) for seed in range(50)}
    assert drawn == {KINDS.index(kind)}


def test_rates_that_add_up_to_more_than_one_are_refused(faulty: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match=r"the rates of drop, crash.* add up to more than 1"):
        faulty(drop=0.6, nan=0.5)


def test_rates_that_add_up_to_one_are_taken_whatever_their_binary_fractions() -> None:
    rates = [0.79, 0.07, 0.04, 0.1]
    assert rates[0] + rates[1] + rates[2] + rates[3] > 1
    assert Faults(*rates).nan == 0


def test_another_seed_draws_other_faults(faulty: Callable[..., Run]) -> None:
    def lost(seed: int) -> list[list[int]]:
        run = faulty(seed=seed, drop=0.4)
        run.run()
        return [[f.client for f in r.failures] for r in run.history]

    assert lost(0) == lost(0) != lost(1)


# --- what each fault does ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "trains"),
    [
        ("drop", "dropped", False),
        ("crash", "crashed", True),
        ("delay", "late", True),
        ("nan", "not_finite", True),
    ],
)
def test_a_fault_loses_the_client_and_is_counted_by_its_kind(
    faulty: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    kind: str,
    trains: bool,
) -> None:
    trained = Counter[int]()
    batches = ClientContext.batches

    def spy(self: ClientContext, *given: Any, **named: Any) -> Any:
        for batch in batches(self, *given, **named):
            trained[self.client] += 1
            yield batch

    monkeypatch.setattr(ClientContext, "batches", spy)
    run = faulty(rounds=1, **{fault: 0.5})
    run.run()
    lost = {f.client for f in run.history[0].failures}
    assert 0 < len(lost) < 10
    assert {(f.kind, f.lost) for f in run.history[0].failures} == {(kind, True)}
    assert run.result()["failures"] == {kind: len(lost), "lost": len(lost)}
    whole = max(trained.values())
    for client in lost:
        expected = {"drop": 0, "crash": 1}.get(fault, whole)
        assert trained[client] == expected
        assert (trained[client] > 0) == trains
    assert all(trained[client] == whole for client in set(range(10)) - lost)


def test_a_fault_ends_the_run_under_the_default_policy(faulty: Callable[..., Run]) -> None:
    with pytest.raises(ClientFailed, match="dropped out") as caught:
        faulty(failures={}, drop=1.0).run()
    assert caught.value.__notes__ == [
        "in round 1, client 0",
        "(failures.policy=skip or retry lets a round continue)",
    ]
    with pytest.raises(NonFiniteError, match=r"^upload 'weights', tensor '.*', is not finite in"):
        faulty(failures={}, nan=1.0).run()


def test_a_stale_client_works_on_what_it_received_in_its_last_turn(
    faulty: Callable[..., Run], add: Callable[..., None], registry: Registry
) -> None:
    from dataclasses import dataclass

    begun: dict[tuple[int, int], float] = {}
    sent: dict[int, float] = {}

    @dataclass(frozen=True, eq=False)
    class Spy:
        @hookimpl(wrapper=True)
        def client_update(self, ctx: ClientContext) -> Any:
            bias = ctx.model.classifier.bias  # type: ignore[union-attr]
            begun[ctx.round, ctx.client] = float(bias.detach().sum())  # type: ignore[operator]
            assert torch.equal(ctx.payload.weights()["classifier.bias"], bias)  # type: ignore[arg-type]
            return (yield)

        @hookimpl
        def broadcast(self, state: Any) -> dict[str, Any]:
            sent[state.round + 1] = float(state.weights["classifier.bias"].sum())
            return {}

    add(spy=Spy)
    config = faulty_config(registry, "fedavg", SKIP, 4, None, 0, {"stale": 0.5})
    plugins = {**config.plugins, "spy": {}}
    data = {**config.to_dict(), "plugins": plugins}
    run = Run(configs.resolve(registry, file=configs.Document(data, "t")), registry=registry)
    run.run()
    stale = {(r.round, f.client) for r in run.history for f in r.failures}
    assert all(not f.lost and f.kind == "stale" for r in run.history for f in r.failures)
    assert not any(number == 1 for number, _ in stale)  # nothing older to work on
    assert 5 < len(stale) < 25
    for (number, client), value in begun.items():
        assert value == sent[number - 1 if (number, client) in stale else number]
    assert run.result()["failures"] == {"stale": len(stale), "lost": 0}


def test_nan_replaces_every_float_and_nothing_else() -> None:
    whole = spoiled(torch.tensor([1, 2]))
    assert isinstance(whole, torch.Tensor)
    assert whole.tolist() == [1, 2]
    rows = spoiled(PerClass(torch.tensor([3]), torch.ones(1, 2), torch.tensor([5])))
    assert isinstance(rows, PerClass)
    assert rows.values.isnan().all()
    assert rows.counts.tolist() == [5]
    named = spoiled({"w": torch.ones(2), "n": torch.tensor(7)})
    assert named["w"].isnan().all()  # type: ignore[index, union-attr]
    assert int(named["n"]) == 7  # type: ignore[index, arg-type]


# --- the whole run -------------------------------------------------------------------------------


def test_executors_and_workers_agree_on_every_fault(faulty: Callable[..., Run]) -> None:
    pools = [{"name": "pool", "workers": n} for n in (1, 2, 3)]
    runs = [faulty("fedproto", executor=e, **MIXED) for e in (None, *pools)]
    results = [run.run() for run in runs]
    assert set(results[0]["failures"]) > {"dropped", "stale", "not_finite", "lost"}
    for key in ("weights_sha256", "metrics_sha256", "failures"):
        assert all(result[key] == results[0][key] for result in results)
    assert all(
        [r.failures for r in run.history] == [r.failures for r in runs[0].history] for run in runs
    )


def test_a_run_without_any_fault_has_the_bits_of_one_without_the_plugin(
    faulty: Callable[..., Run], registry: Registry
) -> None:
    config = faulty_config(registry, "fedavg", SKIP, 3, None, 0, {})
    data = config.to_dict()
    del data["plugins"]["faults"]
    plain = Run(configs.resolve(registry, file=configs.Document(data, "t")), registry=registry)
    assert plain.run()["metrics_sha256"] == faulty().run()["metrics_sha256"]


def test_a_retry_draws_anew_and_ends_with_the_bits_of_a_run_without_faults(
    faulty: Callable[..., Run],
) -> None:
    result = faulty(failures={"policy": "retry", "attempts": 20}, drop=0.3, crash=0.2).run()
    assert result["failures"]["lost"] == 0
    assert result["failures"]["dropped"] > 0
    assert result["weights_sha256"] == faulty().run()["weights_sha256"]


def test_an_interrupted_run_goes_on_to_the_same_faults_and_bits(
    faulty: Callable[..., Run], registry: Registry, tmp_path: Path
) -> None:
    whole = faulty("fedproto", rounds=4, **MIXED).run()
    for result in faulty("fedproto", tmp_path / "r", rounds=4, **MIXED).rounds():
        if result.round == 2:
            break
    resumed = Run.resume(tmp_path / "r", registry=registry)
    assert len(resumed.history) == 2
    result = resumed.run()
    for key in ("weights_sha256", "metrics_sha256", "failures"):
        assert result[key] == whole[key]
    assert json.loads((tmp_path / "r" / "result.json").read_text())["failures"] == whole["failures"]


@pytest.mark.every_method(but=["centralised", "dp-fedavg"])  # one client; no batch norm
def test_every_method_goes_on_without_a_third_of_its_clients(
    faulty: Callable[..., Run], method: str
) -> None:
    run = faulty(method, drop=0.3)
    result = run.run()
    lost = [{f.client for f in r.failures if f.lost} for r in run.history]
    assert len(run.history) == 3
    assert result["failures"] == {"dropped": sum(map(len, lost)), "lost": sum(map(len, lost))}
    asked = sum(len(r.clients) for r in run.history)  # fedasync asks one client at a time
    assert 0 < result["failures"]["lost"] < asked


# --- the config ----------------------------------------------------------------------------------


def test_with_adds_the_plugin_first_and_set_gives_its_options(registry: Registry) -> None:
    config = configs.resolve(
        registry, "fedavg", card="digits", plus=["faults"], sets=["faults.drop=0.2"]
    )
    assert next(iter(config.plugins)) == "faults"
    assert config.plugins["faults"]["drop"] == 0.2
    assert describe_changes(registry, config) == ["+faults", "faults.drop=0.2"]
    again = configs.Document(config.to_dict(), "t")
    assert configs.resolve(registry, file=again).hash == config.hash


def test_with_names_the_nearest_plugin(registry: Registry) -> None:
    text = r"^--with fault: no plugin 'fault' \(did you mean 'faults'\?\)"
    with pytest.raises(ConfigError, match=text):
        configs.resolve(registry, "fedavg", card="digits", plus=["fault"])


def test_faults_are_options_like_others() -> None:
    assert Faults().drop == 0.0
    assert Faults.outermost
