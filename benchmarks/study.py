"""Measure a study of many short runs: forked by one parent, as programs of their own, in Flower.

    python benchmarks/study.py --json study.json
    python benchmarks/study.py --workload grid --against programs,flower --flower-runs 4

A study is a grid of methods x seeds, carried out with one run per core at a time. What is compared:

- ``warm``: as `fedbench compare` does it, each run forked by one parent, which the command forks;
- ``programs``: the same with a program of its own for each run, as before;
- ``flower``: a loop in a shell over `flwr` runs of FedAvg, each of which uses all cores.

``digits`` is the data set of that name; ``grid`` has the same random pictures for all three.
Contestants take turns, so that a machine that gets slower favours none.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
from contestants import HERE, config, fedbench_env, peer
from environments import NotInstalled
from speed import opened
from workloads import GRID

METHODS = ("fedavg", "fedprox", "fedproto", "fedhpro")
SHORT = ("sgd.epochs=1", "domains.clients_per_domain=1")
"""What makes the rounds of the card ``digits`` short: about a second on one core."""

Numbers = dict[str, Any]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=("digits", "grid"), default="digits")
    parser.add_argument("--against", default="programs", help="programs, flower; default programs")
    parser.add_argument("--methods", default=",".join(METHODS), help="default %(default)s")
    parser.add_argument("--seeds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--turns", type=int, default=1, help="studies of each contestant")
    parser.add_argument("--flower-runs", type=int, default=4, help="runs of Flower in a turn")
    parser.add_argument("--memory", type=int, default=4, help="runs at a time for the memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    parser.add_argument("--envs", type=Path, default=HERE / ".envs", help="peers' environments")
    given = parser.parse_args(argv)
    given.against = [name for name in given.against.split(",") if name]
    if unknown := set(given.against) - {"programs", "flower"}:
        parser.error(f"--against: unknown contestants: {', '.join(sorted(unknown))}")
    if "flower" in given.against and given.workload != "grid":
        parser.error("--against flower needs --workload grid, whose pictures it can train on")
    return given


def carry_out(kind: str, wanted: Mapping[str, Any]) -> None:
    """Carry out a study in this process, and print its numbers as JSON."""
    import click

    from fedbench.cli import leave, warm
    from fedbench.cli.app import main as commands
    from fedbench.plugins.discovery import discover
    from fedbench.study import execute as execution
    from fedbench.study.grid import Grid, plan

    if kind == "programs":
        execution.SUPPORTED = warm.SUPPORTED = False
    leave.program = True  # this process does what a command does
    if wanted["workload"] == "grid":
        methods, sets = [f"{m}.yaml" for m in wanted["methods"]], []
        for method, file in zip(wanted["methods"], methods, strict=True):
            Path(file).write_text(json.dumps({"recipe": method, **config(GRID)}))
    else:
        methods, sets = list(wanted["methods"]), list(SHORT)
    grid = Grid(methods, seeds=wanted["seeds"], rounds=wanted["rounds"], set=sets)
    registry = discover()
    began, ended = dict[str, float](), dict[str, float]()

    def note(progress: execution.Progress) -> None:
        now = time.monotonic()
        for name in progress.running:
            began.setdefault(name, now)
        for name in began.keys() - progress.running.keys():
            ended.setdefault(name, now)

    with click.Context(commands), warm.forked(registry) as parent:
        jobs = plan(registry, grid, Path("study"))
        started = time.monotonic()
        final = execution.execute(jobs, workers=wanted["jobs"], show=note, parent=parent)
        seconds = time.monotonic() - started
    assert (final.done, final.failed, final.interrupted) == (len(jobs), 0, {}), final
    rounds, digests = {}, {}
    for job in jobs:
        lines = (job.path / "rounds.jsonl").read_text().splitlines()
        rounds[job.path.name] = sum(json.loads(line)["seconds"] for line in lines)
        digests[job.path.name] = json.loads((job.path / "result.json").read_text())[
            "weights_sha256"
        ]
    beside = [ended[name] - began[name] - rounds[name] for name in rounds]
    numbers = {"execute": seconds, "rounds": sum(rounds.values()), "beside": beside}
    print(json.dumps({**numbers, "digests": digests}))


def study(kind: str, given: argparse.Namespace, **other: Any) -> Numbers:
    """Carry out a study in a process of its own; return its times, bytes and digests."""
    cores = len(os.sched_getaffinity(0))
    wanted: Numbers = {"workload": given.workload, "methods": given.methods.split(",")}
    wanted |= {"seeds": given.seeds, "rounds": given.rounds, "jobs": cores, **other}
    folder = Path(tempfile.mkdtemp(prefix="fedbench-study-"))
    script = str(Path(__file__).resolve())
    sampler = measure.Sampler()
    sampler.start()
    started, before = time.monotonic(), processor_time()
    try:
        done = subprocess.run(
            [sys.executable, script, "--carry-out", kind, json.dumps(wanted)],
            cwd=folder,
            env={**os.environ, **fedbench_env()},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds, used = time.monotonic() - started, processor_time() - before
    finally:
        sampler.stop()
        shutil.rmtree(folder, ignore_errors=True)
    found: Numbers = json.loads(done.stdout)
    runs = len(found["beside"])
    found |= {"seconds": seconds, "runs": runs, "per_run": seconds / runs, "cpu": used / runs}
    ideal = found["rounds"] / wanted["jobs"]
    return {**found, "pss_peak": sampler.peak, "execute/ideal": found["execute"] / ideal}


def flower(given: argparse.Namespace) -> Numbers:
    """Run Flower as many times as asked, one run after the other.

    Raises:
        NotInstalled: when its environment cannot be made.
    """
    one = peer("flower", given.envs, own_torch=False)
    command = one.command(GRID, given.rounds, Path())
    before, runs = processor_time(), range(given.flower_runs)
    found = [measure.run(command, given.rounds, env=one.environment) for _ in runs]
    return {
        "per_run": statistics.mean(run.end for run in found),
        "cpu": (processor_time() - before) / len(found),
        "runs": len(found),
        "pss_peak": max(run.pss_peak or 0 for run in found),
        "versions": one.versions,
    }


def processor_time() -> float:
    """Return the processor time of all descendants that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(result: Numbers) -> None:
    """Print what was measured."""
    print(f"\n{result['machine']['processor']}, {result['machine']['cores']} cores")
    for turn in result["turns"]:
        for name, found in turn.items():
            line = (
                f"{name}: {found['per_run']:.2f} s a run, {found['cpu']:.2f} s of a processor; "
                f"{found['runs']} runs; peak {found['pss_peak'] / 1e6:.0f} MB"
            )
            if "execute" in found:
                beside = statistics.median(found["beside"])
                line += (
                    f"; study {found['execute']:.1f} s, {found['execute/ideal']:.2f} x its rounds "
                    f"/ cores; a run takes {beside:.2f} s beside its rounds (median)"
                )
            if name != "warm":
                ratios = [turn["warm"][key] / found[key] for key in ("per_run", "cpu")]
                line += f"; warm / {name} {ratios[0]:.2f}, processor {ratios[1]:.2f}"
            print(line)
    for name, (one, many) in result["memory"].items():
        number = result["memory_runs"]
        print(
            f"{name}: {many / 1e6:.0f} MB for {number} runs at a time, {one / 1e6:.0f} MB for one, "
            f"{many / one:.2f} x"
        )


