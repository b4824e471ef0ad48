"""Leave out clients whose weights moved too far from the received ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import ClientResult, hookimpl


@dataclass(frozen=True, eq=False)
class Filter:
    """Leave a client out if one of its weights moved by more than ``bound``."""

    bound: Annotated[float, Field(gt=0, description="largest change of a weight")] = 1.0

    @hookimpl
    def receive_uploads(self, results: Iterator[ClientResult]) -> Iterator[ClientResult]:
        for result in results:
            sent, new = result.sent.weights(), result.uploads.weights()
            if all(float((w - sent[name]).abs().max()) <= self.bound for name, w in new.items()):
                yield result
