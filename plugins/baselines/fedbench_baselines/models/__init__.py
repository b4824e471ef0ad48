"""Models: a feature extractor and a linear classifier, both accessible to methods."""

from __future__ import annotations

from .convolutional import Cnn, LeNet5
from .dense import Logistic, Mlp
from .resnet import ResNet10, ResNet18
from .text import CharLstm
from .zoo import Timm, Torchvision

__all__ = [
    "CharLstm",
    "Cnn",
    "LeNet5",
    "Logistic",
    "Mlp",
    "ResNet10",
    "ResNet18",
    "Timm",
    "Torchvision",
]
