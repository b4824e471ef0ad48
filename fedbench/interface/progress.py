"""Progress on a terminal or in a notebook, and the formats that all output shares."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..config.model import RunConfig
from ..console import PLAIN, Console
from ..engine.evaluation import view
from ..plugins.facts import MetricFacts, facts
from ..plugins.registry import Registry
from ..store.contents import Reported
from ..text import Unit, duration, echo, printable, score
from ..types import RoundResult, Scores

WIDTH = 120
"""The width of tables off a terminal."""


def console() -> Console:
    """Return a console for standard output: as wide as the terminal or COLUMNS, else `WIDTH`."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH
    # Without markup, a type like dict[str, int] or an error's text is printed unchanged.
    return Console(width=width, highlight=False, markup=False, emoji=False)


def grid(*columns: str, title: str | None = None) -> Table:
    """Return a table whose first column holds text and whose other columns hold numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    return table


def title(method: str, changes: Sequence[str], data: str, seed: int) -> str:
    """Return a run in words, on one line: ``fedhpro (-hpal) on digits, seed 0``."""
    what = f" ({', '.join(changes)})" if changes else ""
    return printable(f"{method}{what} on {data}, seed {seed}")


def unit_of(registry: Registry, metric: str) -> Unit:
    """Return the unit that a metric states.

    Raises:
        ConfigError: when it is not installed.
    """
    return facts(MetricFacts, registry.get("metric", metric).value).unit


def accuracy_rows(accuracy: Reported) -> list[tuple[str, float | None]]:
    """Return the numbers of a run's accuracy, each with its label."""
    if accuracy.population == "clients":
        return [
            ("mean over clients, by examples", accuracy.mean),
            ("plain mean over clients", accuracy.plain),
            ("std over clients", accuracy.std),
            ("worst tenth of clients", accuracy.worst),
        ]
    if len(accuracy.domains) == 1:
        return [(f"{accuracy.split} data", accuracy.mean)]
    return [
        ("mean over domains", accuracy.mean),
        ("worst domain", accuracy.worst),
        ("std over domains", accuracy.std),
        *((f"  {name}", value) for name, value in accuracy.domains.items()),
    ]


class Progress:
    """Shows nothing: the progress of a quiet run, and the base of the other displays.

    Args:
        config: the run's config.
        changes: how it differs from its method.
        unit: the unit of the metric that the run reports.
    """

    def __init__(self, config: RunConfig, changes: Sequence[str], unit: Unit) -> None:
        self.config, self.changes, self.unit = config, changes, unit
        self.started = time.monotonic()
        self.done = 0
        self.domains: list[str] = []

    def __enter__(self) -> Progress:
        self.started = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def client(self, number: int, done: int, total: int) -> None:
        """Show that a client has finished."""

    def round(self, result: RoundResult) -> None:
        """Show that a round has finished."""

    def left(self, part: float = 0.0) -> str:
        """Return the time left in words; ``part`` is the finished share of the current round."""
        done = self.done + part
        if not done:
            return "-"
        spent = time.monotonic() - self.started
        return duration(spent / done * (self.config.rounds - done))

    def row(self, result: RoundResult) -> dict[str, str]:
        """Return the cells of a round, by column; ``-`` for the scores of one not scored."""
        scores = view(result, self.config.accuracy) or Scores({})
        if len(scores.domains) > 1:
            self.domains = list(scores.domains)
        domains = {name: scores.domains.get(name) for name in self.domains}
        losses = [v for k, v in result.metrics.items() if k.startswith("loss.")]
        return {
            "round": f"{result.round}/{self.config.rounds}",
            "mean": score(scores.mean, self.unit),
            **{name: score(value, self.unit) for name, value in domains.items()},
            "train loss": f"{sum(losses):.3f}",
            "seconds": f"{result.seconds:.1f}",
        }


class Lines(Progress):
    """Prints one plain line per round."""

    def __enter__(self) -> Progress:
        config = self.config
        echo(title(config.method, self.changes, config.data_name, config.seed))
        return super().__enter__()

    def round(self, result: RoundResult) -> None:
        """Print the round on one line."""
        self.done = result.round
        cells = self.row(result)
        first = cells.pop("round")
        text = "  ".join(f"{name} {value}" for name, value in cells.items())
        echo(f"round {first}  {text}  left {self.left()}")


PRE = '<pre style="font-family: monospace; line-height: 1.3; overflow-x: auto">{code}</pre>'


