"""Tables that notebooks show as HTML, and terminals as text."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ..console import PLAIN, Console
from ..report import content, print_analysis
from ..report.content import TextTable
from ..report.curve_tables import curve_tables
from ..report.matrix import matrices
from ..report.terminal import WIDE
from ..study.analysis import Analysis
from ..text import printable
from . import frames

if TYPE_CHECKING:
    from pandas import DataFrame

CELL = Markup('<{0} style="text-align: {1}; white-space: nowrap">{2}</{0}>')
TABLE = Markup("<table><caption>{}</caption><thead>{}</thead><tbody>{}</tbody></table>")
NOTES = Markup("<p><small>{}</small></p>")


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and whether it is the best of its column."""

    text: str
    best: bool = False

    def html(self, tag: str, side: str) -> Markup:
        """Return the cell, escaped."""
        shown = Markup("<b>{}</b>") if self.best else Markup("{}")
        return CELL.format(tag, side, shown.format(printable(self.text)))


def html_table(title: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Markup:
    """Return a table whose first column holds text and whose other columns hold numbers."""

    def row(tag: str, cells: Sequence[Cell]) -> Markup:
        sides = ["left", *["right"] * (len(cells) - 1)]
        inner = (cell.html(tag, side) for cell, side in zip(cells, sides, strict=True))
        return Markup("<tr>{}</tr>").format(Markup("").join(inner))

    body = Markup("").join(row("td", cells) for cells in rows)
    return TABLE.format(printable(title), row("th", [Cell(name) for name in head]), body)


def html_notes(notes: Sequence[str]) -> Markup:
    """Return notes, a line each."""
    return NOTES.format(Markup("<br>").join(map(printable, notes)))


def html_text_table(found: TextTable) -> Markup:
    """Return a table of text, with its notes."""
    rows = [[Cell(content.minus(text)) for text in row] for row in found.rows]
    return html_table(found.title, found.head, rows) + html_notes(found.notes)


class Summary:
    """The tables of a comparison: means over seeds, and differences to the reference.

    A notebook shows them as HTML; ``print`` and ``str`` give those of the command line.

    Args:
        analysis: what they are about.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis

    def to_pandas(self) -> DataFrame:
        """Return one row per setting, variant and column: see `fedbench.interface.frames.summary`.

        Raises:
            FedbenchError: without pandas.
        """
        return frames.frame(frames.summary(self._analysis))

    def _repr_html_(self) -> str:
        return "".join(_parts(self._analysis))

    def __str__(self) -> str:
        text = io.StringIO()
        print_analysis(self._analysis, Console(file=text, width=WIDE, highlight=False, **PLAIN))
        return text.getvalue().rstrip()

    __repr__ = __str__


def _parts(analysis: Analysis) -> Iterator[Markup]:
    for group in analysis.groups:
        table = content.table(analysis, group)
        rows = [
            [Cell(row.variant), Cell(row.seeds), *map(_entry, row.entries)] for row in table.rows
        ]
        title = f"{table.label}, {table.unit}"
        yield html_table(title, ["variant", "seeds", *table.columns], rows)
        if table.versus:
            versus = [
                [Cell(row.variant), *(Cell(content.minus(text)) for text in row.versus)]
                for row in table.rows
                if row.variant != table.reference
            ]
            title = f"compared with {table.reference}, {table.columns[0]}"
            yield html_table(title, ["variant", *table.versus], versus)
        trouble = [f"{row.variant}: {row.trouble}" for row in table.rows if row.trouble]
        unsure = f"≈: not significantly different from {table.reference}"
        marks = [unsure] if content.has_unsure(table) else []
        yield html_notes([content.headline(group), *marks, *trouble, *table.notes])
        yield from map(html_text_table, curve_tables(group))
    for matrix in matrices(analysis):
        cells = [[Cell(name), *map(_entry, found)] for name, found in matrix.rows.items()]
        yield html_table(matrix.title, ["variant", *matrix.columns], cells)
        yield html_notes(matrix.notes)


def _entry(entry: content.Entry) -> Cell:
    text = f"{entry.mean} ± {entry.std}" if entry.std else entry.mean
    return Cell(f"{text} ≈" if entry.unsure else text, entry.best)
