"""The baselines in real rounds: the server by hand, client state, composition from YAML."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench import ConfigError, PerClass, Report, Run, hookimpl, testing
from fedbench.config import resolve as configs
from fedbench.config import yamlfile
from fedbench.plugins.registry import Registry
from fedbench.store.client_states import ClientStates

RunTiny = Callable[..., Run]
TERMS: dict[str, dict[str, Any]] = {
    "fedprox": {"mu": 0.1},
    "moon": {},
    "fedproto": {},
    "fpl": {},
    "hpcl": {},
    "hpal": {},
}
FEDHPRO_PARTS = ("class_batches", "recalibration", "hyper_prototypes")


def digests(run: Run) -> tuple[str, str]:
    result = run.result()
    return result["weights_sha256"], result["metrics_sha256"]


@pytest.mark.every_method(slow=True)
def test_twice_the_same_bits(method: str, run_tiny: RunTiny) -> None:
    assert digests(run_tiny(method, rounds=3)) == digests(run_tiny(method, rounds=3))


def test_fedprox_without_mu_is_fedavg_to_the_bit(run_tiny: RunTiny) -> None:
    plain = run_tiny("fedavg", rounds=3)
    zero = run_tiny("fedavg", rounds=3, extra={"fedprox": {"mu": 0.0}})
    some = run_tiny("fedavg", rounds=3, extra={"fedprox": {"mu": 0.5}})
    assert digests(zero) == digests(plain)
    assert digests(some)[0] != digests(plain)[0]


def test_fedprox_starts_at_the_received_weights(run_tiny: RunTiny) -> None:
    run = run_tiny("fedprox", rounds=1, extra={"sgd": {"epochs": 1, "batch_size": 10**6}})
    assert run.history[0].metrics["loss.fedprox"] == 0


def test_moon_has_no_term_in_a_clients_first_turn(run_tiny: RunTiny) -> None:
    run = run_tiny("moon", rounds=2)
    assert "loss.moon" not in run.history[0].metrics
    assert run.history[1].metrics["loss.moon"] > 0


def test_moons_previous_model_survives_rounds_that_a_client_misses(run_tiny: RunTiny) -> None:
    run = run_tiny("moon", rounds=6, extra={"uniform": {"fraction": 0.25}})
    turns = [result.clients[0] for result in run.history]
    seen: set[int] = set()
    for client, result in zip(turns, run.history, strict=True):
        assert ("loss.moon" in result.metrics) == (client in seen)
        seen.add(client)
    assert len(seen) < len(turns), "some client must have a second turn"


def test_client_state_is_no_traffic_and_lives_on_disk_when_it_is_much(
    registry: Registry, tiny_config: Callable[..., Any], run_tiny: RunTiny, tmp_path: Path
) -> None:
    in_memory = run_tiny("moon", rounds=3)
    on_disk = Run(tiny_config(registry, "moon", rounds=3), tmp_path / "r", registry=registry)
    on_disk._clients = ClientStates(tmp_path / "r" / "clients", limit=0)
    files = 0
    for result in on_disk.rounds():
        assert set(result.bytes_up) == {"weights"}
        files = len(list((tmp_path / "r" / "clients").iterdir()))
    assert files == 4
    assert digests(on_disk) == digests(in_memory)


def prototypes_of(values: list[list[float]], counts: list[int], labels: list[int]) -> PerClass:
    return PerClass(torch.tensor(labels), torch.tensor(values), torch.tensor(counts))


@pytest.mark.parametrize(("average", "expected"), [("plain", [2.0, 4.0]), ("by_count", [1.5, 3.0])])
def test_fedproto_server_by_hand(average: str, expected: list[float], registry: Registry) -> None:
    """Client 0 holds classes 0 and 1, client 1 holds class 0; no client holds class 2."""
    plugin = registry.get("plugin", "fedproto").value(average=average)
    first = prototypes_of([[1.0, 2.0], [7.0, 7.0]], [3, 5], [0, 1])
    second = prototypes_of([[3.0, 6.0]], [1], [0])
    reports = [_report(0, first), _report(1, second)]
    found = plugin.server_update(reports=reports).entries["fedproto.prototypes"]
    assert found.labels.tolist() == [0, 1]
    assert found.values.tolist() == [expected, [7.0, 7.0]]
    assert found.counts.tolist() == [4, 5]


def _report(client: int, upload: PerClass) -> Report:
    return testing.report(client=client, uploads={"fedproto.prototypes": upload})


def test_both_inference_rules_are_in_the_result(run_tiny: RunTiny) -> None:
    for method in ("fedproto", "fedproto-aaai"):
        run = run_tiny(method, rounds=2)
        assert set(run.history[-1].scores) == {"classifier", "nearest_prototype"}
        assert run.result()["accuracy"]["inference"] == "classifier"
        other = run_tiny(method, rounds=2, accuracy={"inference": "nearest_prototype"})
        accuracy = other.result()["accuracy"]
        assert accuracy["inference"] == "nearest_prototype"
        assert accuracy["rule"].endswith("nearest_prototype inference")
        last = other.history[-1].scores["nearest_prototype"]["accuracy"]
        assert last == run.history[-1].scores["nearest_prototype"]["accuracy"]


def test_aaai_form_sends_no_weights_and_keeps_models_apart(
    registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    run = Run(tiny_config(registry, "fedproto-aaai", rounds=2), tmp_path / "r", registry=registry)
    for _ in run.rounds():
        states = {c: run._clients[c]["personal.weights"] for c in run._clients}
    assert set(run.result()["bytes"]["up"]) == {"fedproto.prototypes"}
    assert set(run.result()["bytes"]["down"]) == {"fedproto.prototypes"}
    assert run.state is not None
    assert all(torch.equal(run.state.weights[k], v) for k, v in run.runtime.initial.items()), (
        "the global model is never trained"
    )
    weights = [s["classifier.weight"] for s in states.values()]  # type: ignore[index,call-overload]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(weights, 2))


@contextmanager
def enough_clients() -> Iterator[None]:
    """Let a method refuse a round with too few clients, if it says how many it needs."""
    try:
        yield
    except ConfigError as error:
        if "needs at least" not in str(error):
            raise


@pytest.mark.every_method(slow=True)
@pytest.mark.parametrize(
    "extra",
    [
        {"domains": {"clients_per_domain": {"ink": 1}}},
        {"sgd": {"epochs": 1, "batch_size": 17, "lr": 0.05}},
        {"uniform": {"fraction": 0.01}},
    ],
    ids=["one client", "a last batch of one", "one client online"],
)
def test_edges(method: str, extra: dict[str, Any], run_tiny: RunTiny) -> None:
    if method == "pfedme" and "sgd" in extra:  # it is its own trainer
        extra = {"pfedme": {"batch_size": 17}}
    with enough_clients():
        run = run_tiny(method, rounds=2, extra=extra)
        assert all(v == v and abs(v) < 1e6 for r in run.history for v in r.metrics.values())


@dataclass(frozen=True, eq=False)
class OneClassEach:
    """Client 0 holds only class 0, client 1 only class 1; no client holds class 2."""

    @hookimpl
    def partition(self, data: Any) -> Any:
        return [(data.train.labels == c).nonzero().flatten() for c in (0, 1)]


@pytest.mark.every_method
def test_a_client_with_one_class_and_a_class_nobody_holds(
    method: str, registry: Registry, tiny_config: Callable[..., Any], add: Callable[..., None]
) -> None:
    add(one_class=OneClassEach)
    config = tiny_config(registry, method).to_dict()
    del config["plugins"]["domains"]
    config["plugins"]["one_class"] = {}
    run = Run(configs.resolve(registry, file=yamlfile.Document(config, "test")), registry=registry)
    with enough_clients():
        run.run()
    assert all(v == v and abs(v) < 1e6 for r in run.history for v in r.metrics.values())


def compose(registry: Registry, tiny_config: Callable[..., Any], names: tuple[str, ...]) -> str:
    """Return the YAML of FedAvg with these terms."""
    config = tiny_config(registry, "fedavg", rounds=2).to_dict()
    needed = FEDHPRO_PARTS if {"hpcl", "hpal"} & set(names) else ()
    for name in (*needed, *names):
        config["plugins"][name] = TERMS.get(name, {})
    return yamlfile.dump(config)


@pytest.mark.parametrize(
    "names",
    [*itertools.combinations(TERMS, 2), ("hpcl", "hpal", "fedprox", "moon"), tuple(TERMS)],
    ids="+".join,
)
def test_terms_add_up_from_yaml_alone(
    names: tuple[str, ...], registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(compose(registry, tiny_config, names))
    run = Run(configs.load_config(registry, file), registry=registry)
    run.run()
    metrics = run.history[-1].metrics
    for name in ("cross_entropy", *names):
        value = metrics[f"loss.{name}"]
        assert value == value
        assert abs(value) < 1e6
