"""``fedbench tune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import echo
from .base import Command
from .compare import end, seeds_of, write_report
from .flags import installed, study_flags
from .kinds import PATH

if TYPE_CHECKING:
    from ..study.tuning import Tuning
    from ..study.tuning_plan import Plan


@click.command(cls=Command)
@click.argument("methods", nargs=-1, metavar="[METHOD]...")
@click.option("--data", metavar="NAME", help="Data set; `fedbench data` lists all.")
@click.option(
    "--card", metavar="NAME",
    help="Protocol card; `fedbench cards` lists all. Default: the data set's own.",
)  # fmt: skip
@click.option(
    "--trials", type=click.IntRange(1), metavar="N",
    help="Number of trials of each method, its default included. Default: 20.",
)  # fmt: skip
@click.option(
    "--search-seeds", metavar="N|A,B,C",
    help="Number of seeds of every trial, which start at 0, or the seeds themselves. Default: 1.",
)  # fmt: skip
@click.option(
    "--seeds", metavar="N|A,B,C",
    help="Number of fresh seeds of the comparison, which come after those of the search, or the "
    "seeds themselves. Default: 5.",
)  # fmt: skip
@click.option(
    "--space", "file", type=PATH, metavar="FILE",
    help="YAML file of search spaces, PLUGIN.OPTION: SPACE, in place of the declared ones.",
)  # fmt: skip
@click.option(
    "--set-space", multiple=True, metavar="KEY=SPACE",
    help="Search space of an option: sgd.lr=log:0.001:1, =uniform:0:1, =int:1:10, "
    "=choice:0.1,1 or =default, which does not search it; METHOD:KEY=SPACE is for one method. "
    "Repeatable.",
)  # fmt: skip
@click.option(
    "--shared", multiple=True, metavar="KEY",
    help="Tune this option once, on the first METHOD, and use its best value for all. Default: "
    "tune every option for every method. Repeatable.",
)  # fmt: skip
@click.option(
    "--sampler", type=click.Choice(["tpe", "random", "grid"]),
    help="How trials are proposed. Default: tpe.",
)  # fmt: skip
@click.option(
    "--sampler-seed", type=click.IntRange(0), metavar="S",
    help="Seed of the proposals. Default: 0.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1), metavar="N",
    help="Number of trials proposed at a time, whatever --jobs is. Default: 4.",
)  # fmt: skip
@click.option(
    "--prune", is_flag=True, default=None,
    help="End a trial whose validation score, after a quarter, half or three quarters of its "
    "rounds, is below the median of the trials before it. The budget is then the rounds of as many "
    "whole trials as --trials says.",
)  # fmt: skip
@click.option(
    "--rounds", type=int, metavar="N",
    help="Number of communication rounds of every run. Default: the card's.",
)  # fmt: skip
@click.option("--device", metavar="DEV", help="Device of every run. Default: cpu.")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE",
    help="Set a value in every run; it is not searched. Repeatable.",
)  # fmt: skip
@click.option(
    "--reference", metavar="METHOD",
    help="The METHOD that the others are compared with. Default: the last.",
)  # fmt: skip
@click.option(
    "--test", type=click.Choice(["t", "wilcoxon"]),
    help="Paired test of the comparison, as in `fedbench compare`. Default: t.",
)  # fmt: skip
@click.option(
    "--config", type=PATH, metavar="FILE",
    help="YAML file with any of these options, such as methods, card, trials and set_space; the "
    "command line overrides it.",
)  # fmt: skip
@study_flags("tuning")
@click.option("--dry-run", is_flag=True, help="Print what would be run, and run nothing.")
def tune(
    file: Path | None, config: Path | None, out: Path, dry_run: bool, quiet: bool,
    jobs: int | None, retry: bool, trust_old: bool, data_root: Path | None,
    checkpoint_rounds: int | None, checkpoint_minutes: float, keep_checkpoints: bool, **given: Any,
) -> None:  # fmt: skip
    """Search the options of METHODs, then compare the best of each.

    \b
    fedbench tune fedavg fedprox fedhpro --data digits --trials 20 --seeds 5
    fedbench tune fedavg fedprox --set-space sgd.lr=log:0.001:1 --dry-run
    fedbench tune fedavg fedprox --shared sgd.lr --space space.yaml
    fedbench tune --config tuned.yaml --dry-run

    Each METHOD gets the same number of trials. The first is its default; the others are proposed
    from the search spaces that the options declare (`fedbench plugins show fedprox` prints them).
    Only validation data is looked at: a share of each client's examples that nobody trains on.
    Then the best values of each METHOD are trained under fresh seeds and compared on test data, as
    `fedbench compare` does.

    The same command gives the same trials, with any --jobs, and continues an interrupted search.
    The runs, report.html, tables and figures are written to --out.
    """
    from ..interface.tunings import carry_out_plan
    from ..report.tuning import planned
    from ..study.comparison import How
    from ..study.tuning_plan import plan, wanted
    from ..study.tuning_runs import Stopped
    from .warm import forked

    registry = installed()
    given["set"] = given.pop("sets")
    given |= {key: seeds_of(given[key], f"--{key.replace('_', '-')}") for key in SEEDS}
    if not (config or given["methods"]):
        raise click.UsageError("name the methods to tune, or give them in a file with --config")
    found = plan(registry, wanted(given, file=config), file)
    if dry_run:
        for line in planned(found):
            echo(line)
        return
    how = How(
        jobs=jobs, retry=retry, trust_old=trust_old, data_root=data_root,
        checkpoint_rounds=checkpoint_rounds, checkpoint_minutes=checkpoint_minutes,
        keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    show = partial(_print_found, found)
    try:
        with forked(registry) as parent:
            how = replace(how, parent=parent)
            done = carry_out_plan(registry, found, how, out, quiet, show)
    except Stopped as error:
        end(error.progress, failed=False)
        raise  # not reached: some run was interrupted
    _report(done, out)
    end(done.outcome.progress, done.outcome.failed)


SEEDS = ("seeds", "search_seeds")


def _print_found(plan: Plan, tuned: Sequence[Any]) -> None:
    from ..report.terminal import print_table
    from ..report.tuning import found

    print_table(found(plan, tuned))


def _report(done: Tuning, out: Path) -> None:
    """Print the comparison and write the report, with a part on the search."""
    from ..report.terminal import print_table
    from ..report.tuning import gaps, part

    if done.outcome.analysis:
        write_report(done.outcome.analysis, out, part(done.plan, done.methods))
        print_table(gaps(done.plan, done.methods))
