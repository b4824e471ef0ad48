"""The natural partition: the clients that the data come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.types import Dataset

from .partitions import MinSize

WITH_CLIENTS = "synthetic, and hf with its option client"
"""The bundled data sets that come with clients, for the error."""


@dataclass(frozen=True, eq=False)
class Natural:
    """Give each client the examples that are its own in the data: a writer's, a speaker's.

    The clients are the data set's, in its order; examples of clients that are left out are not
    used. LEAF (Caldas et al., 2018) draws a share of the users in the same way.
    """

    min_size: Annotated[
        MinSize, Field(description="clients with fewer training examples are left out")
    ] = 1
    max_clients: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="if there are more clients, this many of them, drawn at random"),
    ] = None
    fraction: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="share of the clients to use, drawn at random"),
    ] = None

    def __post_init__(self) -> None:
        if self.max_clients is not None and self.fraction is not None:
            raise ValueError("give max_clients or fraction, not both")

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        if data.train.clients is None:
            raise ConfigError(
                "natural: this data set does not say which client an example comes from; use a "
                f"data set that does ({WITH_CLIENTS}), or another partition"
            )
        sizes = data.train.clients.bincount(minlength=len(data.clients))
        large = (sizes >= self.min_size).nonzero().flatten().numpy()
        if not len(large):
            raise ConfigError(
                f"natural.min_size: no client has {self.min_size:,} training examples; the largest "
                f"has {int(sizes.max()):,}"
            )
        count = len(large)
        if self.max_clients is not None:
            count = min(count, self.max_clients)
        if self.fraction is not None:
            count = max(1, round(self.fraction * count))
        chosen = np.sort(rng.permutation(large)[:count])
        parts = torch.argsort(data.train.clients, stable=True).split(sizes.tolist())
        return [parts[client] for client in chosen]