def main(argv: Sequence[str] | None = None) -> int:
    words = list(argv if argv is not None else sys.argv[1:])
    if words[:1] == ["--carry-out"]:
        carry_out(words[1], json.loads(words[2]))
        return 0
    given = arguments(words)
    result: Numbers = opened("study.py", words)
    result |= {"workload": given.workload, "memory_runs": given.memory}
    result |= {"turns": [], "memory": {}}
    kinds = ["warm", *(["programs"] if "programs" in given.against else [])]
    for number in range(given.turns):
        turn = {kind: study(kind, given) for kind in (kinds[::-1] if number % 2 else kinds)}
        if "flower" in given.against:
            try:
                turn["flower"] = flower(given)
            except NotInstalled as error:
                print(f"flower: NOT INSTALLED: {error}", flush=True)
        assert len({json.dumps(turn[kind]["digests"]) for kind in kinds}) == 1, "other bits"
        result["turns"].append(turn)
        if given.json:
            given.json.write_text(json.dumps(result, indent=1) + "\n")
    for kind in kinds if given.memory else ():
        few = {"methods": given.methods.split(",")[:1], "seeds": given.memory, "rounds": 1}
        both = [study(kind, given, **few, jobs=jobs) for jobs in (1, given.memory)]
        result["memory"][kind] = [found["pss_peak"] for found in both]
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
