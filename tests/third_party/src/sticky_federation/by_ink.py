"""A partition by brightness: every client gets images that are about equally bright."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import ConfigError, hookimpl


@dataclass(frozen=True, eq=False)
class ByInk:
    """Draw examples, sort them by mean brightness, and cut them into equal parts."""

    clients: Annotated[int, Field(ge=1, description="number of clients")] = 8
    fraction: Annotated[
        float, Field(gt=0, le=1, description="share of the examples that is used")
    ] = 1

    @hookimpl
    def partition(self, data, rng):
        n = round(len(data.train) * self.fraction)
        if n < self.clients:
            raise ConfigError(f"by_ink.clients: {n} examples are enough for at most {n} clients")
        chosen = torch.from_numpy(rng.permutation(len(data.train))[:n])
        ink = data.train.inputs[chosen].float().flatten(1).mean(1)
        return list(chosen[ink.argsort(stable=True)].tensor_split(self.clients))
