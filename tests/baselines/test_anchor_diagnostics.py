"""Diagnostics of anchors in real rounds: their numbers, and that training stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from fedbench_baselines import representations as numbers
from fedbench_baselines.anchor_diagnostics import due, pictured, some_of_each
from fedbench_baselines.anchor_pictures import heat_map, projection
from torch import Tensor

from fedbench import ClientContext, PerClass, Run, Value, hookimpl
from fedbench.errors import NonFiniteError
from fedbench.pictures import HeatMap, Scatter
from fedbench.plugins.facts import PluginFacts, facts
from fedbench.plugins.registry import Registry
from fedbench.types import forward

RunTiny = Callable[..., Run]
ADDED = {"anchor_diagnostics": {"probe": 12}}

ALWAYS = {"uniformity", "effective_rank", "cka"}
WITH_ANCHORS = {
    *("consistency", "consistency.std_clients", "consistency.std_domains", "gradient_agreement"),
    *("nearest_accuracy", "separation.mean_cosine", "separation.max_cosine"),
}


def named(run: Run, number: int) -> dict[str, float]:
    start = "anchor_diagnostics."
    metrics = run.history[number - 1].metrics
    return {k.removeprefix(start): v for k, v in metrics.items() if k.startswith(start)}


def test_rounds_that_are_measured_and_drawn() -> None:
    assert [n for n in range(1, 11) if due(n, 10, 4)] == [4, 8, 10]
    assert pictured(10, 1) == {1, 5, 10}
    assert pictured(10, 4) == {4, 8, 10}
    assert pictured(1, 7) == {1}


def test_some_of_each_class_are_drawn() -> None:
    labels = torch.tensor([3, 1, 3, 3, 1, 0])
    chosen = some_of_each(labels, 2, torch.Generator().manual_seed(0))
    assert labels[chosen].tolist() == [0, 1, 1, 3, 3]
    assert len({*chosen.tolist()}) == 5


@pytest.mark.every_method(slow=True)
def test_the_training_has_the_same_bits_with_and_without(method: str, run_tiny: RunTiny) -> None:
    plain = run_tiny(method).result()
    measured = run_tiny(method, extra=ADDED)
    assert measured.result()["weights_sha256"] == plain["weights_sha256"]
    assert measured.result()["bytes"] == plain["bytes"]
    assert measured.result()["accuracy"] == plain["accuracy"]
    several = len(measured.history[1].clients) > 1
    assert named(measured, 2).keys() >= (ALWAYS if several else ALWAYS - {"cka"})
    assert all(map(math.isfinite, named(measured, 2).values()))


@pytest.mark.long
@pytest.mark.parametrize("method", ["fedavg", "fedhpro", "fedproto-aaai"])
def test_the_same_numbers_and_pictures_in_a_pool(method: str, run_tiny: RunTiny) -> None:
    runs = [
        run_tiny(method, executor=executor, extra=ADDED)
        for executor in ("inline", {"name": "pool", "workers": 2})
    ]
    for key in ("weights_sha256", "metrics_sha256", "bytes"):
        assert runs[0].result()[key] == runs[1].result()[key]


def test_runs_without_anchors_have_the_other_numbers(run_tiny: RunTiny) -> None:
    run = run_tiny("fedavg", extra=ADDED)
    domains = {f"uniformity.{name}" for name in run.runtime.data.domains}
    assert {*named(run, 1)} == ALWAYS | domains
    assert [type(picture) for picture in run.history[0].pictures] == [Scatter]


def test_anchors_that_come_later_are_measured_once_they_are_there(run_tiny: RunTiny) -> None:
    run = run_tiny("fedproto", rounds=3, extra=ADDED)
    assert not {*named(run, 1)} & WITH_ANCHORS
    assert {*named(run, 2)} >= WITH_ANCHORS
    assert "drift" not in named(run, 2)
    assert named(run, 3)["drift"] > 0
    kinds = [[type(picture) for picture in one.pictures] for one in run.history]
    assert kinds == [[Scatter], [Scatter, HeatMap], [Scatter, HeatMap]]


def test_only_every_nth_round_is_measured(run_tiny: RunTiny) -> None:
    options = {"every": 2, "points": 0, "probe": 12}
    run = run_tiny("fedhpro", rounds=3, extra={"anchor_diagnostics": options})
    assert [bool(named(run, number)) for number in (1, 2, 3)] == [False, True, True]
    assert named(run, 2)["drift"] > 0  # since round 1, which sent anchors too
    assert not any(one.pictures for one in run.history)


@dataclass(frozen=True, eq=False)
class Corners:
    """A third party's anchors: one unit vector per class, stated in one line."""

    anchors: ClassVar[tuple[str, ...]] = ("corners",)

    @hookimpl
    def broadcast(self) -> Mapping[str, Value]:
        return {"corners": torch.eye(3, 6)}


def test_anchors_of_a_third_party_are_measured(run_tiny: RunTiny, add: Callable[..., None]) -> None:
    add(corners=Corners)
    run = run_tiny("fedavg", extra={**ADDED, "corners": {}})
    assert {*named(run, 1)} >= WITH_ANCHORS
    assert named(run, 1)["separation.max_cosine"] == 0
    assert named(run, 2)["drift"] == 0


