"""Where clients run. Executors are plugins; this module registers the bundled ones."""

from __future__ import annotations

from collections.abc import Mapping

from ..hookspecs import hookimpl
from .inline import Inline


@hookimpl
def register_executors() -> Mapping[str, type]:
    """Return the bundled executors."""
    return {"inline": Inline}
