"""The console for tables and styles: what it prints is shown, and steers no terminal.

Names of classes, domains, methods and folders, texts of results and errors come from files that
others wrote. `fedbench.text.echo` does the same for plain lines, without the import of rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import rich.console
from rich.segment import Segment
from rich.text import Text

from .text import printable

PLAIN: Mapping[str, Any] = {"force_jupyter": False, "force_terminal": False, "color_system": None}
"""Options of a console that writes plain text, also where colours are asked for (notebooks)."""


class Console(rich.console.Console):
    """A console that shows control characters as escapes; styles are its own."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Turn a string into text that fits: a cell, a line or a title."""
        return super().render_str(printable(text, keep="\n"), **how)

    def render(self, *what: Any, **how: Any) -> Iterable[Segment]:
        """Yield the segments of anything, also of what was never a plain string."""
        for text, style, control in super().render(*what, **how):
            yield Segment(text if control else printable(text, keep="\n"), style, control)
