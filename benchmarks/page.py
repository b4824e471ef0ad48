"""Write the performance page of the documentation from the files that the other scripts write.

    python benchmarks/page.py --speed w1.json w2.json --study study.json --devices devices.json \
        --components components.json --growth growth.json --gpu gpu.json --out docs/performance.md

Plots go into a folder next to the page, with the same name. No number is typed by hand: each has
its command, its machine and its count on the page.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import growth_plots
from arithmetic import BEYOND, Arithmetic
from speed import BUSY, megabytes

Result = dict[str, Any]

IN_USE = 1e9
"""Bytes of a GPU's memory; if more are in use before the first run, the page says so."""
PATHS = ("--json", "--envs")
"""Flags whose value is a path, which changes no number."""

LIMIT = 1.2
"""From this multiple of what is expected on, a method's cost has to be explained."""

INTRODUCTION = """# Performance

This page shows how much time and memory a simulated federated learning experiment takes in
fedbench, compared with a hand-written training loop and with other frameworks. The scripts in
`benchmarks/` measured all numbers, and `benchmarks/page.py` wrote this page; `benchmarks/README.md`
says what each number means and how to repeat it. {gpu} For the effect of `precision: bf16` on
accuracy, see [bf16 compared with fp32](results/precision.md).
"""

NO_GPU = """There are no GPU measurements yet: nobody has run
fedbench on a GPU, and only the code paths are tested."""
ON_CPU = """There are no GPU measurements yet: the
section on one GPU is a run of its script on a CPU, which only shows that the script works."""
ON_GPU = """The section on one GPU was measured on a
GPU, everything else on CPUs."""


def where(result: Result, n: int) -> str:
    """Return command, machine, commit, date and count."""
    machine = result["machine"]
    memory = f", {machine['memory'] / 2**30:.0f} GiB" if machine["memory"] else ""
    busy = result.get("load_at_start", 0.0)
    warning = f" **The machine was busy: load {busy:.1f} at the start.**" if busy > BUSY else ""
    count = f"n = {n}" + (f", stopped before {result['runs']}" if n < result["runs"] else "")
    command = shlex.join(without_paths(result["command"]))
    return (
        f"`python benchmarks/{command}` on {machine['cores']} cores "
        f"({machine['processor']}{memory}, {machine['system']}, Python {machine['python']}), "
        f"commit `{result['commit'][:10]}`, {result['date'][:10]}, {count}.{warning}\n"
    )


def without_paths(command: Sequence[str]) -> list[str]:
    """Return a command without the flags that say where files of the machine are."""
    kept, words = [], iter(command)
    for word in words:
        if word in PATHS:
            next(words)
        else:
            kept.append(word)
    return kept


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first hold numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def ratio(row: Result, name: str) -> str:
    found = row.get(name)
    return f"{found['median']:.2f} ({found['min']:.2f}-{found['max']:.2f})" if found else "-"


def speed(result: Result) -> str:
    """Return the section of one workload."""
    size = result["workload"]
    n = min(row["runs"] for row in result["summary"].values())
    rows = []
    for name, row in result["summary"].items():
        versions = result["contestants"][name]["versions"]
        packages = [f"{k} {v}" for k, v in versions.items() if k not in ("python", "ray")]
        rows.append(
            (
                f"{name} ({', '.join(packages)})",
                f"{row['seconds_per_round']:.2f}",
                ratio(row, "seconds_per_round/plain"),
                f"{row['first_round']:.1f}",
                ratio(row, "first_round/flower"),
                megabytes(row["pss_peak"]),
                ratio(row, "pss_peak/plain"),
            )
        )
    head = ("", "s per round", "/ plain", "first round, s", "/ Flower's", "peak MB", "/ plain")
    absent = not_in_table(result)
    return (
        f"## {size['name'].upper()}\n\n{size['model']} on {' x '.join(map(str, size['shape']))}, "
        f"{size['online']} of {size['clients']} clients per round, {size['examples']} examples "
        f"each, batch {size['batch']}, one epoch, evaluation on {size['test']} images. "
        f"{where(result, n)}\n{table(head, rows)}{absent}\n"
        "Times and memory are medians over processes. Ratios compare runs of the same turn: the "
        "median over turns, with the lowest and highest in brackets. Memory is the peak of all "
        "processes together; shared pages are counted once.\n"
    )


def not_in_table(result: Result) -> str:
    """Return a line on each contestant without a row, with the reason."""
    return "".join(
        f"\nNot in the table: {name}, {why.splitlines()[0]}\n"
        for name, why in {**result["not_installed"], **result["failed"]}.items()
    )


