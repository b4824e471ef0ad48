"""A run as an object: what its directory holds, and what a notebook shows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.changes import describe_changes
from ..config.model import RunConfig
from ..errors import FedbenchError
from ..plugins.registry import Registry
from ..store.contents import Reported, Result
from ..store.directory import RunDirectory
from ..study import records
from ..study.analysis import analyse
from ..study.records import Record
from ..text import duration, score, unrepeatable
from ..types import RoundResult
from .charts import Chart, charts_of, pick
from .frames import frame, rounds_of
from .progress import accuracy_rows, title, unit_of
from .tables import Cell, html_notes, html_table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class RunResult:
    """A run, as its directory describes it; nothing here can be changed.

    In a notebook it shows its accuracy as a table.

    Args:
        registry: what is installed.
        directory: the run directory.
        known: its contents, if they have been read.
    """

    registry: Registry
    directory: Path
    known: Record | None = None

    @cached_property
    def record(self) -> Record:
        """The contents of the directory."""
        return self.known or records.read(self.registry, self.directory)

    @property
    def config(self) -> RunConfig:
        """The complete config; ``fedbench.run(result.config)`` repeats the run."""
        return self.record.config

    @property
    def rounds(self) -> Sequence[RoundResult]:
        """The finished rounds."""
        return self.record.rounds

    @property
    def finished(self) -> bool:
        """Whether all rounds are done."""
        return self._result is not None

    @cached_property
    def _result(self) -> Result | None:
        return self.known.result if self.known else RunDirectory(self.directory).read_result()

    @property
    def result(self) -> Result:
        """The contents of ``result.json``: bytes, seconds, digests; ``to_dict()`` makes it plain.

        Raises:
            FedbenchError: for a run that is not finished.
        """
        if self._result is None:
            done = f"{len(self.rounds)} of {self.config.rounds} rounds are done"
            why = f" ({self.record.error})" if self.record.error else ""
            raise FedbenchError(
                f"{self.directory} is not finished{why}: {done}; "
                f"fedbench.resume({str(self.directory)!r}) continues it"
            )
        return self._result

    @property
    def accuracy(self) -> Reported:
        """The accuracy by the run's rule: ``mean``, ``domains``, ``worst``, ``std``, as fractions.

        Raises:
            FedbenchError: for a run that is not finished.
        """
        return self.result.accuracy

    @property
    def reproducible(self) -> bool:
        """Whether the config alone repeats the run: no plugin of it was defined in memory."""
        return not self.config.in_memory

    @property
    def charts(self) -> dict[str, Chart]:
        """The charts of the report that a single run has, by name."""
        return charts_of(analyse(self.registry, [self.record]))

    def chart(self, name: str = "rounds") -> Chart:
        """Return one of the `charts`.

        Raises:
            ConfigError: when there is none of that name.
        """
        return pick(self.charts, name)

    def to_pandas(self) -> DataFrame:
        """Return one row per scored round: the accuracy and its domains, losses, bytes, seconds."""
        return frame(rounds_of(self.record))

    def _repr_html_(self) -> str:
        head = self._head()
        if not self.finished:
            return html_notes([head, f"{len(self.rounds)} of {self.config.rounds} rounds"])
        unit = unit_of(self.registry, self.accuracy.metric)
        sign = "%" if unit == "percent" else ""
        rows = [[Cell(name), Cell(score(v, unit))] for name, v in accuracy_rows(self.accuracy)]
        table = html_table(head, [f"{self.accuracy.metric}, {self.accuracy.rule}", sign], rows)
        kept = f"{len(self.rounds)} rounds in {duration(self.result.seconds)}, in {self.directory}"
        return table + html_notes([kept, *self._unrepeatable()])

    def _head(self) -> str:
        changes = describe_changes(self.registry, self.config)
        return title(self.config.method, changes, self.config.data_name, self.config.seed)

    def _unrepeatable(self) -> list[str]:
        return [] if self.reproducible else [unrepeatable(self.config.in_memory)]

    def __repr__(self) -> str:
        state = f"{len(self.rounds)} of {self.config.rounds} rounds"
        if self.finished:
            unit = unit_of(self.registry, self.accuracy.metric)
            sign = " %" if unit == "percent" else ""
            state = f"{self.accuracy.metric} {score(self.accuracy.mean, unit)}{sign}"
            state += f" ({self.accuracy.rule})"
        return f"<{self._head()}: {state}, in {self.directory}>"
