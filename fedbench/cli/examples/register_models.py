"""A package with a model: one hidden layer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench import hookimpl
from fedbench.contracts import ModelSource

fedbench_api = 1


class PerceptronModule(nn.Module):
    """A feature extractor and a linear classifier, both accessible to methods."""

    def __init__(self, inputs: int, d: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, d)
        self.classifier = nn.Linear(d, classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, ...) to features (B, d)."""
        return F.relu(self.hidden(inputs.flatten(1)))


@dataclass(frozen=True, eq=False)
class Perceptron:
    """One hidden layer, for inputs of any shape."""

    feature_size: Annotated[int, Field(ge=1, description="feature size d")] = 16

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> PerceptronModule:
        """Return a freshly initialised model."""
        return PerceptronModule(math.prod(input_shape), self.feature_size, num_classes)


@hookimpl
def register_models() -> Mapping[str, type[ModelSource]]:
    return {"perceptron": Perceptron}