class NotebookTable:
    """A table that changes in the output of a notebook's cell, in place of `rich.live.Live`.

    That class needs ipywidgets in a notebook, and a saved notebook would not have its output.
    """

    SECONDS = 0.2
    """The least time between two changes."""

    def __init__(self) -> None:
        self._table: RenderableType = ""
        self._shown: Any = None
        self._changed = 0.0

    def start(self) -> None:
        """Begin the output."""

    def update(self, table: RenderableType) -> None:
        """Show a table, or the one that follows it soon."""
        self._table = table
        if time.monotonic() - self._changed > self.SECONDS:
            self._show()

    def stop(self) -> None:
        """Leave the last table."""
        self._show()

    def _show(self) -> None:
        from IPython.display import display

        self._changed = time.monotonic()
        out = Console(record=True, file=io.StringIO(), width=WIDTH, **PLAIN)
        out.print(self._table)
        html = out.export_html(clear=False, inline_styles=True, code_format=PRE)
        forms = {"text/html": html, "text/plain": out.export_text()}
        if self._shown is None:
            self._shown = display(forms, raw=True, display_id=True)
        else:
            self._shown.update(forms, raw=True)


def live() -> Live | NotebookTable | None:
    """Return a table that can change, where the output can show one: a terminal or a notebook."""
    if Console().is_jupyter:
        return NotebookTable()
    if sys.stdout.isatty():
        return Live(console=console(), refresh_per_second=8, transient=True)
    return None


class Screen(Progress):
    """Shows a live table: the last rounds, the clients that have finished, the time left.

    Args:
        config: the run's config, like ``changes`` and ``unit`` as for `Progress`.
        changes: how it differs from its method.
        unit: the unit of the metric that the run reports.
        live: what shows the table.
    """

    ROWS = 8

    def __init__(
        self,
        config: RunConfig,
        changes: Sequence[str],
        unit: Unit,
        live: Live | NotebookTable,
    ) -> None:
        super().__init__(config, changes, unit)
        self.rows: list[dict[str, str]] = []
        self.status = "starting"
        self.live = live

    def __enter__(self) -> Progress:
        self.live.start()
        self.live.update(self._draw())
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        self.live.stop()

    def _draw(self) -> Table:
        config = self.config
        names = list(self.rows[-1]) if self.rows else ["round", "mean"]
        head = title(config.method, self.changes, config.data_name, config.seed)
        table = grid(*names, title=head)
        for row in self.rows[-self.ROWS :]:
            table.add_row(*(row.get(name, "-") for name in names))
        table.caption = self.status
        table.caption_justify = "left"
        return table

    def client(self, number: int, done: int, total: int) -> None:
        """Show how many clients of the round are done."""
        width = 24
        filled = round(width * (number - 1 + done / total) / self.config.rounds)
        bar = "━" * filled + "╌" * (width - filled)
        left = self.left(done / total)
        self.status = (
            f"{bar} round {number}/{self.config.rounds}, client {done}/{total}, left {left}"
        )
        self.live.update(self._draw())

    def round(self, result: RoundResult) -> None:
        """Add the round's row."""
        self.done = result.round
        self.rows.append(self.row(result))
        self.live.update(self._draw())


def progress(
    registry: Registry, config: RunConfig, changes: Sequence[str], quiet: bool
) -> Progress:
    """Return the display that fits the output: none, a live table, or else lines."""
    about = config, changes, unit_of(registry, config.accuracy.metric)
    if quiet:
        return Progress(*about)
    table = live()
    return Screen(*about, table) if table else Lines(*about)


class ComparisonProgress:
    """Shows the progress of a comparison: finished and running runs, and the time left."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.started = quiet, time.monotonic()
        self.live = live()
        self.shown = -1

    def __enter__(self) -> Callable[[Any], None]:
        if self.live and not self.quiet:
            self.live.start()
        return self.update

    def __exit__(self, *exc: object) -> None:
        if self.live and not self.quiet:
            self.live.stop()

    def update(self, state: Any) -> None:
        """Show a `fedbench.study.execute.Progress`."""
        if self.quiet:
            return
        new = state.done - state.reused
        under_way = sum(done / total for done, total in state.running.values())
        spent = time.monotonic() - self.started
        share = new + under_way
        left = duration(spent / share * (state.total - state.done - under_way)) if share else "-"
        counts = f"{state.reused} reused, {state.failed} failed"
        counts += f", {len(state.interrupted)} interrupted" if state.interrupted else ""
        head = f"{state.done}/{state.total} runs ({counts})"
        if self.live:
            table = grid("run", "round")
            for name, (done, total) in sorted(state.running.items()):
                table.add_row(name, f"{done}/{total}")
            text = Text(f"{head}, left {left}")
            self.live.update(Group(text, table) if state.running else text)
        elif state.done != self.shown:
            self.shown = state.done
            echo(f"{head}, left {left}")
