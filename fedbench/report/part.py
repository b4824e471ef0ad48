"""A part of the report besides those of the settings, such as what a search has tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .content import TextTable
from .figure import Figure
from .specs import Look


@dataclass(frozen=True)
class Part:
    """A part of the page, with the files that belong to it.

    Args:
        name: for links and file names.
        title: its heading.
        tables: shown.
        folded: shown on demand.
        figures: its charts; their ``section`` does not matter.
        look: how their series look.
        files: name -> content of the files beside the page.
    """

    name: str
    title: str
    tables: Sequence[TextTable]
    folded: Sequence[TextTable]
    figures: Sequence[Figure]
    look: Look
    files: Mapping[str, bytes]
