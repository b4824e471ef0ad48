"""Executors decide where clients run: one after the other, in processes, or on a cluster.

Executors are plugins; this module registers the bundled ones. What an executor and its workers must
offer is in `fedbench.contracts`: `Executor`, `Workers` and `EvaluatingWorkers`. Retries happen
inside `Runtime.run_client`; the failure policy is applied in the round.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..contracts import Executor
from ..hookspecs import hookimpl
from .inline import Inline
from .pool import Pool
from .ray import Ray

fedbench_api = 1


@hookimpl
def register_executors() -> Mapping[str, type[Executor]]:
    """Return the bundled executors."""
    return {"inline": Inline, "pool": Pool, "ray": Ray}
