"""Measure how fedbench's cost grows with clients per round, registered clients, weights, workers.

    python benchmarks/growth.py --runs 3 --json growth.json --plots DIR
    python benchmarks/growth.py --short

Every point is a process of ``fedbench run``, observed from outside as in `speed`. Points take
turns: the first run of every point, then the second run of every point.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import measure
from contestants import fedbench_command, fedbench_env
from speed import commit, machine
from workloads import overhead_goal

CNN = 1_663_370
"""Weights of the CNN of McMahan et al."""


@dataclass(frozen=True)
class Point:
    """One config. Clients with ``examples`` train a CNN on them; without, they do not train."""

    experiment: str
    clients: int
    registered: int
    parameters: int
    workers: int
    examples: int = 0
    pictures: int = 1000
    state: int = 0
    rounds: int = 3

    @property
    def megabytes(self) -> float:
        """The size of the weights, in MB."""
        return 4 * self.parameters / 1e6

    def config(self) -> dict[str, object]:
        """Return the config file; ``workers`` 0 is the inline executor."""
        pool = {"name": "pool", "workers": self.workers}
        sgd = {"lr": 0.01, "batch_size": 10, "epochs": 1, "momentum": 0.0, "weight_decay": 0.0}
        cnn = {"name": "cnn", "width": 32, "feature_size": 512}
        return {
            "data": {
                "name": "growth-noise",
                "examples": self.pictures,
                "side": 28 if self.examples else 8,
            },
            "model": cnn
            if self.examples
            else {"name": "growth-ballast", "parameters": self.parameters},
            "executor": pool if self.workers else {"name": "inline"},
            "accuracy": {"rule": "last"},
            "plugins": {
                "iid": {"clients": self.registered},
                "uniform": {"fraction": self.clients / self.registered},
                **({"sgd": sgd} if self.examples else {"growth_idle": {"state": self.state}}),
            },
        }


@dataclass
class Found:
    """A point and its runs."""

    point: Point
    runs: list[measure.Measured] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds per round after the first; the median over rounds and runs."""
        return statistics.median(t for run in self.runs for t in run.per_round)

    @property
    def first_round(self) -> float:
        return statistics.median(run.rounds[0] for run in self.runs)

    @property
    def megabytes(self) -> float | None:
        """The highest PSS of all processes; the median over runs."""
        peaks = [run.pss_peak / 1e6 for run in self.runs if run.pss_peak is not None]
        return statistics.median(peaks) if peaks else None


