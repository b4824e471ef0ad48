"""Deal out the examples like playing cards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import Dataset, hookimpl


@dataclass(frozen=True, eq=False)
class Deal:
    """Give client k the examples k, k + n, k + 2n, ..., with n clients."""

    clients: Annotated[int, Field(ge=1, description="number of clients")] = 3

    @hookimpl
    def partition(self, data: Dataset) -> Sequence[torch.Tensor]:
        return [torch.arange(k, len(data.train), self.clients) for k in range(self.clients)]
