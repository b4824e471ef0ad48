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

from fedbench.config.model import RunConfig
from fedbench.engine.evaluation import accuracy_text, over_domains, reported
from fedbench.plugins.registry import Registry
from fedbench.report import write
from fedbench.store.contents import Partition, Reported, Result, Sent
from fedbench.store.directory import RunDirectory, find
from fedbench.store.files import json_ready, to_json, write_atomic
from fedbench.study.analysis import Analysis, analyse
from fedbench.study.records import read
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
        exact: Mapping[str, Sequence[float]] | None = None,
        partition: Partition | None = None,
        limit: int | None = None,
        **given: Any,
    ) -> Path:
        """Write a run: finished unless ``done`` rounds were done or it failed with ``error``.

        ``exact`` gives the accuracies of each round by domain; ``limit`` is the config's number of
        rounds, where the run ended before; ``given`` is the config's.
        """
        place = sum(map(ord, variant)) % 40
        sgd = {"epochs": 1, "batch_size": 8, "lr": 0.01 + place / 1000}
        if exact:
            domains, rounds = tuple(exact), len(next(iter(exact.values())))
        config = self.config(rounds=limit or rounds, seed=seed, extra={"sgd": sgd}, **given)
        config = dataclasses.replace(config, method=variant)
        level = 0.6 + place / 200 if level is None else level
        path = self.folder / f"{len(list(self.folder.iterdir()))}"
        directory = RunDirectory.create(path, config)
        finished = done is None and error is None
        results = []
        for number in range(1, 1 + (rounds if finished else done or 0)):
            found = {d: values[number - 1] for d, values in exact.items()} if exact else None
            results.append(one_round(number, variant, seed, level, domains, classes, found))
        lines = [json.dumps(json_ready(result)) + "\n" for result in results]
        directory.rounds_file.write_text("".join(lines))
        directory.write_partition(partition or two_a_domain(seed, domains, classes))
        if error is not None:
            directory.error_file.write_text(error)
        if finished:
            write_atomic(directory.result_file, to_json(result_of(config, results)))
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
    exact: Mapping[str, float] | None = None,
) -> RoundResult:
    """Return a round on a saturating curve with noise, or with ``exact`` accuracies."""
    rng = np.random.default_rng([number, seed, sum(map(ord, variant))])
    shared = np.random.default_rng([7, seed]).normal(0, 0.01)
    top = {d: level - 0.08 * place + shared for place, d in enumerate(domains)}
    now = 1 - math.exp(-number / 15)
    found = {d: float(np.clip(v * now + rng.normal(0, 0.006), 0, 1)) for d, v in top.items()}
    found = dict(exact or found)
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


def two_a_domain(seed: int, domains: Sequence[str], classes: Sequence[str]) -> Partition:
    """Return two clients a domain, with Dirichlet shares of the classes."""
    rng = np.random.default_rng([1, seed])
    counts = {
        client: {
            domains[client // 2]: rng.multinomial(
                500, rng.dirichlet(np.full(len(classes), 0.5))
            ).tolist()
        }
        for client in range(2 * len(domains))
    }
    return Partition(list(classes), list(domains), counts)


def result_of(config: RunConfig, rounds: Sequence[RoundResult]) -> Result:
    """Return the result as `fedbench.engine.run.Run.summary` builds it."""
    rule = config.accuracy
    accuracy = reported(rule, [r.scores[rule.inference][rule.metric] for r in rounds], True)

    def mean(ways: Sequence[Mapping[str, int]]) -> dict[str, float]:
        return {key: sum(way[key] for way in ways) / len(ways) for key in ways[0]}

    return Result(
        method=config.method,
        changes=[],
        data=config.data_name,
        model=config.model["name"],
        seed=config.seed,
        rounds=len(rounds),
        accuracy=Reported(
            rule=accuracy_text(rule, len(rounds)),
            metric=rule.metric,
            inference=rule.inference,
            **vars(accuracy),
        ),
        bytes=Sent(mean([r.bytes_up for r in rounds]), mean([r.bytes_down for r in rounds])),
        failures={},
        seconds=sum(r.seconds for r in rounds),
        weights_sha256=f"{config.seed:064x}",
        metrics_sha256=f"{config.seed + 100:064x}",
        config_hash=config.hash,
        versions={},
    )


def make_runs(folder: Path, registry: Registry, tiny_config: Callable[..., RunConfig]) -> Runs:
    folder.mkdir()
    return Runs(folder, lambda **given: tiny_config(registry, "fedavg", **given))


def analysis_of(folder: Path, registry: Registry, **given: Any) -> Analysis:
    records = [read(registry, path) for path in find([folder])]
    records.sort(key=lambda r: int(r.path.name))
    return analyse(registry, records, **given)


@pytest.fixture
def runs(tmp_path: Path, registry: Registry, tiny_config: Callable[..., RunConfig]) -> Runs:
    """An empty folder to `Runs.add` runs to."""
    return make_runs(tmp_path / "runs", registry, tiny_config)


@pytest.fixture
def analysed(runs: Runs, registry: Registry) -> Callable[..., Analysis]:
    """Read and analyse all that `runs` has written; arguments as for `analyse`."""
    return lambda **given: analysis_of(runs.folder, registry, **given)


@pytest.fixture(scope="session")
def big(
    tmp_path_factory: pytest.TempPathFactory,
    installed: Registry,
    tiny_config: Callable[..., RunConfig],
) -> Analysis:
    """4 variants x 5 seeds x 100 rounds, four domains, ten classes; two more are not finished."""
    runs = make_runs(tmp_path_factory.mktemp("big") / "runs", installed, tiny_config)
    runs.grid()
    runs.add("fpl", 5, done=40, error="loss term 'fpl' is nan in round 41, client 3")
    runs.add("fedproto", 5, done=12)
    return analysis_of(runs.folder, installed)


@pytest.fixture(scope="session")
def report(big: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report on `big`, figures included."""
    folder = tmp_path_factory.mktemp("report")
    write(big, folder)
    return folder


HAND = {
    "x": ({"a": (0.1, 0.5), "b": (0.1, 0.4)}, {"a": (0.1, 0.6), "b": (0.1, 0.5)},
          {"a": (0.1, 0.7), "b": (0.1, 0.6)}),
    "y": ({"a": (0.1, 0.53), "b": (0.1, 0.43)}, {"a": (0.1, 0.62), "b": (0.1, 0.52)},
          {"a": (0.1, 0.76), "b": (0.1, 0.64)}),
}  # fmt: skip
"""Variant -> seed -> domain -> accuracy of two rounds; only the last one counts.

Means over domains of the last round: x 45, 55, 65 (mean 55, deviation 10); y 48, 57, 70. Minus x
that is 3, 2, 5: mean 10/3, deviation sqrt(7/3) = 1.5275, d_z = 2.18, t = 3.7796 with 2 degrees of
freedom, p = 1 - t / sqrt(t^2 + 2) = 0.0634, and the interval 3.33 +- 4.3027 x 0.8819: -0.46 to 7.13
"""


@pytest.fixture
def by_hand(runs: Runs, analysed: Callable[..., Analysis]) -> Analysis:
    """The runs of `HAND`, by the rule ``last``, with x as the reference."""
    for variant, seeds in HAND.items():
        for seed, exact in enumerate(seeds):
            runs.add(variant, seed, exact=exact, accuracy={"rule": "last"})
    return analysed(reference="x")
