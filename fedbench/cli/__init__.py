"""The command line. Thin: each command resolves names, calls the library and prints."""

from .app import main

__all__ = ["main"]
