"""Final accuracy of every variant in every setting, with differences from a reference.

    fedbench compare --config studies/fedhpro/elsewhere.yaml --out elsewhere
    python studies/fedhpro/by_setting.py elsewhere/runs.csv --reference fedhpro

Reads the lines of a comparison's runs, and prints a Markdown table with a line per variant: in
each setting the mean and standard deviation over the seeds, and the paired difference.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from by_round import check, mean

from fedbench.study.statistics import paired

Finals: TypeAlias = dict[str, dict[str, dict[int, float]]]
"""Setting -> variant -> seed -> accuracy in percent; all variants are in all settings."""


def read(file: Path) -> Finals:
    """Return the accuracies of the finished runs in a comparison's ``runs.csv``."""
    finals: Finals = {}
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        variants = finals.setdefault(row["setting"], {})
        seeds = variants.setdefault(row["variant"], {})
        if row["status"] == "finished":
            seeds[int(row["seed"])] = 100 * float(row["accuracy"])
    return finals


def line(finals: Finals, variant: str, reference: str) -> list[str]:
    """Return the cells of a variant, two per setting."""
    cells = []
    for variants in finals.values():
        ours, base = variants[variant], variants[reference]
        cells.append(mean(list(ours.values())))
        compared = variant != reference and ours.keys() & base.keys()
        cells.append(str(paired(ours, base)) if compared else "")
    return cells


def table(finals: Finals, reference: str) -> str:
    """Return the Markdown table, the reference first."""
    heads = " | ".join(f"{setting} | difference" for setting in finals)
    lines = [f"| METHOD | {heads} |", "|---|" + "---:|" * (2 * len(finals))]
    variants = next(iter(finals.values()))
    for variant in sorted(variants, key=lambda name: name != reference):
        lines.append(f"| `{variant}` | {' | '.join(line(finals, variant, reference))} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="runs.csv of a comparison")
    parser.add_argument("--reference", default="fedhpro", metavar="METHOD")
    given = parser.parse_args(words)
    finals = read(given.runs)
    check(parser, given.reference, next(iter(finals.values()), ()))
    print(table(finals, given.reference))


if __name__ == "__main__":
    main()
