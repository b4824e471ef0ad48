"""A package with a model: one hidden layer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from fedbench import hookimpl

fedbench_api = 1


class PerceptronModule(nn.Module):
    """A feature extractor and a linear classifier, both accessible to methods."""

    def __init__(self, inputs: int, d: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, d)
        self.classifier = nn.Linear(d, classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, ...) to features (B, d)."""
        return self.hidden(inputs.flatten(1)).relu()


@dataclass(frozen=True, eq=False)
class Perceptron:
    """One hidden layer, for inputs of any shape."""

    feature_size: Annotated[int, Field(ge=1, description="feature size d")] = 16

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Return a freshly initialised model."""
        return PerceptronModule(math.prod(input_shape), self.feature_size, num_classes)


@hookimpl
def register_models() -> Mapping[str, type]:
    return {"perceptron": Perceptron}
