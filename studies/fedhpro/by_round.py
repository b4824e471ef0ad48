"""Accuracy around several rounds of the same runs, with differences from a reference.

    fedbench compare --config studies/fedhpro/parts.yaml --out parts
    python studies/fedhpro/by_round.py parts --rounds 10 20 50 --out parts.csv

Reads the runs of a comparison in one setting, writes the accuracy of each scored round, and prints
a Markdown table with a line per variant: the mean over the five rounds that end with each of the
given ones, and paired differences at the first and the last of them.

Further seeds can be added to a file that is there. What was run again takes the place of the old:

    python studies/fedhpro/by_round.py more --earlier parts.csv --rounds 10 20 50 --out parts.csv
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import fedbench
from fedbench.errors import did_you_mean
from fedbench.study.curves import points
from fedbench.study.statistics import paired

LAST = 5
"""How many rounds are averaged."""

Curves: TypeAlias = dict[str, dict[int, dict[int, float]]]
"""Variant -> seed -> round -> accuracy, a fraction."""


def read(folder: Path) -> Curves:
    """Return the curves of the finished runs of a comparison."""
    curves: Curves = {}
    (group,) = fedbench.load_comparison(folder).analysis.groups
    for record in group.records:
        if record.status == "finished":
            found = dict(points(record.rounds, record.config.accuracy))
            curves.setdefault(record.variant, {})[record.seed] = found
    return curves


def read_file(file: Path) -> Curves:
    """Return the curves of a file that `write` made."""
    curves: Curves = {}
    with file.open() as lines:
        for row in csv.DictReader(lines):
            seeds = curves.setdefault(row["variant"], {})
            seeds.setdefault(int(row["seed"]), {})[int(row["round"])] = float(row["accuracy"])
    return curves


def joined(earlier: Curves, new: Curves) -> Curves:
    """Return both, the new one where both have a seed of a variant; seeds in order."""
    variants = dict.fromkeys((*earlier, *new))
    both = {v: earlier.get(v, {}) | new.get(v, {}) for v in variants}
    return {v: dict(sorted(seeds.items())) for v, seeds in both.items()}


def around(curves: Mapping[int, Mapping[int, float]], number: int) -> dict[int, float]:
    """Return seed -> the mean over the rounds that end with ``number``, in percent."""
    wanted = range(number - LAST + 1, number + 1)
    return {s: 100 * statistics.mean(c[n] for n in wanted) for s, c in curves.items()}


def ends(rounds: Sequence[int]) -> list[int]:
    """Return the rounds whose differences are shown: the first and the last, which may be one."""
    return list(dict.fromkeys((rounds[0], rounds[-1])))


def mean(values: Sequence[float]) -> str:
    """Return mean and standard deviation of values, of which there may be none."""
    if len(values) > 1:
        return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    return f"{values[0]:.2f}" if values else "failed"


def line(curves: Curves, variant: str, reference: str, rounds: Sequence[int]) -> list[str]:
    """Return the cells of a variant: its means, and differences unless it is the reference."""
    base = curves[reference]
    means = [list(around(curves[variant], number).values()) for number in rounds]
    cells = [mean(values) for values in means]
    for number in ends(rounds):
        if variant == reference:
            cells.append("")
            continue
        cells.append(str(paired(around(curves[variant], number), around(base, number))))
    return cells


def table(curves: Curves, reference: str, rounds: Sequence[int]) -> str:
    """Return the Markdown table, the reference first."""
    means = " | ".join(f"round {number}" for number in rounds)
    differences = " | ".join(f"difference at {number}" for number in ends(rounds))
    head = f"| METHOD | {means} | {differences} |"
    lines = [head, "|---|" + "---:|" * (len(rounds) + len(ends(rounds)))]
    for variant in sorted(curves, key=lambda name: name != reference):
        lines.append(f"| `{variant}` | {' | '.join(line(curves, variant, reference, rounds))} |")
    return "\n".join(lines)


def write(curves: Curves, out: Path) -> None:
    """Write a line per variant, seed and round."""
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("variant", "seed", "round", "accuracy"))
        for variant, seeds in curves.items():
            for seed, curve in seeds.items():
                writer.writerows((variant, seed, *point) for point in curve.items())


def check(parser: argparse.ArgumentParser, reference: str, variants: Collection[str]) -> None:
    """End the program if the reference is not one of the variants."""
    if reference not in variants:
        parser.error(f"--reference: no variant {reference!r}{did_you_mean(reference, variants)}")


def main(words: Sequence[str] | None = None) -> None:
    """Write the curves and print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of the comparison")
    parser.add_argument("--reference", default="fedhpro", metavar="METHOD")
    parser.add_argument("--rounds", type=int, nargs="+", required=True, metavar="N")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV file")
    parser.add_argument("--earlier", type=Path, metavar="FILE", help="adds other seeds' curves")
    given = parser.parse_args(words)
    curves = joined(read_file(given.earlier) if given.earlier else {}, read(given.runs))
    check(parser, given.reference, curves)
    write(curves, given.out)
    print(table(curves, given.reference, given.rounds))


if __name__ == "__main__":
    main()
