"""The summary on the command line: rich on a terminal, plain ASCII off it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from ..console import Console
from ..study.analysis import Analysis, Group
from ..text import printable, summary
from .content import Entry, Table, TextTable, has_best, has_unsure, headline, table
from .curve_tables import curve_tables
from .matrix import matrices

FAINT, STRONG, SECOND = "dim", "bold", "underline"
WIDE = 10_000
"""Columns off a terminal: lines are never wrapped there."""


class Printer:
    """Prints to one console, with signs that its encoding has.

    Args:
        console: where to; default standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.out = console or Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
        self.rich = self.out.is_terminal and self.out.encoding.startswith("utf")
        self.signs = ("±", "≈") if self.rich else ("+-", "~")

    def text(self, text: str, style: str = "") -> None:
        """Print a line; brackets in it are no markup."""
        self.out.print(_cell(self.signed(text), style=style), soft_wrap=not self.rich)

    def signed(self, text: str) -> str:
        """Return text with signs that the encoding has."""
        return text if self.rich else _ascii(text)

    def grid(self, title: str, head: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
        """Print a table whose first column is text and the others numbers."""
        shape = box.SIMPLE_HEAD if self.rich else box.MARKDOWN
        if title:
            self.text(title, STRONG)
        for columns in self._fitting(head, rows):
            grid = Grid(box=shape, pad_edge=False, show_edge=False)
            for place in columns:
                side = "left" if place == 0 else "right"
                grid.add_column(_cell(head[place]), justify=side, no_wrap=place > 0)  # type: ignore[arg-type]
            for row in rows:
                grid.add_row(*(row[place] for place in columns))
            self.out.print(grid)
        self.out.print()

    def _fitting(self, head: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[list[int]]:
        """Split the columns so that each part, led by the first column, fits the terminal."""
        widths = [
            max(_cell(head[n]).cell_len, *(row[n].cell_len for row in rows)) + 2
            for n in range(len(head))
        ]
        parts = [[0]]
        used = widths[0]
        for place in range(1, len(head)):
            if used + widths[place] > self.out.width and len(parts[-1]) > 1:
                parts.append([0])
                used = widths[0]
            parts[-1].append(place)
            used += widths[place]
        return parts

    def entry(self, entry: Entry, any_unsure: bool) -> Text:
        """Return a cell: mean and deviation, best in bold, the sign for "not significant"."""
        text = f"{entry.mean} {self.signs[0]} {entry.std}" if entry.std else entry.mean
        if not self.rich:
            text = f"*{text}" if entry.best else f"'{text}" if entry.second else text
        found = Text().append(text, STRONG if entry.best else SECOND if entry.second else "")
        if any_unsure:
            found.append(f" {self.signs[1]}" if entry.unsure else "  ")
        return found


def print_analysis(analysis: Analysis, console: Console | None = None) -> None:
    """Print every setting's summary, what is not finished, and all settings in one table."""
    printer = Printer(console)
    for group in analysis.groups:
        _print_group(printer, group, table(analysis, group))
    for matrix in matrices(analysis):
        rows = [
            [_name(variant), *(printer.entry(e, matrix.unsure) for e in found)]
            for variant, found in matrix.rows.items()
        ]
        printer.grid(matrix.title.lower(), ["variant", *matrix.columns], rows)
        for note in matrix.notes:
            printer.text(note, FAINT)
        if matrix.best and not printer.rich:
            printer.text("*: best, ': second best", FAINT)


def print_table(found: TextTable, console: Console | None = None) -> None:
    """Print a table of text and its notes."""
    _print_text_table(Printer(console), found)


def _print_group(printer: Printer, group: Group, content: Table) -> None:
    unsure = has_unsure(content)
    rows = [
        [_name(row.variant), _cell(row.seeds), *(printer.entry(e, unsure) for e in row.entries)]
        for row in content.rows
    ]
    printer.grid(content.label, ["variant", "seeds", *content.columns], rows)
    if content.versus:
        lines = [
            [_name(row.variant), *map(_cell, row.versus)]
            for row in content.rows
            if row.variant != content.reference
        ]
        title = f"compared with {content.reference}, {content.columns[0]}"
        printer.grid(title, ["variant", *content.versus], lines)
    printer.text(headline(group))
    for note in content.notes:
        printer.text(note, "bold red" if note.startswith("WARNING") else FAINT)
    if has_best(content):
        best = "bold" if printer.rich else "*"
        printer.text(f"{best}: best of its column", FAINT)
    if unsure:
        sign = printer.signs[1]
        printer.text(f"{sign}: not significantly different from {content.reference}", FAINT)
    printer.out.print()
    for found in curve_tables(group):
        _print_text_table(printer, found)
    for record in group.records:
        if record.status == "finished":
            continue
        why = record.error or f"{len(record.rounds)} of {record.config.rounds} rounds done"
        what = f"{record.status}: {record.variant}, seed {record.seed}: {summary(why)}"
        printer.text(what, "red" if record.status == "failed" else "yellow")
    printer.out.print()


def _print_text_table(printer: Printer, found: TextTable) -> None:
    rows = [
        [_name(row[0]), *(_cell(printer.signed(text)) for text in row[1:])] for row in found.rows
    ]
    printer.grid(found.title, found.head, rows)
    for note in found.notes:
        printer.text(note, "bold red" if note.startswith("WARNING") else FAINT)
    printer.out.print()


def _name(variant: str) -> Text:
    return _cell(variant, overflow="fold")


def _cell(text: str, **how: Any) -> Text:
    """Return text without markup, made printable first: rich drops some characters silently."""
    return Text(printable(text), **how)


def _ascii(text: str) -> str:
    signs = {"±": "+-", "≈": "~", "×": "x", "–": "-"}
    plain = "".join(signs.get(letter, letter) for letter in printable(text))
    return plain.encode("ascii", "backslashreplace").decode()
