"""Tables of examples per class: a column per class where they fit, and otherwise a summary."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.table import Table

from ..console import Console
from ..interface.progress import console, grid
from ..text import echo

FEW = 5
"""The number of classes that a summary names."""

Row = tuple[tuple[str, str], Sequence[int]]
"""The two cells that name the row, and the examples of each class."""


def print_counts(
    head: tuple[str, str], classes: Sequence[str], rows: Sequence[Row], zero: str = "0"
) -> None:
    """Print a table with the number of examples of each class.

    If the classes do not fit into the terminal, their number, minimum, median and maximum over the
    classes with examples are shown instead.

    Args:
        head: the names of the first two columns.
        classes: the names of the classes.
        rows: one row per line of the table.
        zero: what to print for a class without examples.
    """
    out = console()
    table = _table(head, classes)
    for names, counts in rows:
        table.add_row(*names, str(sum(counts)), *(str(n) if n else zero for n in counts))
    if _fits(table, out):
        out.print(table)
        return
    table = _table(head, ("classes", "min", "median", "max"))
    for names, counts in rows:
        table.add_row(*names, str(sum(counts)), *summarised(counts))
    out.print(table)
    more = f" and {len(classes) - FEW:,} more" if len(classes) > FEW else ""
    echo(
        f"{len(classes):,} classes: {', '.join(classes[:FEW])}{more}; min, median and max are the "
        "examples per class, over the classes with examples"
    )


def summarised(counts: Sequence[int]) -> tuple[str, str, str, str]:
    """Return how many classes have examples, and the minimum, median and maximum over those."""
    held = [n for n in counts if n]
    if not held:
        return ("0", "-", "-", "-")
    return (str(len(held)), str(min(held)), f"{median(held):g}", str(max(held)))


def _table(head: tuple[str, str], columns: Sequence[str]) -> Table:
    table = grid(*head, "examples", *columns)
    table.columns[1].justify = "left"
    return table


def _fits(table: Table, out: Console) -> bool:
    """Return whether the table fits into the console without broken words."""
    wide = out.options.update(max_width=10**6)
    return table.__rich_measure__(out, wide).minimum <= out.width
