"""Every defence meets every attack, and both meet the methods that send more than weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fedbench import Run
from fedbench.engine.totals import canonical_round

DEFENCES = ("mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_clip")
ATTACKS: dict[str, dict[str, Any]] = {
    "label_flip": {},
    "sign_flip": {},
    "gaussian": {},
    "alie": {"factor": 1.5},
    "ipm": {},
    "backdoor": {},
}
WIDE = {"domains": {"clients_per_domain": 5}}
"""Ten clients, of which two are malicious."""


def composed(
    run_tiny: Callable[..., Run], method: str, defence: str, attack: str, **more: Any
) -> Run:
    extra = {**WIDE, defence: {}, attack: ATTACKS[attack]}
    without = [] if defence == "mean" else ["mean"]
    return run_tiny(method, extra=extra, without=without, **more)


def numbers(run: Run) -> Iterator[float]:
    for one in run.history:
        yield from one.metrics.values()
        yield from one.scores["classifier"]["accuracy"].domains.values()  # type: ignore[misc]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "defence", [DEFENCES[0], *(pytest.param(d, marks=pytest.mark.long) for d in DEFENCES[1:])]
)
def test_every_pair_runs_and_records_two_malicious_clients(
    defence: str, attack: str, run_tiny: Callable[..., Run]
) -> None:
    run = composed(run_tiny, "fedavg", defence, attack)
    assert all(map(math.isfinite, numbers(run)))
    assert [one.metrics[f"{attack}.malicious"] for one in run.history] == [2.0, 2.0]
    backdoored = ["backdoor"] if attack == "backdoor" else []
    for one in run.history:
        assert [*one.extra_scores.get("classifier", {}).get("accuracy", {})] == backdoored


@pytest.mark.parametrize("method", ["fedproto", "fpl", "fedhpro", "moon", "fedprox"])
def test_other_methods_take_both(method: str, run_tiny: Callable[..., Run]) -> None:
    run = composed(run_tiny, method, "multi_krum", "ipm")
    assert all(map(math.isfinite, numbers(run)))


@pytest.mark.parametrize(("defence", "attack"), [("krum", "gaussian"), ("median", "alie")])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool needs fork")
def test_the_same_bits_in_a_pool(defence: str, attack: str, run_tiny: Callable[..., Run]) -> None:
    inline = composed(run_tiny, "fedavg", defence, attack)
    more = {"executor": {"name": "pool", "workers": 2}}
    pool = composed(run_tiny, "fedavg", defence, attack, **more)
    assert [*map(canonical_round, inline.history)] == [*map(canonical_round, pool.history)]
    assert inline.summary().weights_sha256 == pool.summary().weights_sha256


def test_krum_never_chooses_noise(run_tiny: Callable[..., Run]) -> None:
    loud = {"gaussian": {"sigma": 10.0}}
    for seed in range(3):
        given = {"extra": {**WIDE, "krum": {}, **loud}, "without": ["mean"], "seed": seed}
        for one in run_tiny(**given).history:
            chosen = int(one.metrics["krum.client"])
            assert f"gaussian.client.{chosen}" not in one.metrics
