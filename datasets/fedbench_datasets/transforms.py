"""Transforms of whole batches, with random parameters per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from fedbench.hookspecs import hookimpl


@dataclass(frozen=True, eq=False)
class Normalize:
    """Subtract a mean and divide by a deviation, per channel or one for all."""

    mean: Annotated[tuple[float, ...], Field(min_length=1, description="of inputs in [0, 1]")] = (
        0.5,
    )
    std: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Field(min_length=1, description="deviation of inputs in [0, 1]"),
    ] = (0.5,)

    @hookimpl
    def transform(self, inputs: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        mean = inputs.new_tensor(self.mean).reshape(shape)
        return (inputs - mean) / inputs.new_tensor(self.std).reshape(shape)
