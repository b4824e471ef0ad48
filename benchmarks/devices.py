"""Measure cross-device scale: many registered clients, few of them a round, a tiny model.

    python benchmarks/devices.py --json benchmarks/devices.json

FedAvg trains a logistic model on `synthetic` (Li et al., MLSys 2020) with 10,000 clients, of which
100 take part in each of 1,000 rounds: one epoch of SGD in batches of 10. Nothing but the last round
is scored, so that a round's time is that of its clients and of what the framework adds to them.

- ``plain``: the same loop written by hand, on PyTorch's default threads;
- ``fedbench``: the real command, with a run directory, as a user runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measure
from contestants import fedbench_command, fedbench_env
from speed import opened

LR, BATCH = 0.01, 10

Numbers = dict[str, Any]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--cohort", type=int, default=100, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=1000, help="default %(default)s")
    parser.add_argument("--runs", type=int, default=1, help="runs of each, n; default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    return parser.parse_args(argv)


def plain(clients: int, cohort: int, rounds: int) -> None:
    """The loop by hand; prints a line a round."""
    import torch
    from fedbench_datasets.synthetic import Synthetic
    from torch import nn
    from torch.nn import functional as F

    data = Synthetic(clients=clients).load(Path())
    assert data.train.clients is not None
    sizes = data.train.clients.bincount(minlength=clients).tolist()
    inputs, labels = data.train.inputs.split(sizes), data.train.labels.split(sizes)
    torch.manual_seed(0)
    model = nn.Linear(inputs[0].shape[1], len(data.classes))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for number in range(1, rounds + 1):
        mean = {name: torch.zeros_like(value) for name, value in weights.items()}
        seen = 0
        for client in torch.randperm(clients)[:cohort].tolist():
            x, y = inputs[client], labels[client]
            model.load_state_dict(weights)
            optimizer = torch.optim.SGD(model.parameters(), lr=LR)
            for index in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()
            seen += len(y)
            for name, value in model.state_dict().items():
                mean[name].lerp_(value, len(y) / seen)
        weights = mean
        print(json.dumps({"round": number}), flush=True)


def config(clients: int, cohort: int, rounds: int) -> Numbers:
    """Return fedbench's config file for the same; the method comes from the command."""
    return {
        "data": {"name": "synthetic", "clients": clients},
        "model": "logistic",
        "evaluate_every": rounds,
        "accuracy": {"rule": "last"},
        "plugins": {
            "natural": {},
            "uniform": {"fraction": cohort / clients},
            "sgd": {"lr": LR, "batch_size": BATCH, "epochs": 1},
        },
    }


def look(name: str, given: argparse.Namespace) -> Numbers:
    """Run a contestant once; return its times and memory."""
    sizes = given.clients, given.cohort, given.rounds
    with tempfile.TemporaryDirectory(prefix="fedbench-devices-") as folder:
        if name == "plain":
            command = [sys.executable, str(Path(__file__).resolve()), "--plain", *map(str, sizes)]
        else:
            command = fedbench_command("fedavg", config(*sizes), given.rounds, Path(folder))
        found = measure.run(
            command, given.rounds, env={**os.environ, **fedbench_env()}, limit=7200.0
        )
    # Half a run later: what grows with rounds has had time to.
    early, late = (memory_at(found, given.rounds * part) for part in (0.25, 1.0))
    return {
        "seconds_per_round": statistics.median(found.per_round),
        "first_round": found.rounds[0],
        "total": found.rounds[-1] - found.rounds[0],
        "memory_early": early,
        "memory_late": late,
        **{k: v for k, v in asdict(found).items() if k in ("pss_peak", "load_before")},
    }


def memory_at(found: measure.Measured, number: float) -> int | None:
    """Return the largest memory in the quarter of the rounds before round ``number``."""
    last = max(1, int(number))
    start = found.rounds[max(0, last - 1 - len(found.rounds) // 4)]
    read = [size for moment, size in found.pss if start <= moment <= found.rounds[last - 1]]
    return max(read, default=None)


def main(argv: Sequence[str] | None = None) -> int:
    words = list(argv if argv is not None else sys.argv[1:])
    if words[:1] == ["--plain"]:
        plain(*map(int, words[1:]))
        return 0
    given = arguments(words)
    result: Numbers = opened("devices.py", words)
    result |= {"clients": given.clients, "cohort": given.cohort, "rounds": given.rounds}
    result |= {"runs": given.runs, "turns": []}
    for number in range(given.runs):
        names = ("plain", "fedbench")
        turn = {name: look(name, given) for name in (names[::-1] if number % 2 else names)}
        turn["ratio"] = turn["fedbench"]["total"] / turn["plain"]["total"]
        result["turns"].append(turn)
        for name in names:
            one = turn[name]
            print(
                f"{name}: {one['seconds_per_round']:.3f} s a round, first after "
                f"{one['first_round']:.1f} s; peak {(one['pss_peak'] or 0) / 1e6:.0f} MB",
                flush=True,
            )
        one = turn["fedbench"]
        print(f"fedbench / plain {turn['ratio']:.2f}")
        if one["memory_early"] and one["memory_late"]:
            growth = one["memory_late"] / one["memory_early"] - 1
            print(f"fedbench's memory from the first to the last quarter: {100 * growth:+.1f} %")
        if given.json:
            given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
