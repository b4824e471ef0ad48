"""Measure whether the memory of a run whose clients keep state grows with rounds or with clients.

    python benchmarks/state_scale.py [--clients 10000] [--cohort 100] [--rounds 200] [--directory]

Every client holds two examples and keeps the weights of its last turn, so the states grow until
every client has been drawn; nothing else may grow. Every 10 rounds it prints the memory that this
process and its workers have written to (proportional, in MB; mapped code is left out, because its
share depends on what else runs), the number of states, and their bytes in memory. The last line
is the growth from round 20 to the last round, in total and without the states in memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fedbench.config import resolve as configs
from fedbench.engine.run import Run
from fedbench.hookspecs import hookimpl
from fedbench.plugins.discovery import discover
from fedbench.types import Dataset, Examples


@dataclass(frozen=True, eq=False)
class Crowd:
    """Two examples for each of many clients: 16 numbers, two classes, one domain."""

    clients: int = 10_000

    def load(self, root: Path) -> Dataset:
        generator = torch.Generator().manual_seed(0)

        def split(size: int) -> Examples:
            labels = torch.arange(size) % 2
            inputs = torch.randn(size, 16, generator=generator) + labels[:, None]
            return Examples(inputs, labels, torch.zeros(size, dtype=torch.int64))

        return Dataset(("no", "yes"), ("one",), split(2 * self.clients), split(100))


class Small(nn.Module):
    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, 32)
        self.classifier = nn.Linear(32, classes)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.hidden(x.flatten(1)))


@dataclass(frozen=True, eq=False)
class SmallModel:
    """One hidden layer of 32: 610 weights, 2.4 kB of state per client."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return Small(input_shape[0], num_classes)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Client k gets examples 2k and 2k + 1."""

    @hookimpl
    def partition(self, data: Dataset) -> list[Tensor]:
        return list(torch.arange(len(data.train)).reshape(-1, 2))


@dataclass(frozen=True, eq=False)
class Keep:
    """Every client keeps the weights with which it ended its last turn."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: Any) -> Any:
        done = yield
        ctx.state["mine"] = dict(ctx.model.state_dict())
        return done


def build(clients: int, cohort: int, rounds: int, workers: int) -> tuple[Any, Any]:
    """Return the registry and the config."""
    registry = discover()

    def datasets() -> Mapping[str, type]:
        return {"crowd": Crowd}

    def models() -> Mapping[str, type]:
        return {"small": SmallModel}

    def plugins() -> Mapping[str, type]:
        return {"pairs": Pairs, "keep": Keep}

    found = {"datasets": datasets, "models": models, "plugins": plugins}
    module = SimpleNamespace(**{f"register_{k}": hookimpl(v) for k, v in found.items()})
    registry.add(module, "benchmarks")
    pool = {"name": "pool", "workers": workers} if workers else {"name": "inline"}
    data = {
        "data": {"name": "crowd", "clients": clients},
        "model": "small",
        "rounds": rounds,
        "executor": pool,
        "metrics": {"accuracy": {}, "loss": {}},
        "plugins": {
            "pairs": {},
            "uniform": {"fraction": cohort / clients},
            "sgd": {"epochs": 1, "batch_size": 2, "lr": 0.01},
            "exchange": {},
            "mean": {},
            "cross_entropy": {},
            "keep": {},
        },
    }
    return registry, configs.resolve(registry, file=configs.Document(data, "benchmark"))


def memory() -> int:
    """Return the bytes that this process and its children have written to: PSS, or else RSS."""
    total = 0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in ("self", *children):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            words = ("Pss_Anon:", "Pss_Shmem:")  # code is shared with other processes using torch
        except OSError:
            text, words = Path(f"/proc/{pid}/status").read_text(), ("RssAnon:", "RssShmem:")
        lines = (line.split() for line in text.splitlines() if line.startswith(words))
        total += sum(int(line[1]) * 1024 for line in lines)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0, help="0: inline")
    parser.add_argument("--directory", action="store_true", help="keep the run on disk")
    parser.add_argument("--held", type=int, help="bytes of states to hold in memory")
    given = parser.parse_args()
    registry, config = build(given.clients, given.cohort, given.rounds, given.workers)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder) / "run" if given.directory else None, registry=registry)
        if given.held is not None:
            run._clients._limit = given.held
        seen: dict[int, tuple[int, int]] = {}
        for result in run.rounds():
            if result.round % 10 == 0 or result.round == 1:
                held = run._clients._held
                seen[result.round] = (memory(), held)
                print(
                    f"round {result.round:4}  memory {seen[result.round][0] / 1e6:8.2f} MB  "
                    f"states {len(run._clients):6}  held {held / 1e6:6.2f} MB",
                    flush=True,
                )
    (first, held_first), (last, held_last) = seen[min(20, given.rounds)], seen[given.rounds]
    beside = (last - held_last) / (first - held_first) - 1
    growth = 100 * (last / first - 1)
    print(f"growth {growth:.2f} %, without states in memory {100 * beside:.2f} %")


if __name__ == "__main__":
    main()
