"""Where clients run. Executors are plugins; this module registers the bundled ones.

An executor is a frozen dataclass of options with ``open(runtime) -> workers``. Workers have

``run(payload, jobs) -> Iterator[ClientResult | ClientFailure]``
    one answer for each job, made by `Runtime.run_client` and passed on as it is, in client-id
    order, computed anywhere in any order, with few of them waiting at any time. A client that fails
    is an answer too (`ClientFailure`, which pickles whatever its exception is); retries happen
    inside `Runtime.run_client`, policies in the round. What an executor raises itself (a lost
    worker) ends the run under every policy, because it says something about the machine.
``test(weights, chunks) -> Iterator[Output]``, if they like
    what `Runtime.run_chunk` makes of each part of the test data, in their order. Without it the
    server's process does this itself.
``close()``
    releases what ``open`` took; called once, also after an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..hookspecs import hookimpl
from .inline import Inline
from .pool import Pool
from .ray import Ray

fedbench_api = 1


@hookimpl
def register_executors() -> Mapping[str, type]:
    """Return the bundled executors."""
    return {"inline": Inline, "pool": Pool, "ray": Ray}
