"""Robust aggregators in rounds: identities, rounds by hand, and who is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from fedbench_baselines.clipping import NormClip
from fedbench_baselines.krum import Krum, MultiKrum
from fedbench_baselines.median import Median
from fedbench_baselines.rfa import GeometricMedian
from fedbench_baselines.trimmed_mean import TrimmedMean
from torch import Tensor

from fedbench import ClientResult, ConfigError, Run, ServerUpdate, Weights, testing

BASE = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(5)}
RULES: Mapping[str, Any] = {
    "median": Median(),
    "trimmed_mean": TrimmedMean(),
    "krum": Krum(),
    "multi_krum": MultiKrum(),
    "geometric_median": GeometricMedian(),
    "norm_clip": NormClip(bound=100.0),
}


def results(*updates: list[float], examples: tuple[int, ...] = ()) -> list[ClientResult]:
    """Return what clients send whose updates of ``w`` are given; ``n`` counts from 10."""
    return [
        testing.client_result(
            client=2 * k,
            examples=examples[k] if examples else 1,
            uploads={"weights": {"w": BASE["w"] + torch.tensor(d), "n": torch.tensor(10 + k)}},
            sent={"weights": BASE},
        )
        for k, d in enumerate(updates)
    ]


def aggregated(rule: Any, given: list[ClientResult]) -> ServerUpdate:
    found = rule.aggregate(state=testing.server_state(weights=BASE), results=iter(given))
    return found if isinstance(found, ServerUpdate) else ServerUpdate(weights=found)


def update(rule: Any, given: list[ClientResult]) -> Tensor:
    return aggregated(rule, given).weights["w"] - BASE["w"]


@pytest.mark.parametrize("name", RULES)
def test_of_identical_updates_it_is_that_update(name: str) -> None:
    same = [[0.5, -0.25]] * 5
    assert update(RULES[name], results(*same)).tolist() == [0.5, -0.25]


@pytest.mark.parametrize("name", [name for name in RULES if name != "norm_clip"])
def test_an_integer_buffer_is_the_first_clients(name: str) -> None:
    weights = aggregated(RULES[name], results(*[[0.0, 0.0]] * 5)).weights
    assert weights["n"].dtype == torch.int64
    assert int(weights["n"]) == 10


def test_the_median_of_an_even_number_is_between_the_middle_two() -> None:
    given = results([0.0, 4.0], [1.0, 3.0], [3.0, -9.0], [90.0, 1.0])
    assert update(Median(), given).tolist() == [2.0, 2.0]


def test_the_trimmed_mean_drops_its_share_of_the_round() -> None:
    given = results([-90.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [90.0, 99.0])
    assert update(TrimmedMean(fraction=0.2), given).tolist() == [2.0, 2.0]
    assert update(TrimmedMean(fraction=0.4), given).tolist() == [2.0, 2.0]
    untrimmed = update(TrimmedMean(fraction=0.1), given)
    assert torch.allclose(untrimmed, torch.tensor([1.2, 21.0]))


def test_shares_that_are_whole_clients_are_not_rounded_down() -> None:
    assert 0.29 * 100 < 29
    spread = results(*[[float(k), 0.0] for k in range(100)])
    middle = [float(k) for k in range(29, 71)]
    assert update(TrimmedMean(fraction=0.29), spread)[0] == sum(middle) / len(middle)


def test_krum_ignores_the_attacked_and_says_whom_it_chose() -> None:
    given = results([1.0, 1.0], [1.1, 1.0], [0.9, 1.0], [1.0, 1.25], [-50.0, 50.0])
    one = aggregated(Krum(fraction=0.2), given)
    assert torch.allclose(one.weights["w"] - BASE["w"], torch.tensor([1.0, 1.0]))
    assert one.metrics == {"krum.client": 0.0}
    two = aggregated(MultiKrum(fraction=0.2, keep=3), given)
    assert torch.allclose(two.weights["w"] - BASE["w"], torch.tensor([1.0, 1.0]))
    chosen = {0: 1.0, 2: 1.0, 4: 1.0, 6: 0.0, 8: 0.0}
    assert two.metrics == {f"multi_krum.client.{c}": value for c, value in chosen.items()}


def test_multi_krum_keeps_by_default_as_many_as_it_compares_with() -> None:
    given = results([1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [-50.0, 50.0])
    assert sum(aggregated(MultiKrum(fraction=0.2), given).metrics.values()) == 5 - 1 - 2


def test_the_geometric_median_stays_with_the_majority() -> None:
    given = results([1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [100.0, 100.0])
    rule = GeometricMedian(iterations=50)
    assert torch.allclose(update(rule, given), torch.tensor([1.0, 0.0]), atol=1e-3)


def test_the_geometric_median_weighs_by_examples_or_alike() -> None:
    given = results([0.0, 0.0], [1.0, 0.0], examples=(9, 1))
    start = {"iterations": 1, "tolerance": 0.0, "smoothing": 100.0}
    assert update(GeometricMedian(**start), given)[0] == pytest.approx(0.1)
    assert update(GeometricMedian(weights="uniform", **start), given)[0] == 0.5


def test_norm_clip_shortens_long_updates_and_counts_them() -> None:
    given = results([3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [0.0, 0.0])
    found = aggregated(NormClip(bound=1.0), given)
    expected = torch.tensor([0.6 + 0.3, 0.8 + 0.4]) / 4
    assert torch.allclose(found.weights["w"] - BASE["w"], expected)
    assert found.metrics["norm_clip.clipped"] == 0.25
    assert found.metrics["norm_clip.norm"] == pytest.approx(5.5 / 4)
    weighed = update(NormClip(bound=1.0), results([3.0, 4.0], [0.0, 0.0], examples=(3, 1)))
    assert torch.allclose(weighed, torch.tensor([0.45, 0.6]))


def test_norm_clip_without_long_updates_is_the_mean_to_the_bit(
    run_tiny: Callable[..., Run],
) -> None:
    plain = run_tiny("fedavg").summary()
    clipped = run_tiny("norm-clip", extra={"norm_clip": {"bound": 1e6}}).summary()
    assert clipped.weights_sha256 == plain.weights_sha256


def test_weights_that_do_not_travel_stay_as_they_are() -> None:
    state = testing.server_state(weights={**BASE, "head": torch.ones(1)})
    found: Weights = Median().aggregate(state=state, results=iter(results([1.0, 1.0])))
    assert set(found) == {"n", "w"}


def test_what_was_not_sent_down_is_compared_with_the_servers_own() -> None:
    given = testing.client_result(uploads={"weights": {"w": torch.tensor([4.0, 6.0])}})
    clipped = NormClip(bound=2.5).aggregate(
        state=testing.server_state(weights=BASE), results=iter([given])
    )
    assert torch.allclose(clipped.weights["w"], torch.tensor([2.5, 4.0]))


def test_too_few_clients_for_krum_are_refused_before_the_run(run_tiny: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match="byzantine = 1 needs at least 5 clients") as found:
        run_tiny("krum", extra={"krum": {"fraction": 0.4}})
    assert "the option fraction times the clients" in str(found.value)


def test_too_few_clients_in_a_round_are_refused(run_tiny: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match="needs at least 3 clients in every round, and there are"):
        run_tiny("multi-krum", extra={"uniform": {"fraction": 0.5}})


@pytest.mark.parametrize(
    ("name", "why"),
    [("fednova", "exactly one"), ("feddyn", "plain mean"), ("scaffold", "plain mean")],
)
def test_server_steps_made_for_the_plain_mean_are_refused(
    name: str, why: str, run_tiny: Callable[..., Run]
) -> None:
    with pytest.raises(ConfigError, match=why):
        run_tiny("median", extra={name: {}})


@pytest.mark.parametrize("server", ["fedadam", "fedavgm"])
def test_server_optimisers_go_with_robust_means(server: str, run_tiny: Callable[..., Run]) -> None:
    plain, both = run_tiny("median"), run_tiny("median", extra={server: {"lr": 0.5}})
    assert plain.summary().weights_sha256 != both.summary().weights_sha256
