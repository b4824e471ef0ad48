"""Run directories without training: the real files of 100 rounds, with numbers from a formula."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbench.analysis import Analysis, analyse
from fedbench.config import RunConfig
from fedbench.evaluation import accuracy_text, over_domains, reported
from fedbench.plugins import Registry
from fedbench.records import find, read
from fedbench.store import RunDirectory, json_ready
from fedbench.types import RoundResult, Scores

VARIANTS = ("fedavg", "fedproto", "fpl", "fedhpro")
DOMAINS = ("mnist", "usps", "svhn", "syn")
CLASSES = tuple("0123456789")


class Runs:
    """Writes run directories into ``folder``."""

    def __init__(self, folder: Path, config: Callable[..., RunConfig]) -> None:
        self.folder, self.config = folder, config

    def add(
        self,
        variant: str,
        seed: int,
        *,
        level: float | None = None,
        rounds: int = 100,
        done: int | None = None,
        error: str | None = None,
        domains: Sequence[str] = DOMAINS,
        classes: Sequence[str] = CLASSES,
        accuracy: Mapping[str, Any] | None = None,
        folder: str = "runs",
    ) -> Path:
        """Write a run: finished unless ``done`` rounds were done or it failed with ``error``."""
        place = sum(map(ord, variant)) % 40
        sgd = {"epochs": 1, "batch_size": 8, "lr": 0.01 + place / 1000}
        given = {"accuracy": accuracy} if accuracy else {}
        config = self.config(rounds=rounds, seed=seed, extra={"sgd": sgd}, **given)
        config = dataclasses.replace(config, method=variant)
        level = 0.6 + place / 200 if level is None else level
        path = self.folder / folder / f"{len(list(self.folder.rglob('config.yaml')))}"
        directory = RunDirectory.create(path, config)
        finished = done is None and error is None
        results = [
            one_round(number, variant, seed, level, domains, classes)
            for number in range(1, 1 + (rounds if finished else done or 0))
        ]
        lines = [json.dumps(json_ready(result)) + "\n" for result in results]
        (path / "rounds.jsonl").write_text("".join(lines))
        directory.write("partition.json", partition(seed, domains, classes))
        if error is not None:
            (path / "error.txt").write_text(error)
        if finished:
            directory.write("result.json", result_of(config, results))
        return path

    def grid(self, variants: Sequence[str] = VARIANTS, seeds: int = 5, **given: Any) -> None:
        """Write ``variants`` x ``seeds``."""
        for seed in range(seeds):
            for variant in variants:
                self.add(variant, seed, **given)


def one_round(
    number: int,
    variant: str,
    seed: int,
    level: float,
    domains: Sequence[str],
    classes: Sequence[str],
) -> RoundResult:
    """Return a round on a saturating curve with noise."""
    rng = np.random.default_rng([number, seed, sum(map(ord, variant))])
    shared = np.random.default_rng([7, seed]).normal(0, 0.01)
    top = {d: level - 0.08 * place + shared for place, d in enumerate(domains)}
    now = 1 - math.exp(-number / 15)
    found = {d: float(np.clip(v * now + rng.normal(0, 0.006), 0, 1)) for d, v in top.items()}
    by_class = {
        d: np.clip(v + rng.normal(0, 0.08, len(classes)), 0, 1).tolist() for d, v in found.items()
    }
    losses = {d: 2.3 * math.exp(-3 * v) for d, v in found.items()}
    scores = {
        "accuracy": over_domains(found, True),
        "loss": over_domains(losses, False),
        "class_accuracy": Scores(by_class),
    }
    metrics = {"loss.cross_entropy": 2.3 * math.exp(-number / 20)}
    up = {"weights": 40_000_000}
    if variant.startswith("fed") and variant != "fedavg":
        metrics |= {"loss.proto": 0.5 / number, "prototypes.movement": 3 / number**2 + 1e-4}
        up |= {"prototypes": 20_480}
    down = {"weights": 40_000_000}
    seconds = 4 + float(rng.random())
    return RoundResult(number, [0, 1, 2, 3], {"classifier": scores}, metrics, up, down, seconds)


def partition(seed: int, domains: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Return two clients a domain, with Dirichlet shares of the classes."""
    rng = np.random.default_rng([1, seed])
    counts = {
        str(client): {
            domains[client // 2]: rng.multinomial(
                500, rng.dirichlet(np.full(len(classes), 0.5))
            ).tolist()
        }
        for client in range(2 * len(domains))
    }
    return {"classes": list(classes), "domains": list(domains), "counts": counts}


def result_of(config: RunConfig, rounds: Sequence[RoundResult]) -> dict[str, Any]:
    """Return ``result.json`` as `fedbench.run.Run.result` builds it."""
    rule = config.accuracy
    accuracy = reported(rule, [r.scores[rule.inference][rule.metric] for r in rounds], True)

    def mean(ways: Sequence[Mapping[str, int]]) -> dict[str, float]:
        return {key: sum(way[key] for way in ways) / len(ways) for key in ways[0]}

    return {
        "method": config.method,
        "changes": [],
        "data": config.data_name,
        "model": config.model["name"],
        "seed": config.seed,
        "rounds": len(rounds),
        "accuracy": {
            "rule": accuracy_text(rule, len(rounds)),
            "metric": rule.metric,
            "inference": rule.inference,
            **json_ready(accuracy),
        },
        "bytes": {
            "up": mean([r.bytes_up for r in rounds]),
            "down": mean([r.bytes_down for r in rounds]),
        },
        "seconds": sum(r.seconds for r in rounds),
        "weights_sha256": f"{config.seed:064x}",
        "metrics_sha256": f"{config.seed + 100:064x}",
        "config_hash": config.hash,
        "versions": {},
    }


@pytest.fixture
def runs(tmp_path: Path, registry: Registry, tiny_config: Callable[..., RunConfig]) -> Runs:
    """An empty folder to `Runs.add` runs to."""

    def config(**given: Any) -> RunConfig:
        return tiny_config(registry, "fedavg", **given)

    return Runs(tmp_path, config)


@pytest.fixture
def analysed(runs: Runs, registry: Registry) -> Callable[..., Analysis]:
    """Read and analyse all that `runs` has written."""

    def all_of_it(**given: Any) -> Analysis:
        order = given.pop("variants", None)
        records = [read(registry, path) for path in find([runs.folder])]
        records.sort(key=lambda r: int(r.path.name))
        return analyse(registry, records, variants=order, **given)

    return all_of_it
