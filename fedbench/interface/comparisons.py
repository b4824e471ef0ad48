"""Carry out a comparison with its progress and report, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TemporaryError
from ..plugins.registry import Registry
from ..report import Written, write
from ..study.analysis import Analysis
from ..study.comparison import How, Outcome, compare
from ..study.execute import Progress
from ..study.grid import Grid, plan
from ..text import echo
from .charts import Chart, charts_of, pick
from .frames import frame, rounds
from .progress import ComparisonProgress
from .results import RunResult
from .tables import Summary

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Runs of several methods, compared seed by seed; nothing here can be changed.

    In a notebook it shows its tables.

    Args:
        registry: what was installed when the runs were read.
        analysis: means, intervals and tests by setting, method and column.
    """

    registry: Registry
    analysis: Analysis

    @property
    def runs(self) -> list[RunResult]:
        """All runs, also those that failed or are not finished."""
        found = [record for group in self.analysis.groups for record in group.records]
        return [RunResult(self.registry, record.path, record) for record in found]

    @property
    def table(self) -> Summary:
        """The tables of means and of paired differences."""
        return Summary(self.analysis)

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """The report's charts by name; with several settings, names begin with the setting."""
        return charts_of(self.analysis)

    def chart(self, name: str = "rounds") -> Chart:
        """Return one of the `charts`.

        Raises:
            ConfigError: when there is none of that name.
        """
        return pick(self.charts, name)

    def to_pandas(self) -> DataFrame:
        """Return one row per run and scored round; ``table.to_pandas()`` has the summary.

        The columns are ``setting``, ``variant``, ``seed``, and those of a run's `to_pandas`.

        Raises:
            FedbenchError: without pandas.
        """
        return frame(rounds(self.analysis))

    def write(self, out: str | Path) -> Written:
        """Write the report into a folder: page, tables, numbers and figures.

        Raises:
            ConfigError: when the folder cannot be written.
        """
        return write(self.analysis, Path(out))

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def __repr__(self) -> str:
        return str(self.table)


def carry_out_grid(registry: Registry, grid: Grid, how: How, out: Path, quiet: bool) -> Outcome:
    """Carry out a comparison in a folder while showing its progress.

    Raises:
        KeyboardInterrupt: with a note that says how to continue.
    """
    planned = plan(registry, grid, out)
    if isinstance(grid.seeds, int) and not quiet:
        echo(f"{grid.seeds} seeds, 0 to {grid.seeds - 1}" if grid.seeds > 1 else "1 seed, 0")
    display = ComparisonProgress(quiet)
    try:
        return compare(registry, grid, planned, how, say=echo, display=display)
    except KeyboardInterrupt as error:
        error.add_note(kept_in(out))
        raise


def kept_in(out: Path) -> str:
    """Return how to continue a comparison that was interrupted."""
    return f"Interrupted; finished runs are kept in {out}. The same command resumes."


def written(registry: Registry, outcome: Outcome, out: Path) -> Comparison:
    """Write the report of a comparison that has been carried out, and return the comparison.

    Raises:
        TemporaryError: when the machine ended every run before it began.
    """
    if outcome.analysis is None:
        raise TemporaryError("; ".join(interruptions(outcome.progress)))
    found = Comparison(registry, outcome.analysis)
    for note in (*found.write(out).notes, *interruptions(outcome.progress)):
        echo(note, err=True)
    return found


def interruptions(progress: Progress) -> list[str]:
    """Return the runs that the machine ended, and what to do about them, a line each."""
    left, lines = progress.left_alone, []
    for path, end in progress.interrupted.items():
        what = "the same command resumes it"
        if path in left:
            what = "left alone; remove the cause (fewer --jobs need less memory), then add --retry"
        lines.append(f"interrupted: {path}: {end}; {what}")
    return lines
