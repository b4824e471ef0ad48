"""A package with an executor that runs the clients in reverse order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbench import ClientResult, Value, hookimpl
from fedbench.contracts import Executor

fedbench_api = 1


class BackwardsWorkers:
    """The worker of `Backwards`: this process."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def run(self, payload: Mapping[str, Value], jobs: Sequence[Any]) -> Iterator[ClientResult]:
        """Run the last client first; yield the results in client-id order."""
        last_first = sorted(jobs, key=lambda job: -job.client)
        results = [self.runtime.run_client(job, payload) for job in last_first]
        yield from reversed(results)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


@dataclass(frozen=True, eq=False)
class Backwards:
    """Run the last client first, in this process; the result must stay bit-identical."""

    def open(self, runtime: Any) -> BackwardsWorkers:
        """Return the workers of a run."""
        return BackwardsWorkers(runtime)


@hookimpl
def register_executors() -> Mapping[str, type[Executor]]:
    return {"backwards": Backwards}
