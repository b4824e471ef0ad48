"""The command line, a thin layer: each command resolves names, calls the library and prints."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .app import main

__all__ = ["main"]


def __getattr__(name: str) -> object:
    """Import the commands on first use, after ``fedbench.cli.signals``."""
    if name == "main":
        from .app import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
