"""Models: a feature extractor and a linear classifier, both accessible to methods."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.errors import ConfigError


def _image_shape(name: str, shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise ConfigError(
            f"model {name!r} needs images of at least {smallest} x {smallest} pixels "
            f"(channels, height, width); the inputs of this data set have shape {shape}"
        )
    channels, height, width = shape
    return channels, height, width


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
        shape = _image_shape("cnn", input_shape, 4)
        return CnnModule(shape, self.width, self.feature_size, num_classes)


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, h, w) to (B, outside, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(self.shortcut(x)), inplace=True)


class ResNet10Module(nn.Module):
    """The module that `ResNet10` builds."""

    def __init__(self, channels: int, filters: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        widths = [filters, filters, 2 * filters, 4 * filters, 8 * filters]
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in pairwise(widths)))
        self.classifier = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, channels, height, width) to features (B, 8 * filters)."""
        x = self.blocks(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


@dataclass(frozen=True, eq=False)
class ResNet10:
    """ResNet-10 with a 3x3 stem, as in FPL and FedHPro: one block per stage, d = 8 x filters.

    Images have at least 8 x 8 pixels. At exactly 8 x 8 the last stage has one value per channel, so
    batch norm needs at least two examples in each training batch.
    """

    filters: Annotated[int, Field(ge=1, description="filters of the stem")] = 32

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> ResNet10Module:
        """Return a freshly initialised model for images of ``input_shape``."""
        channels, _, _ = _image_shape("resnet10", input_shape, 8)
        return ResNet10Module(channels, self.filters, num_classes)
