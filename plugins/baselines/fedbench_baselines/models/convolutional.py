"""Small convolutional networks: that of McMahan et al., and LeNet-5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .shapes import image_shape


class CnnModule(nn.Module):
    """The module that `Cnn` builds."""

    def __init__(self, shape: tuple[int, int, int], width: int, d: int, classes: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.conv1 = nn.Conv2d(channels, width, 5, padding=2)
        self.conv2 = nn.Conv2d(width, 2 * width, 5, padding=2)
        self.hidden = nn.Linear(2 * width * (height // 4) * (breadth // 4), d)
        self.classifier = nn.Linear(d, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, channels, height, width) to features (B, d)."""
        # Pooling first yields the same numbers, and leaves a quarter of them to rectify.
        x = F.relu(F.max_pool2d(self.conv1(x), 2), inplace=True)
        x = F.relu(F.max_pool2d(self.conv2(x), 2), inplace=True)
        return F.relu(self.hidden(x.flatten(1)), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


@dataclass(frozen=True, eq=False)
class Cnn:
    """Two 5x5 convolutions with max-pooling and one hidden layer; small enough for a CPU.

    With ``feature_size: 512`` on 28 x 28 grey images it is the CNN of McMahan et al., AISTATS 2017,
    with its 1,663,370 parameters.
    """

    width: Annotated[int, Field(ge=1, description="filters of the first convolution")] = 32
    feature_size: Annotated[int, Field(ge=1, description="feature size d")] = 256

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> CnnModule:
        """Return a freshly initialised model for images of ``input_shape``."""
        shape = image_shape("cnn", input_shape, 4)
        return CnnModule(shape, self.width, self.feature_size, num_classes)


SIDE = 32
"""LeNet-5's images have 32 pixels on a side; MNIST's 28 are padded."""

SMALLEST = 16
"""The smallest side of an image that passes both convolutions and both poolings unpadded."""


class LeNet5Module(nn.Module):
    """The module that `LeNet5` builds."""

    def __init__(self, shape: tuple[int, int, int], side: int, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        missing = [max(0, side - own) for own in (width, height)]
        self.padding = [part for n in missing for part in (n // 2, n - n // 2)]
        rows, columns = (((max(side, own) - 4) // 2 - 4) // 2 for own in (height, width))
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.hidden1 = nn.Linear(16 * rows * columns, 120)
        self.hidden2 = nn.Linear(120, 84)
        self.classifier = nn.Linear(84, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, channels, height, width) to features (B, 84)."""
        x = F.pad(x, self.padding) if any(self.padding) else x
        x = F.relu(F.max_pool2d(self.conv1(x), 2), inplace=True)
        x = F.relu(F.max_pool2d(self.conv2(x), 2), inplace=True)
        x = F.relu(self.hidden1(x.flatten(1)), inplace=True)
        return F.relu(self.hidden2(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


@dataclass(frozen=True, eq=False)
class LeNet5:
    """LeNet-5 (LeCun et al., Proc. IEEE 1998) with ReLU and max-pooling, d = 84.

    Images smaller than 32 x 32 are padded with zeros, as LeCun et al. pad MNIST: 61,706 parameters
    there, and 62,006 on CIFAR-10. NIID-Bench (Li et al., ICDE 2022) does not pad: with ``pad:
    false`` there are 44,426 parameters on MNIST.
    """

    pad: Annotated[bool, Field(description="pad images to 32 x 32")] = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> LeNet5Module:
        """Return a freshly initialised model for images of ``input_shape``."""
        least = 1 if self.pad else SMALLEST
        shape = image_shape("lenet5", input_shape, least)
        return LeNet5Module(shape, SIDE if self.pad else 0, num_classes)