def studies(result: Result) -> str:
    """Return the section of a study of many short runs."""
    turns = result["turns"]
    rows = []
    for name in turns[0]:
        found = [turn[name] for turn in turns if name in turn]

        def median(key: str, of: Sequence[Result] = found) -> str:
            return f"{statistics.median(one[key] for one in of):.2f}" if key in of[0] else "-"

        versions = [f" ({k} {v})" for k, v in found[0].get("versions", {}).items() if k == "flwr"]
        beside = [second for one in found for second in one.get("beside", ())]
        rows.append(
            (
                name + "".join(versions),
                str(found[0]["runs"]),
                *map(median, ("per_run", "cpu", "execute/ideal")),
                f"{statistics.median(beside):.2f}" if beside else "-",
                f"{max(one['pss_peak'] for one in found) / 1e6:.0f}",
            )
        )
    head = (
        *("", "runs", "s per run", "processor, s per run", "study / (rounds / cores)"),
        *("s per run beside its rounds", "peak MB"),
    )
    memory = "".join(
        f"\n{name}: at most {one / 1e6:.0f} MB with one run at a time, {many / 1e6:.0f} MB with "
        f"{result['memory_runs']} at a time.\n"
        for name, (one, many) in result["memory"].items()
    )
    place = where({**result, "runs": len(turns)}, len(turns))
    return (
        f"## A study on {result['workload']}\n\n{place}\n"
        f"{table(head, rows)}{memory}\n"
        "A study is a grid of methods and seeds; the rounds are short. `warm` is "
        "`fedbench compare`, whose runs are forked by one process; `programs` starts a program for "
        "each run; `flower` is one run after the other, each on all cores. The ideal time is the "
        "sum of the rounds' own seconds, divided by the number of cores. Memory includes the "
        "process that carries out the study.\n"
    )


def devices(result: Result) -> str:
    """Return the section on many registered clients."""
    turns = result["turns"]
    rows = []
    for name in ("plain", "fedbench"):
        found = [turn[name] for turn in turns]
        middle = {
            key: statistics.median(one[key] or 0 for one in found)
            for key in ("seconds_per_round", "first_round", "memory_early", "memory_late")
        }
        rows.append(
            (
                name,
                f"{middle['seconds_per_round']:.3f}",
                f"{middle['first_round']:.1f}",
                f"{middle['memory_early'] / 1e6:.0f}",
                f"{middle['memory_late'] / 1e6:.0f}",
            )
        )
    ratios = sorted(turn["ratio"] for turn in turns)
    head = ("", "s per round", "first round, s", "MB, first quarter", "MB, last quarter")
    place = where(result, len(turns))
    return (
        f"## Many registered clients\n\nFedAvg with a logistic model on `synthetic`: "
        f"{result['clients']:,} registered clients, {result['cohort']} per round, "
        f"{result['rounds']:,} rounds. {place}\n{table(head, rows)}\n"
        f"All rounds after the first take {statistics.median(ratios):.2f} of the plain loop's time "
        f"({ratios[0]:.2f}-{ratios[-1]:.2f}); the goal is at most 1.3. Memory is the "
        "highest reading in the first and in the last quarter of the rounds.\n"
    )


def components(result: Result) -> str:
    """Return the sections on single parts and on methods."""
    rows = [(row["name"], f"{row['value']:.3f}", f"{row['target']:.2f}") for row in result["rows"]]
    place = where(result, result["runs"])
    over = [row["name"] for row in result["rows"] if row["value"] > row["target"]]
    missed = f"\nOver the target: {'; '.join(over) or 'nothing'}.\n"
    head = ("", "median", "target")
    parts = [f"## Parts\n\n{place}\n{table(head, rows)}{missed}"] if rows else []
    return "\n".join([*parts, *([methods(result)] if result.get("methods") else [])])


def expected(row: Result) -> Arithmetic:
    """Return what a method's formulas say about its turn."""
    return BEYOND.get(row["name"], Arithmetic())


def methods(result: Result) -> str:
    """Return the section on what methods cost beside FedAvg."""
    n = result["method_runs"]
    found = [row for row in result["methods"] if "refused" not in row]
    rows = [
        (
            row["name"] + (f" ({', '.join(row['model'].values())} norm)" if row["model"] else ""),
            f"{row['turn']:.2f}",
            f"{expected(row).turn:.2f}",
            f"{row['turn'] / expected(row).turn:.2f}",
            f"{row['extra_ms']:+.0f}",
            f"{row['server_ms']:.0f}",
            expected(row).why,
        )
        for row in sorted(found, key=lambda row: row["name"])
    ]
    absent = "".join(
        f"\nNot in the table: {row['name']}, {row['refused'].splitlines()[0]}\n"
        for row in result["methods"]
        if "refused" in row
    )
    head = ("", "turn / FedAvg's", "expected", "turn / expected", "extra, ms", "server, ms", "why")
    times = {row["name"]: row["turn"] / expected(row).turn for row in found}
    names = ", ".join(f"{name} ({time:.2f})" for name, time in times.items() if time > LIMIT)
    verdict = f"Over {LIMIT} times that: {names or 'none'}."
    return (
        f"## Methods, n = {n}\n\n{where({**result, 'runs': n}, n)}\n{table(head, rows)}{absent}\n"
        "A client's turn on W1 in the second round, as a multiple of FedAvg's turn and as the "
        "difference, and a round on the server for 10 clients with ResNet-10 (4.9 MB): broadcast, "
        "receipt of the uploads, aggregation, update of the server. Medians of processor time on "
        "one thread. The fedavg row compares FedAvg with itself, so it shows the noise. What is "
        "expected follows from what the method computes beside FedAvg's steps, where a forward "
        f"pass counts as a third of a step. {verdict}\n"
    )


