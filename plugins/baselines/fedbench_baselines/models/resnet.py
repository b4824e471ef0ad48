"""Residual networks for small images: a 3x3 stem, no max-pooling, and a choice of norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .shapes import image_shape

Norm = Literal["batch", "group", "none"]

GROUPS = 2
"""Groups of group norm, as in Reddi et al., ICLR 2021."""


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return the layer that normalises (B, channels, h, w); ``none`` leaves it unchanged."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    return nn.Identity()


class Block(nn.Module):
    """Two 3x3 convolutions, each with a norm, and a shortcut (He et al., CVPR 2016).

    Convolutions have a bias only without a norm, which would replace it.
    """

    def __init__(self, inside: int, outside: int, stride: int, norm: Norm = "batch") -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=bias)
        self.bn1 = norm_layer(norm, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=bias)
        self.bn2 = norm_layer(norm, outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=bias), norm_layer(norm, outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, h, w) to (B, outside, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(self.shortcut(x)), inplace=True)


class ResNetModule(nn.Module):
    """Four stages of ``depth`` blocks; each stage but the first halves the image."""

    def __init__(self, channels: int, filters: int, depth: int, norm: Norm, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, 1, 1, bias=norm == "none")
        self.bn1 = norm_layer(norm, filters)
        stages = (filters, 2 * filters, 4 * filters, 8 * filters)
        widths = [filters, *(width for width in stages for _ in range(depth))]
        self.blocks = nn.Sequential(
            *(Block(a, b, 1 if a == b else 2, norm) for a, b in pairwise(widths))
        )
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
    batch norm needs at least two examples in each training batch. Batch norm averages statistics of
    clients whose data differ; group norm, here with two groups, has none (Hsieh et al., ICML 2020).
    """

    filters: Annotated[int, Field(ge=1, description="filters of the stem")] = 32
    norm: Annotated[Norm, Field(description="the norm after each convolution")] = "batch"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> ResNetModule:
        """Return a freshly initialised model for images of ``input_shape``."""
        channels, _, _ = image_shape("resnet10", input_shape, 8)
        return ResNetModule(channels, self.filters, 1, self.norm, num_classes)


@dataclass(frozen=True, eq=False)
class ResNet18:
    """ResNet-18 for small images (He et al., CVPR 2016): a 3x3 stem, no max-pooling, d = 512.

    With batch norm it has 11,173,962 parameters on CIFAR-10. With ``norm: group``, which has two
    groups, it is the kind of ResNet-18 that Reddi et al., ICLR 2021, train on CIFAR-100.
    """

    filters: Annotated[int, Field(ge=1, description="filters of the stem, d / 8")] = 64
    norm: Annotated[Norm, Field(description="the norm after each convolution")] = "batch"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> ResNetModule:
        """Return a freshly initialised model for images of ``input_shape``."""
        channels, _, _ = image_shape("resnet18", input_shape, 8)
        return ResNetModule(channels, self.filters, 2, self.norm, num_classes)
