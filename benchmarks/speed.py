"""Compare fedbench with a plain loop and peers: time per round and to the first round, and memory.

    python benchmarks/speed.py --workload w1 --against plain,flower --runs 5 --json w1.json
    python benchmarks/speed.py --short

Contestants alternate: the first run of each, then the second run of each. Every run is a process of
its own. Ratios compare runs of the same turn, which are only minutes apart, so a machine that is
slow for an hour favours no contestant.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import measure
from contestants import HERE, PEERS, ROOT, Contestant, fedbench, peer, plain
from environments import NotInstalled
from workloads import SHORT, WORKLOADS, Workload

Result = dict[str, Any]

BUSY = 0.5
"""A load average above this means that the machine is doing something else too."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=("w1", "w2"), default="w1")
    parser.add_argument(
        "--against", default="plain", metavar="NAMES", help=f"plain, {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--variants",
        default="fedavg",
        metavar="NAMES",
        help="fedbench's rows: METHOD[-bf16][:KEY=VALUE]..., for example fedavg,fedavg-bf16,"
        "fedhpro,fedavg:executor.workers=1",
    )
    parser.add_argument("--runs", type=int, default=3, help="processes of each contestant")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    parser.add_argument("--envs", type=Path, default=HERE / ".envs", help="peers' environments")
    parser.add_argument("--own-torch", action="store_true", help="PyTorch in each environment")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it works")
    given = parser.parse_args(argv)
    given.against = [name for name in given.against.split(",") if name]
    given.variants = [name for name in given.variants.split(",") if name]
    unknown = set(given.against) - {"plain", *PEERS}
    if unknown:
        parser.error(f"--against: unknown contestants: {', '.join(sorted(unknown))}")
    if given.rounds < 2:
        parser.error("--rounds: at least 2, because the first round is not typical")
    if given.short:
        given.runs, given.rounds = 1, 2
    return given


def line_up(given: argparse.Namespace) -> tuple[list[Contestant], dict[str, str]]:
    """Return the contestants in their order, and the reason for each one that cannot take part.

    fedbench directly follows the plain loop, because the machine's speed drifts within a turn.
    """
    first = [plain()] if "plain" in given.against else []
    there, absent = invited(given)
    return [*first, *map(fedbench, given.variants), *there], absent


def invited(given: argparse.Namespace, *words: str) -> tuple[list[Contestant], dict[str, str]]:
    """Return the peers, whose drivers get further ``words``, and why each absent one is absent."""
    there, absent = [], {}
    for name in given.against:
        if name == "plain":
            continue
        try:
            there.append(peer(name, given.envs, given.own_torch, *words))
        except NotInstalled as error:
            absent[name] = str(error)
            print(f"{name}: NOT INSTALLED: {error}", flush=True)
    return there, absent


def once(contestant: Contestant, workload: Workload, rounds: int) -> Result:
    """Run a contestant once in a folder of its own; return its numbers, and fedbench's digest."""
    folder = Path(tempfile.mkdtemp(prefix="fedbench-speed-"))
    try:
        command = contestant.command(workload, rounds, folder)
        found = measure.run(command, rounds, env=contestant.environment, gpu=contestant.gpu)
        kept = folder / "run" / "result.json"
        digest = json.loads(kept.read_text())["weights_sha256"] if kept.exists() else None
        return {**asdict(found), "per_round": found.per_round, "weights_sha256": digest}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play(
    workload: Workload,
    contestants: list[Contestant],
    runs: int,
    rounds: int,
    save: Callable[[Result], None],
    result: Result,
) -> None:
    """Run the contestants in turn, and write every number into ``result``.

    One that fails takes no further part.
    """
    table = result["contestants"]
    for number in range(1, runs + 1):
        for one in contestants:
            if one.name in result["failed"]:
                continue
            try:
                found = once(one, workload, rounds)
            except measure.Failed as error:
                result["failed"][one.name] = str(error)
                print(f"run {number}/{runs}  {one.name}: FAILED: {error}", flush=True)
                continue
            entry = table.setdefault(one.name, {"versions": one.versions, "runs": []})
            entry["runs"].append({"run": number, **found})
            print(
                f"run {number}/{runs}  {one.name}: first round after {found['rounds'][0]:.1f} s, "
                f"then {statistics.median(found['per_round']):.2f} s a round",
                flush=True,
            )
            result["summary"] = summary(table)
            save(result)


