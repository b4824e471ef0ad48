"""The workloads' data, augmentation and models in plain PyTorch, which all contestants use.

fedbench uses the data from here, but its own augmentation and models, which are equivalent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from workloads import Workload


def images(workload: Workload, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random images (size, channels, height, width), uint8, and labels (size,), int64."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (size, *workload.shape), generator=rng, dtype=torch.uint8)
    return pixels, torch.randint(workload.classes, (size,), generator=rng)


def train_images(workload: Workload) -> tuple[Tensor, Tensor]:
    """Return the images and labels of all clients, one client after the other."""
    return images(workload, workload.clients * workload.examples, seed=1)


def test_images(workload: Workload) -> tuple[Tensor, Tensor]:
    """Return the images and labels on which the global model is evaluated after each round."""
    return images(workload, workload.test, seed=2)


def augment(x: Tensor) -> Tensor:
    """Crop each padded image (B, channels, height, width) at a random place, and mirror half."""
    height, width = x.shape[2:]
    padded = F.pad(x, (4, 4, 4, 4))
    places = torch.randint(9, (len(x), 2)).tolist()
    cut = [p[:, t : t + height, s : s + width] for p, (t, s) in zip(padded, places, strict=True)]
    x = torch.stack(cut)
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(3), x)


def build(workload: Workload) -> nn.Module:
    """Return a fresh model of the workload."""
    if workload.model == "resnet10":
        return ResNet10(workload.shape[0], workload.classes)
    return Cnn(workload.shape[0], workload.classes)


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
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet10(nn.Module):
    """ResNet-10 with a 3x3 stem of 32 filters: 4.9 million weights."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(
            Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2), Block(128, 256, 2)
        )
        self.classifier = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Cnn(nn.Module):
    """The CNN of McMahan et al.: 5x5 convolutions of 32 and 64, 512 hidden: 1.7 million weights."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.hidden = nn.Linear(64 * 7 * 7, 512)
        self.classifier = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.classifier(F.relu(self.hidden(x.flatten(1))))
