"""The plugin `dp`: a hand-computed round, its noise and its epsilon, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fedbench_baselines.dp import epsilon
from fedbench_baselines.privacy import Dp, all_classes, noised

from fedbench import ClientResult, ConfigError, PerClass, Run, Value, testing
from fedbench.engine.totals import canonical_round
from fedbench.store.directory import RunDirectory

BASE = {"classifier.bias": torch.tensor([1.0, 2.0, 3.0])}
FREE = {"noise_multiplier": 0.0, "bounds": {"weights": 1e6}}


def result(client: int, update: list[float], **more: Value) -> ClientResult:
    weights = {"classifier.bias": BASE["classifier.bias"] + torch.tensor(update)}
    return testing.client_result(
        client=client, uploads={"weights": weights, **more}, sent={"weights": BASE}
    )


def received(plugin: Dp, given: list[ClientResult], cohort: int, seed: int = 0) -> list[Any]:
    ctx = testing.server_context(client_sizes=(9,) * 8, cohort=tuple(range(cohort)), seed=seed)
    state = testing.server_state(weights=BASE)
    return list(plugin.receive_uploads(ctx=ctx, state=state, results=iter(given)))


# --- the mechanism -------------------------------------------------------------------------------


def test_a_round_by_hand() -> None:
    plugin = Dp(bounds={"weights": 5.0}, noise_multiplier=0.0)
    given = [result(0, [6.0, 8.0, 0.0]), result(1, [0.0, 0.0, 2.0])]
    found = received(plugin, given, cohort=2)
    weights = plugin.aggregate(results=iter(found))
    assert torch.allclose(weights["classifier.bias"], torch.tensor([2.5, 4.0, 4.0]))


def test_a_lost_client_does_not_change_the_denominator() -> None:
    plugin = Dp(bounds={"weights": 5.0}, noise_multiplier=0.0)
    [one] = received(plugin, [result(0, [4.0, 0.0, 0.0])], cohort=4)
    assert one.uploads.weights()["classifier.bias"].tolist() == [2.0, 2.0, 3.0]


def test_after_it_every_client_has_the_mean() -> None:
    given = [result(k, [float(k), 0.0, 0.0]) for k in range(3)]
    first, *others = received(Dp(bounds={"weights": 5.0}), given, cohort=3)
    for other in others:
        assert torch.equal(
            other.uploads.weights()["classifier.bias"], first.uploads.weights()["classifier.bias"]
        )


def test_the_noise_on_a_mean_is_z_times_the_bound_by_the_cohort() -> None:
    plugin = Dp(bounds={"weights": 2.0}, noise_multiplier=3.0)
    given = [result(k, [0.0, 0.0, 0.0]) for k in range(4)]
    drawn = [
        received(plugin, given, cohort=4, seed=seed)[0].uploads.weights()["classifier.bias"]
        - BASE["classifier.bias"]
        for seed in range(300)
    ]
    assert float(torch.cat(drawn).std()) == pytest.approx(3.0 * 2.0 / 4, rel=0.1)


def test_several_keys_share_the_noise_multiplier() -> None:
    plugin = Dp(bounds={"weights": 2.0, "a": 1.0, "b": 0.5, "c": 1.0}, noise_multiplier=1.5)
    stds = {key: plugin._std(key) / bound for key, bound in plugin.bounds.items()}
    assert sum(z**-2 for z in stds.values()) ** -0.5 == pytest.approx(1.5)


def test_noise_does_not_depend_on_the_order_of_names() -> None:
    parts = {"a": torch.zeros(2), "b": torch.zeros(3)}
    turned = dict(reversed(parts.items()))
    one, other = (noised(p, 1.0, torch.Generator().manual_seed(1)) for p in (parts, turned))
    assert all(torch.equal(one[name], other[name]) for name in parts)


def test_rows_tell_neither_classes_nor_counts() -> None:
    rows = PerClass(torch.tensor([2, 0]), torch.tensor([[1.0], [5.0]]), torch.tensor([7, 9]))
    found = all_classes(rows, 4)
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert found.values.tolist() == [[5.0], [0.0], [1.0], [0.0]]
    assert found.counts.tolist() == [1, 1, 1, 1]


def test_any_key_is_clipped_over_all_its_rows() -> None:
    plugin = Dp(bounds={"weights": 9.0, "rows": 1.0}, noise_multiplier=0.0)
    rows = PerClass(torch.arange(2), torch.tensor([[3.0], [4.0]]), torch.ones(2).long())
    [found] = received(plugin, [result(0, [0.0, 0.0, 0.0], rows=rows)], cohort=1)
    assert torch.allclose(found.uploads.per_class("rows").values, torch.tensor([[0.6], [0.8]]))


# --- runs ----------------------------------------------------------------------------------------


def test_without_noise_and_with_a_large_bound_it_is_the_uniform_mean(
    run_tiny: Callable[..., Run],
) -> None:
    model = {"name": "tiny_model", "norm": "none"}
    plain = run_tiny("fedavg", model=model, extra={"mean": {"weights": "uniform"}})
    private = run_tiny("dp-fedavg", extra={"dp": FREE})
    for name, w in plain.state.weights.items():  # type: ignore[union-attr]
        assert torch.allclose(w, private.state.weights[name], atol=1e-6)  # type: ignore[union-attr]
    assert "dp.epsilon" not in private.history[0].metrics
    assert private.summary().conclusions == [
        "dp: no epsilon is claimed: uploads were clipped and no noise was added"
    ]


def test_epsilon_is_reported_with_all_that_it_depends_on(
    run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    options = {"noise_multiplier": 2.0, "delta": 1e-3}
    extra = {"dp": options, "uniform": {"fraction": 0.5}}
    run = run_tiny("dp-fedavg", directory=tmp_path / "run", rounds=3, extra=extra)
    expected = epsilon(2.0, 3, 1e-3, 2, 4, "without_replacement")
    for one in run.history:
        assert {k: v for k, v in one.metrics.items() if k.startswith("dp.")} == {
            "dp.epsilon": expected,
            "dp.delta": 1e-3,
            "dp.noise_multiplier": 2.0,
            "dp.rounds": 3.0,
            "dp.cohort": 2.0,
            "dp.clients": 4.0,
            "dp.bound.weights": 1.0,
        }
    (said,) = RunDirectory(tmp_path / "run").read_result().conclusions  # type: ignore[union-attr]
    for part in (
        f"({expected:.4g}, 0.001)-differential privacy after 3 rounds",
        "Noise multiplier 2, Gaussian noise added by the server; clipped at weights 1",
        "2 of 4 clients per round, drawn without replacement",
        "neighbours differ by one client being replaced; RDP accountant of dp-accounting ",
        "not for reported losses and scores",
    ):
        assert part in said


def test_a_run_that_ends_early_states_the_bound_of_all_its_rounds(run_tiny):
    run = run_tiny(
        "dp-fedavg", rounds=3, stop_at=0.0, extra={"dp": FREE | {"noise_multiplier": 1.0}}
    )
    (said,) = run.summary().conclusions
    assert len(run.history) == 1
    expected = run.history[-1].metrics["dp.epsilon"]
    assert f"({expected:.4g}, " in said
    assert "privacy after 1 of at most 3 rounds" in said


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_epsilon_falls_when_noise_grows(fraction: float, run_tiny: Callable[..., Run]) -> None:
    def reported(z: float) -> float:
        extra = {"dp": {"noise_multiplier": z}, "uniform": {"fraction": fraction}}
        return run_tiny("dp-fedavg", rounds=1, extra=extra).history[0].metrics["dp.epsilon"]

    assert reported(1.0) > reported(2.0) > reported(4.0)


PROTO = {"bounds": {"weights": 1.0, "fedproto.prototypes": 1.0}}
FPL = {"bounds": {"weights": 1.0, "fpl.prototypes": 1.0}, "noise": "clients"}
GRADIENTS = ("class_gradients", "classifier_weight_gradients", "classifier_bias_gradients")
FEDHPRO = {"bounds": {"weights": 1.0, **dict.fromkeys(GRADIENTS, 0.5)}}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("fedavg", {}),
        ("fedavg", {"noise": "clients"}),
        ("fedproto", PROTO),
        ("fpl", FPL),
        ("fedhpro", FEDHPRO),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool needs fork")
def test_the_same_bits_in_a_pool(method: str, options: Any, run_tiny: Callable[..., Run]) -> None:
    given = {"without": ["mean"], "extra": {"dp": options}}
    inline = run_tiny(method, **given)
    pool = run_tiny(method, executor={"name": "pool", "workers": 2}, **given)
    assert [*map(canonical_round, inline.history)] == [*map(canonical_round, pool.history)]
    assert inline.summary().weights_sha256 == pool.summary().weights_sha256


def test_noise_of_clients_adds_up_to_that_of_the_server(run_tiny: Callable[..., Run]) -> None:
    def moved(noise: str) -> float:
        loud = {"noise_multiplier": 1000.0, "noise": noise}
        state = run_tiny("dp-fedavg", rounds=1, extra={"dp": loud}).state
        return float(torch.cat([w.flatten() for w in state.weights.values()]).std())  # type: ignore[union-attr]

    assert moved("server") == pytest.approx(1000.0 / 4, rel=0.15)
    assert moved("clients") == pytest.approx(1000.0 / 4, rel=0.15)


def test_prototypes_reach_the_server_as_a_noised_mean_of_all_classes(
    run_tiny: Callable[..., Run],
) -> None:
    run = run_tiny("fedproto", without=["mean"], extra={"dp": PROTO})
    kept = run.state.entries.per_class("fedproto.prototypes")  # type: ignore[union-attr]
    assert kept.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("codec", [{"topk": {}}, {"qsgd": {}}])
def test_clipping_acts_on_what_was_decoded(
    codec: dict[str, Any], run_tiny: Callable[..., Run]
) -> None:
    tight = {"bounds": {"weights": 1e-9}, "noise_multiplier": 0.0}
    run = run_tiny("dp-fedavg", extra={"dp": tight, **codec})
    for name, w in run.state.weights.items():  # type: ignore[union-attr]
        assert torch.allclose(w, run.runtime.initial[name], atol=1e-7)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "more", "text"),
    [
        ("dp-fedavg", {"model": "tiny_model"}, "send the buffer 'norm.num_batches_tracked'"),
        (
            "fedproto",
            {"without": ["mean"]},
            "also send 'fedproto.prototypes', which is not clipped",
        ),
        ("dp-fedavg", {"extra": {"mean": {}}}, "a run has exactly one"),
        ("dp-fedavg", {"extra": {"median": {}}}, "a run has exactly one"),
        ("dp-fedavg", {"without": ["uniform"]}, "uniform"),
        ("dp-fedavg", {"extra": {"dp": {"bounds": {}}}}, "at least 1"),
        ("dp-fedavg", {"extra": {"dp": {"bounds": {"weight": 1.0}}}}, "'weights', which is not"),
        (
            "dp-fedavg",
            {"extra": {"dp": {"noise": "clients"}, "topk": {}}},
            r"topk\.keys: 'weights' cannot be encoded: the sum would have less noise",
        ),
        ("dp-fedavg", {"extra": {"dp": PROTO}}, "client 0 does not send 'fedproto.prototypes'"),
    ],
)
def test_where_no_epsilon_can_be_claimed(
    method: str, more: dict[str, Any], text: str, run_tiny: Callable[..., Run]
) -> None:
    more = dict(more)
    extra = {"dp": {}, **more.pop("extra", {})}
    with pytest.raises(ConfigError, match=text):
        run_tiny(method, extra=extra, **more)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_cohort_without_clients_that_are_offline_is_no_uniform_sample(
    noise: float, run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    file = tmp_path / "own.csv"
    rows = ["100,1,1,0-500", "100,1,1,500-1000"] * 5
    file.write_text("\n".join(["speed,down,up,online", *rows]))
    trace = {"file": str(file), "period": 1000.0, "offline": False}
    extra = {"dp": {"noise_multiplier": noise}, "trace": trace}
    if not noise:
        run_tiny("dp-fedavg", extra=extra, rounds=1, seed=1)
        return
    with pytest.raises(ConfigError, match="claimed: the clients of a round are no uniform sample"):
        run_tiny("dp-fedavg", extra=extra, rounds=1, seed=1)


def test_a_lost_clients_part_of_the_noise_is_missed() -> None:
    plugin = Dp(bounds={"weights": 5.0}, noise="clients")
    with pytest.raises(ConfigError, match="no epsilon can be claimed: clients were lost"):
        received(plugin, [result(0, [4.0, 0.0, 0.0])], cohort=2)


def test_a_key_that_only_some_clients_send_tells_who_they_are() -> None:
    plugin = Dp(bounds={"weights": 5.0, "more": 1.0})
    given = [result(0, [0.0, 0.0, 0.0], more=torch.ones(1)), result(1, [0.0, 0.0, 0.0])]
    with pytest.raises(ConfigError, match="client 1 does not send 'more'"):
        received(plugin, given, cohort=2)


def test_integers_cannot_be_protected() -> None:
    plugin = Dp(bounds={"weights": 5.0, "n": 1.0})
    given = [result(0, [0.0, 0.0, 0.0], n=torch.tensor([1]))]
    with pytest.raises(ConfigError, match="upload 'n': its part '' holds integers"):
        received(plugin, given, cohort=1)


def test_several_rows_of_a_class_cannot_be_protected() -> None:
    rows = PerClass(torch.tensor([1, 1]), torch.ones(2, 1), torch.ones(2).long())
    with pytest.raises(ConfigError, match="several rows for one class"):
        all_classes(rows, 3)