def introduction(measured: Result | None) -> str:
    """Return the beginning of the page, which says whether there are numbers of a GPU."""
    if measured is None:
        return INTRODUCTION.format(gpu=NO_GPU)
    return INTRODUCTION.format(gpu=ON_CPU if measured["device"] == "cpu" else ON_GPU)


def gpu(result: Result) -> str:
    """Return the section on one GPU."""
    n, tables = result["runs"], []
    for name, one in result["workloads"].items():
        rows = [
            (
                contestant,
                f"{row['seconds_per_round']:.2f}",
                ratio(row, "seconds_per_round/plain"),
                f"{row['first_round']:.1f}",
                megabytes(row["gpu_peak"]),
                megabytes(row["pss_peak"]),
            )
            for contestant, row in one["summary"].items()
        ]
        head = ("", "s per round", "/ plain", "first round, s", "GPU, MB", "host, MB")
        tables.append(f"### {name.upper()} on one GPU\n\n{table(head, rows)}")
        tables += [f"- {line}\n" for line in one["digests"]]
        tables.append(not_in_table(one))
    device = result["accelerator"]
    memory = f", {device['memory'] / 2**30:.0f} GiB" if device["memory"] else ""
    cuda = f", CUDA {device['cuda']}" if device["cuda"] else ""
    tiny = " **Tiny sizes: its times mean nothing.**" if result["short"] else ""
    busy = ""
    if (result["in_use_before"] or 0) > IN_USE:
        used = megabytes(result["in_use_before"])
        busy = f" **{used} MB of the GPU were in use before the first run.**"
    return (
        f"## One GPU\n\nDevice: {device['name']}{memory} (torch {device['torch']}{cuda}).{tiny}"
        f"{busy} {where(result, n)}\n" + "\n".join(filter(None, tables)) + "\n"
        f'Flower and the rows "{result["at_once"]} at once" train {result["at_once"]} clients at '
        "a time, each in a process of Ray's; fedbench's other rows train one client after the "
        "other in one process. `strict` is the plain loop with the arithmetic of fedbench: cuDNN "
        "deterministic, and no TF32. Rows with bf16 are compared with the plain loop in float32. "
        "GPU memory is the rise of the memory in use on the GPU while the contestant ran, CUDA "
        "contexts included. Equal digests are equal bits of the final weights.\n"
    )


def growth(result: Result, plots: Path) -> str:
    """Return the section on growth, and draw its plots."""
    files = growth_plots.write(result, plots)
    parts = [f"## How cost grows\n\n{where(result, result['runs'])}"]
    if memory := result["memory"]:
        percent = 100 * (memory["memory_factor"] - 1)
        parts.append(
            f"From {memory['from']} to {memory['to']} clients per round, peak memory changes by "
            f"{percent:+.1f} %.\n"
        )
    if result["overhead"]:
        rows = [
            (
                f"{row['megabytes']:.1f} MB, {row['executor']}",
                f"{row['ms_per_client']:.2f}",
                f"{row['target_ms']:.2f}",
            )
            for row in result["overhead"]
        ]
        parts.append("Time per client that trains nothing (job, seal, stream, aggregate):\n")
        parts.append(table(("weights, executor", "ms", "target, ms"), rows))
    for file in files:
        if file.suffix == ".svg":
            parts.append(f"![{file.stem}]({plots.name}/{file.name})\n")
    for name, one in result["fit"].items():
        title = name.replace(" a round", " per round")
        parts.append(
            f"**{title[0].upper()}{title[1:]}**, fitted to {one['points']} points (median error "
            f"{100 * one['median_error']:.0f} %, largest {100 * one['largest_error']:.0f} %): "
            f"{one['formula']}\n"
        )
        for guess in one["extrapolated"]:
            text = f"{guess['what']}: {guess['value']:,.0f} {guess['unit']}"
            parts.append(f"- *extrapolated, not measured*: {text}\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--study", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--devices", type=Path, metavar="FILE")
    parser.add_argument("--components", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--growth", type=Path, metavar="FILE")
    parser.add_argument("--gpu", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.md")
    given = parser.parse_args(argv)
    on_gpu = json.loads(given.gpu.read_text()) if given.gpu else None
    parts = [introduction(on_gpu)]
    parts += [speed(json.loads(file.read_text())) for file in given.speed]
    parts += [gpu(on_gpu)] if on_gpu else []
    parts += [studies(json.loads(file.read_text())) for file in given.study]
    if given.devices:
        parts.append(devices(json.loads(given.devices.read_text())))
    parts += [components(json.loads(file.read_text())) for file in given.components]
    if given.growth:
        parts.append(growth(json.loads(given.growth.read_text()), given.out.with_suffix("")))
    given.out.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
