"""Diagnostics of class anchors in a comparison's runs: all of them, and their means at the end.

    fedbench compare --config studies/fedhpro/matching.yaml --out matching
    python studies/fedhpro/diagnosed.py matching --metrics drift consistency --out diagnostics.csv

Reads the runs of a comparison with ``anchor_diagnostics`` in one setting, writes a line per run,
measured round and diagnostic, and prints a Markdown table with a line per variant: the means of
the chosen ones over the seeds, in the last round that was measured.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import fedbench
from fedbench.errors import did_you_mean

PREFIX = "anchor_diagnostics."

Diagnostics: TypeAlias = dict[str, dict[str, dict[int, dict[int, float]]]]
"""Metric -> variant -> round -> seed -> value."""


def read(folder: Path) -> Diagnostics:
    """Return the diagnostics of the finished runs of a comparison."""
    found: Diagnostics = {}
    (group,) = fedbench.load_comparison(folder).analysis.groups
    for record in group.records:
        for result in record.rounds if record.status == "finished" else ():
            for name, value in result.metrics.items():
                if name.startswith(PREFIX):
                    rounds = found.setdefault(name.removeprefix(PREFIX), {})
                    seeds = rounds.setdefault(record.variant, {}).setdefault(result.round, {})
                    seeds[record.seed] = value
    return found


def read_file(file: Path) -> Diagnostics:
    """Return the diagnostics of a file that `write` made."""
    found: Diagnostics = {}
    with file.open() as lines:
        for row in csv.DictReader(lines):
            rounds = found.setdefault(row["metric"], {}).setdefault(row["variant"], {})
            rounds.setdefault(int(row["round"]), {})[int(row["seed"])] = float(row["value"])
    return found


def write(diagnostics: Diagnostics, file: Path) -> None:
    """Write a line per run, round and metric, to six decimals; a metric in the runs' order."""
    lines = [
        (variant, seed, number, metric, round(value, 6))
        for metric, variants in diagnostics.items()
        for variant, rounds in variants.items()
        for number, seeds in rounds.items()
        for seed, value in seeds.items()
    ]
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("variant", "seed", "round", "metric", "value"))
        writer.writerows(sorted(lines, key=lambda line: line[:3]))


def at_end(diagnostics: Diagnostics, metric: str, variant: str) -> float | None:
    """Return a metric's mean over the seeds in the variant's last measured round, or ``None``."""
    rounds = diagnostics[metric].get(variant)
    return statistics.mean(rounds[max(rounds)].values()) if rounds else None


def table(diagnostics: Diagnostics, metrics: Sequence[str]) -> str:
    """Return the Markdown table; a variant without anchors has empty cells."""
    lines = [f"| METHOD | {' | '.join(metrics)} |", "|---|" + "---:|" * len(metrics)]
    for variant in dict.fromkeys(v for variants in diagnostics.values() for v in variants):
        values = [at_end(diagnostics, metric, variant) for metric in metrics]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"| `{variant}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Print the table that the command line asks for, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path, help="folder of a comparison")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="default: all")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV to write")
    given = parser.parse_args(words)
    diagnostics = read(given.comparison)
    if not diagnostics:
        parser.error(f"no finished run in {given.comparison} has {PREFIX}* metrics")
    for metric in given.metrics or ():
        if metric not in diagnostics:
            parser.error(f"no metric {metric!r}{did_you_mean(metric, diagnostics)}")
    write(diagnostics, given.out)
    print(table(diagnostics, given.metrics or [*diagnostics]))


if __name__ == "__main__":
    main()