def summary(table: dict[str, Any]) -> dict[str, Any]:
    """Return medians over runs, and ratios to the plain loop and to Flower, run by run."""
    rows = {}
    for name, entry in table.items():
        row: dict[str, Any] = {"runs": len(entry["runs"])}
        for column, value in COLUMNS.items():
            mine = {run["run"]: value(run) for run in entry["runs"]}
            numbers = [v for v in mine.values() if v is not None]
            row[column] = statistics.median(numbers) if numbers else None
            for base in ("plain", "flower"):
                others = {run["run"]: value(run) for run in table.get(base, {"runs": []})["runs"]}
                ratios = [mine[n] / others[n] for n in mine if mine[n] and others.get(n)]
                if ratios:
                    row[f"{column}/{base}"] = {
                        "median": statistics.median(ratios),
                        "min": min(ratios),
                        "max": max(ratios),
                    }
        rows[name] = row
    return rows


COLUMNS: dict[str, Callable[[Any], float | None]] = {
    "seconds_per_round": lambda run: statistics.median(run["per_round"]),
    "first_round": lambda run: run["rounds"][0],
    "pss_peak": lambda run: run["pss_peak"],
    "gpu_peak": lambda run: run.get("gpu_peak"),
}
"""What is compared: time per round, time from process start to the first round, and memory."""


def machine() -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    model, memory = platform.processor(), None
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "processor": model,
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def opened(script: str, words: Sequence[str]) -> dict[str, Any]:
    """Return what a result begins with: command, commit, machine, date; warn if it is busy."""
    measure.adopt_orphans()
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"WARNING: this machine is busy (load {load:.1f}); trust only ratios", flush=True)
    return {
        "command": [script, *words],
        "commit": commit(),
        "machine": machine(),
        "date": datetime.now(UTC).isoformat("T", "seconds"),
        "load_at_start": load,
    }


def commit() -> str:
    """Return the current commit, with a plus sign if files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except OSError:
        return "unknown"


def show(result: Result) -> None:
    """Print the table."""
    size = result["workload"]
    print(
        f"\n{size['name']}: {size['online']} of {size['clients']} clients, {size['examples']} "
        f"examples each, {result['rounds']} rounds per process; {result['machine']['processor']}, "
        f"{result['machine']['cores']} cores; medians over processes, in [] the lowest and highest"
    )
    head = (
        "",
        "n",
        "s/round",
        "/ plain",
        "first round, s",
        "/ Flower's",
        "peak PSS, MB",
        "/ plain",
        "GPU, MB",
    )
    rows = [head]
    for name, row in result["summary"].items():
        found = " ".join(f"{k} {v}" for k, v in result["contestants"][name]["versions"].items())
        rows.append(
            (
                f"{name}",
                str(row["runs"]),
                f"{row['seconds_per_round']:.2f}",
                spread(row.get("seconds_per_round/plain")),
                f"{row['first_round']:.1f}",
                spread(row.get("first_round/flower")),
                megabytes(row["pss_peak"]),
                spread(row.get("pss_peak/plain")),
                megabytes(row["gpu_peak"]),
            )
        )
        rows[-1] += (found,)
    rows[0] += ("versions",)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{c:<{w}}" if i in (0, 9) else f"{c:>{w}}"
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    for name, why in {**result["not_installed"], **result["failed"]}.items():
        lines = why.splitlines()
        print(f"{name}: not in the table: {' '.join(dict.fromkeys((lines[0], lines[-1])))}")


def megabytes(size: float | None) -> str:
    """Return bytes as text in megabytes."""
    return "-" if size is None else f"{size / 1e6:.0f}"


def spread(ratio: dict[str, float] | None) -> str:
    """Return a ratio as text."""
    return f"{ratio['median']:.2f} [{ratio['min']:.2f} {ratio['max']:.2f}]" if ratio else "-"


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    measure.adopt_orphans()
    load = os.getloadavg()[0]
    if load > BUSY and not given.short:
        print(
            f"WARNING: this machine is busy (load {load:.1f}); its times are unreliable", flush=True
        )
    workload = SHORT[given.workload] if given.short else WORKLOADS[given.workload]
    contestants, absent = line_up(given)
    result: Result = {
        "workload": workload.as_dict,
        "runs": given.runs,
        "rounds": given.rounds,
        "command": [Path(sys.argv[0]).name, *(argv if argv is not None else sys.argv[1:])],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "load_at_start": load,
        "contestants": {},
        "summary": {},
        "not_installed": absent,
        "failed": {},
    }

    def save(result: Result) -> None:
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n")

    if not given.short:
        print("warm-up: one short run of each, not counted", flush=True)
        warm: Result = {"contestants": {}, "failed": result["failed"]}
        play(SHORT[given.workload], contestants, 1, 2, lambda _: None, warm)
    play(workload, contestants, given.runs, given.rounds, save, result)
    save(result)
    show(result)
    ours = [n for n in result["failed"] if n == "plain" or n.startswith("fedbench")]
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
