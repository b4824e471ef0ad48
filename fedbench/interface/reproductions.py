"""Carry out a reproduction with its progress, and judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..plugins.registry import Registry
from ..report.content import TextTable
from ..report.reproduced import numbers, overall, tables, write
from ..store.files import default_data_root
from ..study.comparison import How
from ..study.execute import Progress
from ..study.grid import Job
from ..study.outlook import left
from ..study.reproductions import Estimate, Part, Reproduction, estimate, planned
from ..study.reuse import Reuse
from ..study.verdicts import Verdict, judge
from ..text import duration
from .comparisons import carry_out_grid


@dataclass(frozen=True, eq=False, repr=False)
class Reproduced:
    """Published results beside measured ones; nothing here can be changed.

    Args:
        reproduction: what was published, and the rule.
        cost: after a dry run, what is still to be done, a line per cell and one for all of them.
        verdicts: one per cell; none after a dry run.
        progress: how the runs of each cell ended.
        failed: whether any run failed.
    """

    reproduction: Reproduction
    cost: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    progress: Sequence[Progress] = ()
    failed: bool = False

    @property
    def outcome(self) -> str:
        """``reproduced``, ``not reproduced`` or ``undecided``, over all cells."""
        return overall(self.reproduction, self.verdicts)[0]

    @property
    def tables(self) -> list[TextTable]:
        """The tables that the command prints."""
        return tables(self.reproduction, self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers; accuracies are fractions of 1."""
        return numbers(self.reproduction, self.verdicts)

    def write(self, out: str | Path) -> list[Path]:
        """Write the tables and all numbers into a folder, and return the files."""
        return write(self.reproduction, self.verdicts, Path(out))

    def __repr__(self) -> str:
        if not self.verdicts:
            return "\n".join(self.cost)
        return overall(self.reproduction, self.verdicts)[1]


def with_seeds(parts: Sequence[Part], seeds: int | list[int] | None) -> list[Part]:
    """Return the cells with other seeds; ``None`` keeps those of the file."""
    if seeds is None:
        return list(parts)
    return [replace(part, grid=replace(part.grid, seeds=seeds)) for part in parts]


def cost(
    registry: Registry, found: Reproduction, parts: Sequence[Part], how: How, out: Path
) -> list[str]:
    """Return what is still to be done, a line per cell and one for all of them."""
    reuse = Reuse(registry, how.data_root or default_data_root(), how.trust_old)

    def todo(part: Part) -> list[Job]:
        return left(planned(registry, part, out), retry=how.retry, changes=reuse.changes)

    each = [estimate(part, todo(part)) for part in parts]
    lines = [
        f"{part.name} ({part.cell.title}): {in_words(one)}"
        for part, one in zip(parts, each, strict=True)
    ]
    lines.append(f"in all: {in_words(sum(each, Estimate()))}, on {found.machine}")
    return lines


def in_words(one: Estimate) -> str:
    """Return a cost as text."""
    if not one.runs:
        return "nothing left to run"
    runs = "1 run" if one.runs == 1 else f"{one.runs} runs"
    rounds = f"{one.rounds:,} rounds"
    if one.expected != one.rounds:
        rounds = f"{one.expected:,} rounds if targets are reached as published, at most {rounds}"
    return f"{runs}, {rounds}, {one.examples:,} example passes, about {duration(one.seconds)}"


def carry_out(
    registry: Registry, found: Reproduction, parts: Sequence[Part], how: How, out: Path, quiet: bool
) -> Reproduced:
    """Carry out the runs of the cells that are not finished, one cell after the other.

    Raises:
        KeyboardInterrupt: with a note that says how to continue.
    """
    verdicts, ends, failed = [], [], False
    for part in parts:
        outcome = carry_out_grid(registry, part.grid, how, out, quiet)
        ends.append(outcome.progress)
        failed |= outcome.failed
        verdicts.append(judge(registry, part, found.rule, planned(registry, part, out)))
    return Reproduced(found, (), verdicts, ends, failed)
