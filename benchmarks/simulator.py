"""Measure the simulator of virtual time itself: many clients that train nothing.

    python benchmarks/simulator.py --clients 10000 --arrivals 1000

A run with a bundled trace of devices, whose clients upload one number and train nothing, until so
many of them have answered, under buffered rounds of ten and of one result. It prints the seconds of
the rounds, without imports and data, and how much memory they add at most.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from fedbench import (
    Batch,
    ClientContext,
    ClientResult,
    Dataset,
    Output,
    Run,
    Weights,
    discover,
    hookimpl,
)
from fedbench.config.resolve import Document, resolve
from fedbench.training import Training
from fedbench.types import Examples


@dataclass(frozen=True, eq=False)
class OnePicture:
    """One example for each client."""

    clients: int = 10_000

    def load(self, root: Path) -> Dataset:
        """Return the examples."""
        labels = torch.arange(self.clients) % 2
        examples = Examples(torch.zeros(self.clients, 1), labels, torch.zeros_like(labels))
        return Dataset(("a", "b"), ("all",), examples, examples[torch.arange(2)])


@dataclass(frozen=True, eq=False)
class Idle:
    """Give each client one example; clients train nothing and send one number."""

    @hookimpl
    def partition(self, data: Dataset) -> Sequence[Tensor]:
        return list(torch.arange(len(data.train)).split(1))

    @hookimpl
    def client_update(self, ctx: ClientContext) -> bool:
        ctx.upload("idle.one", torch.ones(1))
        return True

    @hookimpl
    def train(self, ctx: ClientContext, work: Training) -> bool:
        return True

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return {}

    @hookimpl
    def aggregate(self, results: Iterator[ClientResult]) -> Weights:
        for _ in results:
            pass
        return {}


@hookimpl
def register_plugins() -> Mapping[str, type]:
    """Return the plugin that does nothing."""
    return {"idle": Idle}


@hookimpl
def register_datasets() -> Mapping[str, type]:
    """Return the data set."""
    return {"one-picture": OnePicture}


def measure(clients: int, arrivals: int, size: int, executor: str) -> dict[str, float]:
    """Return seconds, arrivals and added memory of a run."""
    registry = discover()
    parts = SimpleNamespace(register_plugins=register_plugins, register_datasets=register_datasets)
    registry.add(parts, "simulator")
    tree = {
        "data": {"name": "one-picture", "clients": clients},
        "model": {"name": "logistic"},
        "rounds": arrivals // size,
        "evaluate_every": arrivals,
        "executor": {"name": executor},
        "plugins": {
            "buffered": {"size": size, "at_work": 10 * size},
            "trace": {"latency": 5.0},
            "uniform": {},
            "idle": {},
        },
    }
    run = Run(resolve(registry, file=Document(tree, "the simulator's run")), registry=registry)
    rounds = run.rounds()
    next(rounds)  # data, workers and the first round
    before, started = memory(), time.perf_counter()
    ended = 0
    for result in rounds:
        ended += len(result.turns)
    seconds = time.perf_counter() - started
    return {
        "clients": clients,
        "results per update": size,
        "arrivals": ended,
        "seconds": round(seconds, 2),
        "virtual seconds": round(run.history[-1].time or 0.0),
        "added MB": round(memory() - before, 1),
    }


def memory() -> float:
    """Return the most memory that this process has used, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--arrivals", type=int, default=1000)
    parser.add_argument("--executor", default="inline")
    given = parser.parse_args()
    for size in (10, 1):
        found = measure(given.clients, given.arrivals, size, given.executor)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