def points(short: bool) -> list[Point]:
    """Return the points to measure."""
    a_round = (2, 4) if short else (10, 30, 100, 300, 1000)
    everyone = (10, 20) if short else (10, 100, 1_000, 10_000, 100_000)
    sizes = (100_000,) if short else (100_000, 1_000_000, 5_000_000, 25_000_000)
    processes = (2,) if short else (1, 2, 3, 4)
    few, many = (2, 4) if short else (10, 40)
    total = max(a_round)
    each = 5 if short else 20
    found = [
        # The same 20,000 images and 1,000 registered clients, of which more and more take part.
        # About 1,000 turns in all, 3,000 with 1,000 clients: memory grows a little during a
        # process's first few hundred turns, and is read only every few seconds.
        Point(
            *("clients", n, total, CNN, 2),
            examples=each,
            pictures=each * total,
            rounds=max(3, 1000 // n),
        )
        for n in a_round
    ]
    found += [
        # The same 100,000 images for more and more clients; ten take part, and keep 40 kB each.
        Point("registered", few, n, 100_000, 2, pictures=max(everyone), state=10_000)
        for n in everyone
    ]
    found += [
        Point("parameters", n, many, size, workers)
        for size in sizes
        for workers in ((0, 2) if short else (0, 1, 2))
        for n in (few, many)
    ]
    found += [
        Point("workers", 12, 12, CNN, n, examples=5 * each, pictures=60 * each) for n in processes
    ]
    return [replace(point, rounds=2) for point in found] if short else found


def look(point: Point) -> measure.Measured:
    """Run a point once."""
    folder = Path(tempfile.mkdtemp(prefix="fedbench-growth-"))
    try:
        command = fedbench_command("fedavg", point.config(), point.rounds, folder)
        return measure.run(command, point.rounds, env={**os.environ, **fedbench_env()})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def grow(found: Sequence[Found]) -> dict[str, float]:
    """Return the factor by which memory grows from the fewest clients per round to the most."""
    rows = sorted((f for f in found if f.point.experiment == "clients"), key=clients)
    low, high = rows[0].megabytes, rows[-1].megabytes
    if low is None or high is None:
        return {}
    return {"from": clients(rows[0]), "to": clients(rows[-1]), "memory_factor": high / low}


def clients(found: Found) -> int:
    return found.point.clients


def overhead(found: Sequence[Found]) -> list[dict[str, float | bool | str]]:
    """Return the cost of a client that trains nothing: job, seal, stream, aggregate.

    That is the slope between rounds of few and of many clients, so that evaluation and whatever
    else a round does once are not in it.
    """
    groups: dict[tuple[int, int], list[Found]] = {}
    for one in found:
        if one.point.experiment == "parameters":
            groups.setdefault((one.point.parameters, one.point.workers), []).append(one)
    rows: list[dict[str, float | bool | str]] = []
    for (parameters, workers), pair in sorted(groups.items()):
        few, many = sorted(pair, key=clients)
        slope = (many.seconds - few.seconds) / (clients(many) - clients(few))
        target = overhead_goal(few.point.megabytes)
        rows.append(
            {
                "parameters": parameters,
                "megabytes": few.point.megabytes,
                "executor": f"pool, {workers}" if workers else "inline",
                "ms_per_client": 1000 * slope,
                "target_ms": target,
                "met": 1000 * slope <= target,
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="processes of each point")
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="experiments, separated by commas"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="where to draw SVG and PNG")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it works")
    given = parser.parse_args(argv)
    every = points(given.short)
    names = list(dict.fromkeys(point.experiment for point in every))
    only = [name for name in given.only.split(",") if name] or names
    if unknown := set(only) - set(names):
        parser.error(f"--only: no experiment {', '.join(sorted(unknown))} in {', '.join(names)}")
    found = [Found(point) for point in every if point.experiment in only]
    measure.adopt_orphans()
    runs = 1 if given.short else given.runs
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    for number in range(1, runs + 1):
        for one in found:
            one.runs.append(look(one.point))
            report(number, runs, one)
        result = {
            "runs": number,
            "short": given.short,
            "command": [Path(sys.argv[0]).name, *(argv if argv is not None else sys.argv[1:])],
            "date": begun,
            "commit": commit(),
            "machine": machine(),
            **summary(found),
        }
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    if given.plots:
        import growth_plots  # here, since it loads fedbench's drawing

        growth_plots.write(result, given.plots)
    return 0


def report(number: int, runs: int, one: Found) -> None:
    """Print one line on a finished run."""
    point, last = one.point, one.runs[-1]
    memory = "" if last.pss_peak is None else f", {last.pss_peak / 1e6:.0f} MB"
    seconds = statistics.median(last.per_round)
    print(
        f"run {number}/{runs}  {point.experiment}: {point.clients} of {point.registered} clients, "
        f"{point.parameters / 1e6:.1f} M weights, "
        f"{point.workers or 'no'} workers: {seconds:.3f} s a round{memory}",
        flush=True,
    )


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """Return all measurements and what is computed from them."""
    import growth_fit  # here, since it loads scipy

    rows = [
        {
            **asdict(one.point),
            "seconds": one.seconds,
            "first_round": one.first_round,
            "megabytes": one.megabytes,
            "runs": [{**asdict(run), "per_round": run.per_round} for run in one.runs],
        }
        for one in found
    ]
    experiments = {one.point.experiment for one in found}
    return {
        "points": rows,
        "memory": grow(found) if "clients" in experiments else {},
        "overhead": overhead(found),
        "fit": growth_fit.fit(rows),
    }


def show(result: dict[str, Any]) -> None:
    """Print what is computed from the measurements."""
    if result["short"]:
        print("short form: the numbers mean nothing")
    if memory := result["memory"]:
        percent = 100 * (memory["memory_factor"] - 1)
        print(
            f"\nmemory from {memory['from']} to {memory['to']} clients per round: {percent:+.1f} %"
        )
    for row in result["overhead"]:
        print(
            f"a client that trains nothing, {row['megabytes']:.1f} MB of weights, "
            f"{row['executor']}: {row['ms_per_client']:.2f} ms; target {row['target_ms']:.2f} ms"
        )
    for name, one in result["fit"].items():
        print(f"{name}: {one['formula']}; off by {100 * one['median_error']:.0f} % (median)")
        for guess in one["extrapolated"]:
            print(f"  extrapolated, not measured: {guess['what']}: {guess['value']:,.1f}")


if __name__ == "__main__":
    sys.exit(main())
