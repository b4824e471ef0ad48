"""Models on flattened inputs: logistic regression and the multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.errors import ConfigError


class DenseModule(nn.Module):
    """Linear layers with ReLU between them, and the classifier; without layers it is linear."""

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.classifier = nn.Linear(sizes[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """Map inputs (B, ...) to features (B, d): the last hidden layer, or the flat inputs.

        Raises:
            ConfigError: for inputs that are not numbers but ids, such as those of characters.
        """
        if not x.is_floating_point():
            raise ConfigError(
                f"a linear layer cannot take ids; the inputs of this data set are {x.dtype}: use a "
                "model with an embedding, such as char_lstm or text_embedding"
            )
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer(x), inplace=True)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


@dataclass(frozen=True, eq=False)
class Logistic:
    """Multinomial logistic regression: the features are the flat inputs, d values of any shape.

    The convex model of Li et al. (FedProx), MLSys 2020: 7,850 parameters on 28 x 28 grey images.
    """

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> DenseModule:
        """Return a freshly initialised model for inputs of any shape."""
        return DenseModule(math.prod(input_shape), (), num_classes)


@dataclass(frozen=True, eq=False)
class Mlp:
    """A multilayer perceptron with ReLU on flat inputs of any shape; d is the last hidden size.

    The default is the 2NN of McMahan et al., AISTATS 2017: 199,210 parameters on 28 x 28 grey
    images and ten classes.
    """

    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        Field(min_length=1, description="sizes of the hidden layers"),
    ] = (200, 200)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> DenseModule:
        """Return a freshly initialised model for inputs of any shape."""
        return DenseModule(math.prod(input_shape), self.hidden, num_classes)
