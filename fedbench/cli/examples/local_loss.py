"""Keep features small."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from fedbench import Output, hookimpl


@dataclass(frozen=True, eq=False)
class SmallFeatures:
    """Add ``weight`` times the mean squared length of the features."""

    weight: Annotated[float, Field(ge=0, description="factor of the term")] = 0.01

    @hookimpl
    def local_loss(self, output: Output) -> Mapping[str, Tensor]:
        return {"small_features": self.weight * output.features.square().sum(1).mean()}