def test_late_clients_are_drawn_if_they_began_in_a_round_with_pictures(run_tiny: RunTiny) -> None:
    run = run_tiny("fedasync", rounds=12, extra={**ADDED, "lognormal": {}})
    drawn = pictured(12, 1)
    began = {n: [turn.round for turn in run.history[n - 1].turns] for n in drawn}
    assert not all({*rounds} & drawn for rounds in began.values())
    for number, rounds in began.items():
        assert bool(run.history[number - 1].pictures) == bool({*rounds} & drawn)
        assert named(run, number)


def test_a_client_that_has_diverged_is_left_to_the_run(run_tiny: RunTiny) -> None:
    given = {"sgd": {"lr": 1e30, "epochs": 1, "batch_size": 64}}
    with pytest.raises(NonFiniteError, match=r"weight|upload|loss"):
        run_tiny("fedavg", extra={**given, **ADDED})


def test_every_method_of_the_family_states_its_anchors(registry: Registry) -> None:
    stated = {
        entry.name: facts(PluginFacts, entry.value).anchors for entry in registry.all("plugin")
    }
    family = [e for e in registry.all("recipe") if e.value.family == "prototypes"]
    without = {e.name for e in family if not any(stated[name] for name in e.value.plugins)}
    assert without == {"fedgh"}  # which sends a classifier


@dataclass(frozen=True, eq=False)
class Look:
    """Keeps labels, features and anchors of each client's trained model."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.model.eval()
        with torch.no_grad():
            output = forward(ctx.model, ctx.prepare(ctx.data.inputs))
        anchors = ctx.payload.tensor("hyper_prototypes").double()
        SEEN.append((ctx.data.labels, output.features.double(), anchors))
        return trained


SEEN: list[tuple[Tensor, Tensor, Tensor]] = []


def test_the_numbers_are_those_of_the_clients_models(
    run_tiny: RunTiny, add: Callable[..., None]
) -> None:
    SEEN.clear()
    add(look=Look)
    run = run_tiny("fedhpro", rounds=1, executor="inline", extra={**ADDED, "look": {}})
    classes = len(run.runtime.data.classes)
    cosines, right, ranks = [], [], []
    for labels, features, anchors in SEEN:
        means = [features[labels == c].mean(0) for c in range(classes) if (labels == c).any()]
        unit = anchors / anchors.norm(dim=2, keepdim=True)
        held = [c for c in range(classes) if (labels == c).any()]
        pairs = zip(means, held, strict=True)
        each = [torch.cosine_similarity(m, unit[c].mean(0), dim=0).item() for m, c in pairs]
        cosines.append(sum(each) / len(each))
        nearest = [
            max(range(classes), key=lambda c: float((unit[c] @ (z / z.norm())).max()))
            for z in features
        ]
        right.append(sum(a == b for a, b in zip(nearest, labels.tolist(), strict=True)))
        right[-1] /= len(labels)
        ranks.append(numbers.effective_rank(features - features.mean(0)))
    found = named(run, 1)
    assert found["consistency"] == pytest.approx(sum(cosines) / len(cosines))
    assert found["nearest_accuracy"] == pytest.approx(sum(right) / len(right))
    assert found["effective_rank"] == pytest.approx(sum(ranks) / len(ranks))


def test_a_projection_keeps_the_names_and_two_dimensions() -> None:
    angles = torch.tensor([0.0, 1, 2, 4])
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1], [2], [3], [4]])
    anchors = PerClass(torch.tensor([1]), features[:1], torch.tensor([1]))
    labels, domains = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    found = projection(features, labels, domains, anchors, ("cat", "dog"), ("ink", "oil"))
    assert found.colours == ("cat", "cat", "dog", "dog", "dog")
    assert found.shapes == ("ink", "oil", "ink", "oil", "")
    unit = features / features.norm(dim=1, keepdim=True)
    places = torch.tensor([found.x, found.y]).T
    assert torch.allclose(torch.pdist(places[:4]), torch.pdist(unit), atol=1e-3)
    assert places[4].equal(places[0])  # the anchor has the place of the feature that it is


def test_a_heat_map_has_the_classes_with_anchors() -> None:
    anchors = PerClass(torch.tensor([0, 2]), torch.eye(2) * 3, torch.tensor([1, 1]))
    found = heat_map(anchors, ("a", "b", "c"))
    assert (found.rows, found.columns) == (("a", "c"), ("a", "c"))
    assert found.values == ((1, 0), (0, 1))


def test_pictures_and_numbers_survive_the_run_directory(run_tiny: RunTiny, tmp_path: Path) -> None:
    run = run_tiny("fedhpro", tmp_path / "r", extra=ADDED)
    assert run.directory is not None
    assert run.directory.read_rounds() == run.history
    scatter = run.history[-1].pictures[0]
    assert isinstance(scatter, Scatter)
    assert {*scatter.shapes} == {*run.runtime.data.domains, ""}
