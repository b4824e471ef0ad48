"""``fedbench compare`` and ``fedbench report``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..study import TEMPORARY
from ..text import echo
from .base import Command
from .flags import installed, stop_at_flag, study_flags
from .kinds import PATH, Finite

TARGET = (
    "Value of the reported metric whose cost in rounds, bytes and time is compared, for example "
    "0.9 for 90 %. Default: the final value of the reference, the mean over its seeds."
)

if TYPE_CHECKING:
    from ..report.part import Part
    from ..study.analysis import Analysis
    from ..study.execute import Progress
    from ..study.grid import Grid


@click.command(cls=Command)
@click.argument("methods", nargs=-1, metavar="[METHOD]...")
@click.option(
    "--data",
    multiple=True,
    metavar="NAME",
    help="Data set; `fedbench data` lists all. Repeatable.",
)
@click.option(
    "--card",
    "cards",
    multiple=True,
    metavar="NAME",
    help="Protocol card; `fedbench cards` lists all. Default: each data set's own. Repeatable.",
)
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="CHANGES",
    help="Changes of every METHOD, in the form of a METHOD's, such as an attack: "
    "+sign_flip:sign_flip.clients=0.2; 'plain' is without any. Repeatable.",
)
@click.option(
    "--seeds",
    metavar="N|A,B,C",
    help="Number of seeds, which start at 0, or the seeds themselves. Default: 3.",
)
@click.option(
    "--rounds",
    type=int,
    metavar="N",
    help="Number of communication rounds of every run. Default: the card's.",
)
@stop_at_flag
@click.option("--device", metavar="DEV", help="Device of every run. Default: cpu.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a value in every run. Repeatable.",
)
@click.option(
    "--config", "file", type=PATH, metavar="FILE",
    help="YAML grid of methods, data, cards, partitions, seeds and options; the other options "
    "override it.",
)  # fmt: skip
@click.option(
    "--reference",
    metavar="METHOD",
    help="The METHOD that the others are compared with. Default: the last.",
)
@click.option(
    "--test", type=click.Choice(["t", "wilcoxon"]),
    help="Paired test. The t-test is exact under normality and useful from 3 seeds on; "
    "Wilcoxon's cannot reject at 5 % with fewer than 6. Default: t.",
)  # fmt: skip
@click.option("--target", type=Finite(), metavar="VALUE", help=TARGET)
@click.option("--dry-run", is_flag=True, help="Print what would be run, and run nothing.")
@study_flags("comparison")
def compare(
    methods: tuple[str, ...], data: tuple[str, ...], cards: tuple[str, ...],
    settings: tuple[str, ...], seeds: str | None, rounds: int | None, device: str | None,
    sets: tuple[str, ...], file: Path | None, reference: str | None, test: str | None,
    target: float | None, stop_at: str | None, dry_run: bool, out: Path, quiet: bool, **how: Any,
) -> None:  # fmt: skip
    """Run METHODs over several seeds and test which one is better.

    \b
    fedbench compare fedavg fedproto fpl fedhpro --data digits --seeds 5
    fedbench compare fedhpro:-hpcl fedhpro:hpcl.temperature=0.1 fedhpro
    fedbench compare fedprox:+faults:faults.drop=0.2 mine.yaml fedavg
    fedbench compare fedavg krum --setting plain --setting +sign_flip
    fedbench compare --config grid.yaml --dry-run

    A METHOD is a name or a YAML file. It may be followed by plugins to remove (:-PLUGIN), plugins
    to add (:+PLUGIN) and values to set (:KEY=VALUE). Reports name methods in the same way.

    Within one seed, all methods share the partition, the initial weights, the client sampling and
    the batch order, so they are compared seed by seed.

    The runs, report.html, tables and figures are written to --out. Finished runs are reused: adding
    a method or a seed runs only what is new, and earlier runs of the same protocol stay in the
    report. If the code of a plugin, the data, a version or the arithmetic has changed since, one
    line says so and the run is repeated; the old one moves to replaced/.
    """
    from ..interface.comparisons import carry_out_grid
    from ..study.comparison import How, forecast
    from ..study.grid import plan
    from .warm import forked

    registry = installed()
    wanted = {
        "methods": methods, "data": data, "cards": cards, "settings": settings,
        "seeds": seeds_of(seeds), "set": sets, "rounds": rounds, "device": device,
        "reference": reference, "test": test, "target": target, "stop_at": stop_at,
    }  # fmt: skip
    grid = _grid(file, wanted)
    if dry_run:
        for line in forecast(registry, plan(registry, grid, out), How(**how)):
            echo(line)
        return
    with forked(registry) as parent:
        outcome = carry_out_grid(registry, grid, How(**how, parent=parent), out, quiet)
    if outcome.analysis:
        write_report(outcome.analysis, out)
    end(outcome.progress, outcome.failed)


def _grid(file: Path | None, wanted: Mapping[str, Any]) -> Grid:
    """Return the grid that the command line describes; it overrides that of a YAML file."""
    from ..study.grid import make_grid

    if not (file or wanted["methods"]):
        raise click.UsageError("name the methods to compare, or give a grid with --config FILE")
    return make_grid(file, wanted, "command line")


def end(progress: Progress, failed: bool) -> None:
    """Print the runs that the machine ended, and exit with the status that says how all ended."""
    from ..interface.comparisons import interruptions

    for line in interruptions(progress):
        echo(line)
    if progress.left_alone or failed:
        sys.exit(1)
    if progress.interrupted:
        sys.exit(TEMPORARY)


@click.command(cls=Command)
@click.argument("directories", nargs=-1, required=True, type=PATH, metavar="DIRECTORY...")
@click.option(
    "--reference",
    metavar="METHOD",
    help="The METHOD that the others are compared with. Default: the last.",
)
@click.option(
    "--test", type=click.Choice(["t", "wilcoxon"]), default="t", help="Paired test. Default: t."
)
@click.option("--target", type=Finite(), metavar="VALUE", help=TARGET)
@click.option(
    "--out", type=PATH, default=Path("report"), metavar="DIR",
    help="Folder to write the report into. Default: report.",
)  # fmt: skip
def report(
    directories: tuple[Path, ...], reference: str | None, test: Any, target: float | None, out: Path
) -> None:
    """Write the tables, figures and page for existing runs.

    \b
    fedbench report runs/* --out report
    fedbench report comparison --reference fedavg --target 0.9

    Every run at or below a DIRECTORY is included; it may come from another machine. Runs are
    grouped by data, partition, model, rounds and accuracy rule. Runs that differ in one of these
    are never averaged.
    """
    from ..store.directory import find
    from ..study import records
    from ..study.analysis import analyse

    registry = installed()
    found = records.fitting(registry, find(directories), echo)
    write_report(analyse(registry, found, reference=reference, test=test, target=target), out)


def seeds_of(text: str | None, flag: str = "--seeds") -> int | list[int] | None:
    """Return the seeds that a flag names: how many, or which ones.

    Raises:
        click.BadParameter: for anything else.
    """
    if text is None:
        return None
    try:
        if "," not in text:
            return int(text)
        if seeds := [int(part) for part in text.split(",") if part]:
            return seeds
        raise ValueError
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: write a number such as 5, or seeds such as 0,1,2", param_hint=flag
        ) from None


def write_report(analysis: Analysis, out: Path, part: Part | None = None) -> None:
    """Print an analysis and write its report, perhaps with another part."""
    from ..report import print_analysis, write

    print_analysis(analysis)
    written = write(analysis, out, part=part)
    echo("Wrote " + ", ".join(str(p) for p in written.paths if p.parent == out))
    for note in written.notes:
        echo(note, err=True)
