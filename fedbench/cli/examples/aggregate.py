"""Take the coordinate-wise median of the clients' weights."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fedbench import ClientResult, ServerUpdate, hookimpl


@dataclass(frozen=True, eq=False)
class Middle:
    """Take the lower median of every weight and report how many clients it is of."""

    @hookimpl
    def aggregate(self, results: Iterator[ClientResult]) -> ServerUpdate:
        found = [result.uploads.weights() for result in results]  # a median needs all at once
        middle = {name: torch.stack([w[name] for w in found]).median(0).values for name in found[0]}
        return ServerUpdate(weights=middle, metrics={"middle.clients": len(found)})
