"""``fedbench compare`` and ``fedbench report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..study import TEMPORARY
from ..text import echo
from . import signals
from .base import Command
from .flags import checkpoint_flags, data_root_flag, installed
from .kinds import PATH

if TYPE_CHECKING:
    from ..study.execute import Progress
    from ..study.grid import Grid, Job


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
@click.option(
    "--jobs", type=click.IntRange(1), metavar="N",
    help="Number of runs at the same time. Default: one per usable core (as limited by taskset, "
    "a container or Slurm), but only one on each GPU.",
)  # fmt: skip
@checkpoint_flags
@click.option(
    "--retry", is_flag=True,
    help="Try again the runs that failed or were interrupted 3 times; they resume from their "
    "checkpoints if possible.",
)  # fmt: skip
@click.option(
    "--trust-old", is_flag=True,
    help="Reuse finished runs even if code, data, versions or arithmetic have changed since.",
)  # fmt: skip
@click.option(
    "--out", type=PATH, default=Path("comparison"), metavar="DIR",
    help="Folder of the runs and the report. Default: comparison.",
)  # fmt: skip
@data_root_flag
@click.option("--quiet", is_flag=True, help="Print no progress, only the result.")
def compare(
    methods: tuple[str, ...], seeds: str | None, file: Path | None, jobs: int | None,
    retry: bool, trust_old: bool, out: Path, data_root: Path | None, quiet: bool,
    checkpoint_rounds: int | None, checkpoint_minutes: float, keep_checkpoints: bool, **given: Any,
) -> None:  # fmt: skip
    """Run METHODs over several seeds and test which one is better.

    \b
    fedbench compare fedavg fedproto fpl fedhpro --data digits --seeds 5
    fedbench compare fedhpro:-hpcl fedhpro:hpcl.temperature=0.1 fedhpro
    fedbench compare fedprox:+faults:faults.drop=0.2 mine.yaml fedavg
    fedbench compare fedavg krum --setting plain --setting +sign_flip
    fedbench compare --config grid.yaml

    A METHOD is a name or a YAML file. It may be followed by plugins to remove (:-PLUGIN), plugins
    to add (:+PLUGIN) and values to set (:KEY=VALUE). Reports name methods in the same way.

    Within one seed, all methods share the partition, the initial weights, the client sampling and
    the batch order, so they are compared seed by seed.

    The runs, report.html, tables and figures are written to --out. Finished runs are reused: adding
    a method or a seed runs only what is new, and earlier runs of the same protocol stay in the
    report. If the code of a plugin, the data, a version or the arithmetic has changed since, one
    line says so and the run is repeated; the old one moves to replaced/.
    """
    from ..study import grid as grids
    from ..study.earlier import earlier

    registry = installed()
    grid = _grid(methods, seeds, file, given)
    planned = grids.plan(registry, grid, out)
    if isinstance(grid.seeds, int) and not quiet:
        echo(f"{grid.seeds} seeds, 0 to {grid.seeds - 1}" if grid.seeds > 1 else "1 seed, 0")
    words = ["--checkpoint-minutes", str(checkpoint_minutes)]
    words += ["--checkpoint-rounds", str(checkpoint_rounds)] if checkpoint_rounds else []
    words += ["--keep-checkpoints"] if keep_checkpoints else []
    changes: Any = {} if trust_old else _changes(registry, planned, data_root)
    carried_out = _execute(
        planned, out, quiet, jobs=jobs, retry=retry, data_root=data_root, words=words, **changes
    )
    found = grids.collect(registry, planned, echo)
    labels = grids.labels(registry, planned)
    added, line = earlier(registry, planned, found, changes.get("changes", lambda _: ()))
    if line:
        echo(line)
    reference = grid.reference or grid.methods[-1]
    if found or not carried_out.interrupted:
        _report(registry, [*found, *added], labels, reference, grid.test, out)
    _say_interrupted(carried_out)
    if carried_out.left_alone or any(r.status == "failed" for r in found):
        sys.exit(1)
    if carried_out.interrupted:
        sys.exit(TEMPORARY)


def _grid(
    methods: tuple[str, ...], seeds: str | None, file: Path | None, given: dict[str, Any]
) -> Grid:
    """Return the grid that the command line describes; it overrides that of a YAML file."""
    from ..options import build
    from ..study.grid import Grid, load_grid

    wanted = {
        "methods": list(methods),
        "seeds": _seeds(seeds),
        "set": list(given.pop("sets")),
        "data": list(given.pop("data")),
        "cards": list(given.pop("cards")),
        "settings": list(given.pop("settings")),
        **given,
    }
    changes = {key: value for key, value in wanted.items() if value not in (None, [])}
    if file:
        return load_grid(file, changes)
    if methods:
        return build(Grid, changes, lambda path: ".".join(("command line", *path)))
    raise click.UsageError("name the methods to compare, or give a grid with --config FILE")


def _changes(registry: Any, planned: Sequence[Job], data_root: Path | None) -> dict[str, Any]:
    """Print what has changed since the kept runs were made; return the argument for `execute`."""
    from ..store.files import default_data_root
    from ..study.reuse import Reuse

    reuse = Reuse(registry, data_root or default_data_root())
    if line := reuse.summary(planned):
        echo(line)
    return {"changes": reuse.changes}


def _execute(
    planned: Sequence[Job], out: Path, quiet: bool, *, jobs: int | None, **more: Any
) -> Progress:
    """Carry out the unfinished runs with progress; on an interrupt, say how to continue."""
    from ..study.execute import execute
    from .progress import comparison_progress

    show = comparison_progress(quiet)
    try:
        with show:
            return execute(planned, workers=jobs, show=show.update, **more)
    except KeyboardInterrupt as error:
        echo("", err=True)
        echo(f"Interrupted; finished runs are kept in {out}. The same command resumes.", err=True)
        sys.exit(signals.status(error))


def _say_interrupted(carried_out: Progress) -> None:
    """Print the runs that the machine ended, and what to do about them."""
    left = carried_out.left_alone
    for path, end in carried_out.interrupted.items():
        what = "the same command resumes it"
        if path in left:
            what = "left alone; remove the cause (fewer --jobs need less memory), then add --retry"
        echo(f"interrupted: {path}: {end}; {what}")


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
@click.option(
    "--out", type=PATH, default=Path("report"), metavar="DIR",
    help="Folder to write the report into. Default: report.",
)  # fmt: skip
def report(directories: tuple[Path, ...], reference: str | None, test: Any, out: Path) -> None:
    """Write the tables, figures and page for existing runs.

    \b
    fedbench report runs/* --out report

    Every run at or below a DIRECTORY is included; it may come from another machine. Runs are
    grouped by data, partition, model, rounds and accuracy rule. Runs that differ in one of these
    are never averaged.
    """
    from ..store.directory import find
    from ..study import records

    registry = installed()
    found = records.fitting(registry, find(directories), echo)
    _report(registry, found, None, reference, test, out)


def _seeds(text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",") if part] if "," in text else int(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: write a number such as 5, or seeds such as 0,1,2", param_hint="--seeds"
        ) from None


def _report(
    registry: Any, found: Any, labels: Any, reference: str | None, test: Any, out: Path
) -> None:
    from ..report import write
    from ..report.terminal import print_analysis
    from ..study.analysis import analyse

    order = None
    if labels:
        reference = labels[reference]
        order = list(dict.fromkeys(labels.values()))
    analysis = analyse(registry, found, variants=order, reference=reference, test=test)
    print_analysis(analysis)
    written = write(analysis, out)
    echo("Wrote " + ", ".join(str(p) for p in written.paths if p.parent == out))
    for note in written.notes:
        echo(note, err=True)
