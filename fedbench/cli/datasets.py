"""The output of `fedbench data`: the list of data sets, and the description of one."""

from __future__ import annotations

from pathlib import Path

from ..interface.progress import console, grid
from ..plugins.facts import DatasetFacts, facts
from ..plugins.registry import Entry, Registry
from .printing import filled, print_description, print_options


def print_datasets(registry: Registry, root: Path) -> None:
    """Print the list of data sets without loading them.

    Args:
        registry: everything installed.
        root: the folder that holds a folder per data set.
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
    out.print("`fedbench data NAME` prints the card, licence, classes and options of one.")


def print_dataset(registry: Registry, name: str, root: Path) -> None:
    """Print the description of a data set and its options without loading it.

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
    print_description(entry.value)
    out.print()
    for key, value in rows.items():
        if value:
            out.print(filled(f"{key:8} {value}", out.width, 9 * " "), soft_wrap=True)
    out.print()
    print_options(entry.value)


def place(entry: Entry, root: Path) -> str:
    """Return where the examples of a data set are, in two words; ``-`` if that is not known."""
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
