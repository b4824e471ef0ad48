"""``fedbench reproduce``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..study import TEMPORARY
from ..text import echo
from .base import Command
from .compare import seeds_of
from .flags import installed, study_flags

if TYPE_CHECKING:
    from ..interface.reproductions import Reproduced
    from ..plugins.registry import Registry

STATUS = {"reproduced": 0, "not reproduced": 3, "undecided": 4}
"""Verdict -> exit status."""


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--cell", "cells", multiple=True, metavar="CELL", help="Only this cell. Repeatable.")
@click.option(
    "--method", "methods", multiple=True, metavar="METHOD", help="Only this method. Repeatable."
)
@click.option(
    "--seeds",
    metavar="N|A,B,C",
    help="Number of seeds, which start at 0, or the seeds themselves. Default: the file's.",
)
@click.option("--dry-run", is_flag=True, help="Print what it would cost, and run nothing.")
@study_flags("reproduction")
def reproduce(
    name: str | None, cells: tuple[str, ...], methods: tuple[str, ...], seeds: str | None,
    dry_run: bool, out: Path, quiet: bool, **how: Any,
) -> None:  # fmt: skip
    """Repeat published results, and judge them by a fixed rule.

    \b
    fedbench reproduce                              list them with their cost
    fedbench reproduce mcmahan-mnist-2nn --dry-run  its cells, what is left
    fedbench reproduce mcmahan-mnist-2nn --cell iid --seeds 3

    A reproduction is a YAML file of a package: a grid, the published values with their source, and
    the rule. What it will cost is printed first, as measured on the stated machine. Finished runs
    in --out are reused, and the same command resumes. --method makes a long table affordable, and
    judges a method of a table that was stopped halfway.

    The exit status is 0 if everything was reproduced, 3 if anything was not, and 4 if the runs or
    the source leave it undecided; 1 if a run failed; 75 if the machine got in the way.
    """
    from ..interface.reproductions import carry_out, cost, with_seeds
    from ..report.terminal import print_table
    from ..study.comparison import How
    from ..study.reproductions import chosen, load, with_methods
    from .warm import forked

    registry = installed()
    if name is None:
        _print_all(registry)
        return
    found, parts = load(registry, name)
    parts = with_seeds(with_methods(chosen(parts, cells), methods), seeds_of(seeds))
    for line in cost(registry, found, parts, How(**how), out):
        echo(line)
    if dry_run:
        return
    with forked(registry) as parent:
        done = carry_out(registry, found, parts, How(**how, parent=parent), out, quiet)
    for table in done.tables:
        print_table(table)
    for what in found.differs:
        echo(f"known to differ: {what}")
    echo(repr(done))
    echo("Wrote " + ", ".join(map(str, done.write(out))))
    _end(done, STATUS[done.outcome])


def _end(done: Reproduced, status: int) -> None:
    """Print the runs that the machine ended, and exit with the status that says how all ended."""
    from ..interface.comparisons import interruptions

    for progress in done.progress:
        for line in interruptions(progress):
            echo(line)
    if done.failed or any(progress.left_alone for progress in done.progress):
        sys.exit(1)
    sys.exit(TEMPORARY if any(progress.interrupted for progress in done.progress) else status)


def _print_all(registry: Registry) -> None:
    """Print every reproduction with its cost."""
    from ..interface.progress import console, grid
    from ..study.reproductions import Estimate, estimate_whole, load
    from ..text import duration

    table = grid("name", "cells", "runs", "time", "title")
    table.columns[4].justify = "left"
    for name in registry.names("reproduction"):
        found, parts = load(registry, name)
        cost = sum((estimate_whole(registry, part) for part in parts), Estimate())
        counts = (str(len(parts)), str(cost.runs))
        table.add_row(name, *counts, duration(cost.seconds), found.title)
    console().print(table)
    echo("time: of all cells, on the machine that --dry-run names")
