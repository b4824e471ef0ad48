"""What `fedbench data` prints: the list of data sets, and what one says of itself."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

from ..plugins.facts import DatasetFacts, facts
from ..plugins.registry import Entry, Registry
from .printing import print_options
from .progress import console, grid


def print_datasets(registry: Registry, root: Path) -> None:
    """Print the data sets; nothing is loaded.

    Args:
        registry: what is installed.
        root: the folder with the folders of the data sets.
    """
    table = grid("name", "size", "where", "about")
    for column in table.columns:
        column.justify = "left"
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    table.columns[1].max_width = len("123,456 images")
    for entry in registry.all("dataset"):
        size = facts(DatasetFacts, entry.value).size
        table.add_row(entry.name, size, place(entry, root), entry.about)
    out = console()
    out.print(table)
    out.print(f"Files are read from {root / 'NAME'}.", soft_wrap=True)
    out.print("`fedbench data NAME` prints card, licence, classes and options of one.")


def print_dataset(registry: Registry, name: str, root: Path) -> None:
    """Print what a data set says of itself, and its options; nothing is loaded.

    Raises:
        ConfigError: when there is no such data set.
    """
    entry = registry.get("dataset", name)
    found = facts(DatasetFacts, entry.value)
    rows = {
        "size": found.size,
        "files": _files(entry, root),
        "card": found.card or "none",
        "licence": found.licence,
        "source": found.source,
        "domains": _counted(found.domains),
        "classes": _counted(found.classes),
    }
    out = console()
    out.print(f"{name}: data set of {entry.package} {entry.version}\n", style="bold")
    for paragraph in (inspect.getdoc(entry.value) or "").split("\n\n"):
        out.print(f"{_filled(paragraph, out.width)}\n", soft_wrap=True)
    for key, value in rows.items():
        if value:
            out.print(_filled(f"{key:8} {value}", out.width, 9 * " "), soft_wrap=True)
    out.print()
    print_options(entry.value)


def place(entry: Entry, root: Path) -> str:
    """Return where the examples of a data set are, in two words; ``-`` when that isn't known."""
    if facts(DatasetFacts, entry.value).embedded:
        return "embedded"
    if (root / entry.name).exists():
        return "on disk"
    return "to fetch" if hasattr(entry.value, "fetch") else "-"


def _files(entry: Entry, root: Path) -> str:
    where = place(entry, root)
    if where == "embedded":
        return "inside the package"
    more = {"to fetch": f" (fedbench data fetch {entry.name})", "on disk": " (on disk)"}
    return f"{root / entry.name}{more.get(where, '')}"


def _counted(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else ""


def _filled(text: str, width: int, indent: str = "") -> str:
    """Return text in lines of at most ``width``; no word is broken, an indented block stays."""
    if "\n " in text:
        return text
    return textwrap.fill(
        " ".join(text.split("\n")),
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
