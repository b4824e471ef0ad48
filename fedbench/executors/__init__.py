"""Where clients run. Executors are plugins; this module registers the bundled ones."""

from __future__ import annotations

from collections.abc import Mapping

from ..hookspecs import hookimpl
from .inline import Inline
from .pool import Pool

fedbench_api = 1


@hookimpl
def register_executors() -> Mapping[str, type]:
    """Return the bundled executors."""
    return {"inline": Inline, "pool": Pool}
