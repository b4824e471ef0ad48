"""Train on every second example."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field

from fedbench import Dataset, hookimpl


@dataclass(frozen=True, eq=False)
class Thin:
    """Keep every ``step``-th training example."""

    step: Annotated[int, Field(ge=1, description="distance between examples that are kept")] = 2

    @hookimpl
    def prepare_data(self, data: Dataset) -> Dataset:
        kept = torch.arange(0, len(data.train), self.step)
        return replace(data, train=data.train[kept])
