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
            moved = [(w - sent[k]).abs().max() for k, w in new.items() if w.is_floating_point()]
            if all(float(most) <= self.bound for most in moved):
                yield result
