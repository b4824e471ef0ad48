"""Carry out a tuning with its progress and report, and what it found."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import PLAIN, Console
from ..errors import FedbenchError, TemporaryError
from ..plugins.registry import Registry
from ..report import Written, write
from ..report import tuning as report
from ..report.terminal import WIDE, print_table
from ..study.comparison import How
from ..study.spaces import Values
from ..text import echo
from .charts import Chart, pick
from .comparisons import Comparison, interruptions, kept_in
from .frames import frame
from .progress import ComparisonProgress
from .tables import html_notes, html_text_table

if TYPE_CHECKING:  # at run time they need Optuna, an extra
    from pandas import DataFrame

    from ..study.tuning import Tuned, Tuning
    from ..study.tuning_plan import Plan


@dataclass(frozen=True, eq=False, repr=False)
class TuningResult:
    """Searches of the options of several methods, and the comparison of what they chose.

    In a notebook it shows its tables. Nothing here can be changed.

    Args:
        registry: what was installed.
        plan: what was asked for, resolved: ``spaces``, ``budget``, ``search_seeds``, ``seeds``.
        directory: the folder of the runs and the report.
        done: what came of it; ``None`` after a dry run.
    """

    registry: Registry
    plan: Plan
    directory: Path
    done: Tuning | None = None

    @property
    def _done(self) -> Tuning:
        if self.done is None:
            raise FedbenchError("nothing was run: this is the result of dry_run=True")
        return self.done

    @property
    def methods(self) -> dict[str, Tuned]:
        """Method -> what its search found.

        That is ``trials``, ``best`` (one of them), ``default_rank``, ``importances``, ``spent`` in
        rounds, ``variant`` (the method with the best values, as `fedbench.compare` takes it), and
        ``fresh``, its scores under the seeds of the comparison.

        Raises:
            FedbenchError: after a dry run, as for all that was found.
        """
        return {one.method: one for one in self._done.methods}

    @property
    def best(self) -> dict[str, Values]:
        """Method -> its best values, in the form of ``set`` of `fedbench.run`."""
        return {name: {**one.shared, **one.best.values} for name, one in self.methods.items()}

    @property
    def budget(self) -> int:
        """Rounds that each method could spend."""
        return self.plan.budget.total

    @property
    def comparison(self) -> Comparison:
        """The comparison of the best of each method under fresh seeds, on test data."""
        assert self._done.outcome.analysis
        return Comparison(self.registry, self._done.outcome.analysis)

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """The report's charts by name: first those of the search, then those of the comparison."""
        figures = report.part(self.plan, self._done.methods).figures
        found = {figure.name: Chart(figure.name, figure) for figure in figures}
        return found | self.comparison.charts

    def chart(self, name: str = "search") -> Chart:
        """Return one of the `charts`.

        Raises:
            ConfigError: when there is none of that name.
        """
        return pick(self.charts, name)

    def to_pandas(self) -> DataFrame:
        """Return one row per trial: see `fedbench.report.tuning.trial_rows`.

        Raises:
            FedbenchError: without pandas.
        """
        return frame(report.trial_rows(self.plan, self._done.methods))

    def write(self, out: str | Path) -> Written:
        """Write the report into a folder: page, tables, numbers and figures.

        Raises:
            ConfigError: when the folder cannot be written.
        """
        part = report.part(self.plan, self._done.methods)
        return write(self.comparison.analysis, Path(out), part=part)

    def _repr_html_(self) -> str:
        if self.done is None:
            return html_notes([*report.planned(self.plan)])
        tables = map(html_text_table, report.tables(self.plan, self.done.methods))
        return "".join(tables) + self.comparison._repr_html_()

    def __repr__(self) -> str:
        if self.done is None:
            return "\n".join(report.planned(self.plan))
        text = io.StringIO()
        for table in report.tables(self.plan, self.done.methods):
            print_table(table, Console(file=text, width=WIDE, highlight=False, **PLAIN))
        return text.getvalue() + str(self.comparison)


def carry_out_plan(
    registry: Registry,
    plan: Plan,
    how: How,
    out: Path,
    quiet: bool,
    found: Callable[[Sequence[Tuned]], Any] = lambda tuned: None,
) -> Tuning:
    """Carry out a tuning in a folder while showing its progress.

    Args:
        registry: what is installed.
        plan: what to tune.
        how: how to carry out the runs.
        out: the folder.
        quiet: whether to show no progress.
        found: is called with what the searches found, before the comparison.

    Raises:
        KeyboardInterrupt: with a note that says how to continue.
        fedbench.study.tuning_runs.Stopped: when the machine ended runs of the search.
    """
    from ..study.tuning import tune

    if not quiet:
        for line in report.planned(plan):
            echo(line)
    try:
        display = partial(ComparisonProgress, quiet)
        return tune(registry, plan, out, how, say=echo, display=display, found=found)
    except KeyboardInterrupt as error:
        error.add_note(kept_in(out))
        raise


def tuned(registry: Registry, plan: Plan, how: How, out: Path, quiet: bool) -> TuningResult:
    """Carry out a tuning and write its report.

    Raises:
        TemporaryError: when the machine ended runs of the search, or every run of the comparison.
        KeyboardInterrupt: with a note that says how to continue.
    """
    from ..study.tuning_runs import Stopped

    try:
        done = carry_out_plan(registry, plan, how, out, quiet)
    except Stopped as error:
        raise TemporaryError("; ".join(interruptions(error.progress))) from error
    ended = interruptions(done.outcome.progress)
    if done.outcome.analysis is None:
        raise TemporaryError("; ".join(ended))
    result = TuningResult(registry, plan, out, done)
    for note in (*result.write(out).notes, *ended):
        echo(note, err=True)
    return result
