"""Add noise to the inputs during training."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import hookimpl


@dataclass(frozen=True, eq=False)
class Grain:
    """Add Gaussian noise to the inputs, newly drawn for every training batch."""

    deviation: Annotated[float, Field(ge=0, description="standard deviation")] = 0.1

    @hookimpl
    def transform(self, inputs: torch.Tensor, train: bool, rng: torch.Generator) -> torch.Tensor:
        if not train:
            return inputs
        noise = torch.randn(inputs.shape, generator=rng)  # on the CPU: the same on every device
        return inputs + self.deviation * noise.to(inputs.device)
