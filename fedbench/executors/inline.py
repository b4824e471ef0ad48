"""The simplest executor: clients run one after the other in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..failures import ClientFailure
    from ..runtime import Runtime
    from ..types import Chunk, ClientJob, ClientResult, Output, Value, Weights


@dataclass(frozen=True, eq=False)
class Inline:
    """Run clients one after the other in this process, on one thread each."""

    def open(self, runtime: Runtime) -> InlineWorkers:
        """Return the workers of a run."""
        return InlineWorkers(runtime)


class InlineWorkers:
    """The workers of `Inline`: this process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the answers in client-id order, each computed when it is requested."""
        for job in sorted(jobs, key=lambda j: j.client):
            yield self._runtime.run_client(job, payload)

    def test(self, weights: Weights, chunks: Sequence[Chunk]) -> Iterator[Output]:
        """Yield a model's outputs for parts of the test data, in order."""
        for chunk in chunks:
            yield self._runtime.run_chunk(chunk, weights)

    def close(self) -> None:
        """Nothing to release."""
