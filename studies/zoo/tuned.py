"""Two tables of many tuned methods: what the search found and how good it is; what it costs.

    fedbench tune --config docs/results/zoo-fashion-tuned.yaml --out zoo-tuned
    python studies/zoo/zoo.py zoo-tuned/runs --out tuned.csv
    python studies/zoo/tuned.py tuned.csv zoo-tuned/trials.csv

Reads what `zoo.py` writes of the comparison that follows a search, and the trials of the search,
and prints Markdown tables with a line per method. Differences from the reference are paired seed by
seed, of the accuracy that the search was for: on all test data, or with ``--by clients`` on test
data like each client's.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo import COSTS, Row, accuracies, costs, markdown, pairs, ranks, read

from fedbench.errors import did_you_mean


@dataclass(frozen=True)
class Found:
    """What the search of one method found.

    Attributes:
        values: the chosen ones as text; ``default`` for the default.
        default: validation score of the default, a fraction; ``None`` if it failed.
        best: the same of the chosen values.
        failed: how many trials failed.
        trials: how many there were.
    """

    values: str
    default: float | None
    best: float | None
    failed: int
    trials: int


def searched(file: Path) -> dict[str, Found]:
    """Return what the search found for each method, from its file of trials."""
    trials: dict[str, list[dict[str, str]]] = {}
    with file.open() as lines:
        for line in csv.DictReader(lines):
            trials.setdefault(line["method"], []).append(line)
    return {method: _found(lines) for method, lines in trials.items()}


def _found(lines: Sequence[Mapping[str, str]]) -> Found:
    (best,) = (line for line in lines if line["chosen"] == "1")
    (default,) = (line for line in lines if line["trial"] == "0")
    values = [f"{key}={value}" for key, value in best.items() if "." in key and value]
    return Found(
        values="default" if best is default else ", ".join(values),
        default=float(default["validation"]) if default["validation"] else None,
        best=float(best["validation"]) if best["validation"] else None,
        failed=sum(line["end"] == "failed" for line in lines),
        trials=len(lines),
    )


def by_method(rows: Sequence[Row], methods: Mapping[str, Found]) -> dict[str, list[Row]]:
    """Return method -> its rows, under its own name: the search names it with its values."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        names = [m for m in methods if row.method == m or row.method.startswith(f"{m}:")]
        name = max(names, key=len)
        found.setdefault(name, []).append(replace(row, method=name))
    return found


def percent(value: float | None) -> str:
    """Return a fraction in percent."""
    return "failed" if value is None else f"{100 * value:.2f}"


SEARCH = ("found", "failed", "default", "found")
SCORED = {
    "accuracy": ("all test data", "rank", "clients' data", "rank"),
    "clients": ("clients' data", "rank"),
}
"""The accuracy that methods are compared by -> what is shown; own models are for clients."""


def tables(
    rows: Sequence[Row], found: Mapping[str, Found], reference: str, column: str
) -> tuple[str, str]:
    """Return the Markdown tables of accuracies and of costs, by falling accuracy.

    Args:
        rows: all runs.
        found: method -> what the search found.
        reference: the method that the others are compared with.
        column: the accuracy that methods are ordered and compared by.
    """
    methods = by_method(rows, found)
    named = [row for one in methods.values() for row in one]
    places = [ranks(named, "accuracy").ranks, ranks(named, "clients").ranks]
    differences = pairs(methods, reference, column)

    def order(method: str) -> float:
        known = [v for r in methods[method] if (v := getattr(r, column)) is not None]
        return -sum(known) / len(known) if known else 0.0

    def cells(method: str) -> list[str]:
        search, own = found[method], methods[method]
        scored = accuracies(own, places)[-len(SCORED[column]) :]
        return [
            search.values,
            f"{search.failed} of {search.trials}",
            percent(search.default),
            percent(search.best),
            *(scored if scored[0] else ["failed", *scored[1:]]),
            str(differences[method]) if method in differences else "",
        ]

    ordered = sorted(methods, key=order)
    ended = [m for m in ordered if any(r.status == "finished" for r in methods[m])]
    return (
        markdown((*SEARCH, *SCORED[column], f"from `{reference}`"), {m: cells(m) for m in ordered}),
        markdown(COSTS, {m: costs(methods[m]) for m in ended}),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="CSV file of zoo.py")
    parser.add_argument("trials", type=Path, help="trials.csv of the search")
    parser.add_argument("--reference", default="fedavg", metavar="METHOD", help="default fedavg")
    parser.add_argument(
        "--by", choices=("accuracy", "clients"), default="accuracy", help="default accuracy"
    )
    given = parser.parse_args(words)
    found = searched(given.trials)
    if given.reference not in found:
        hint = did_you_mean(given.reference, found)
        parser.error(f"--reference: no method {given.reference!r}{hint}")
    print(*tables(read(given.rows), found, given.reference, given.by), sep="\n\n")


if __name__ == "__main__":
    main()
