"""Plugins: which ones are installed, the rules that they must keep, and the hooks of one run."""

from .discovery import discover
from .registry import Registry

__all__ = ["Registry", "discover"]
