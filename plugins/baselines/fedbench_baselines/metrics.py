"""Metrics for the test data of one domain, from class scores (N, C) and labels (N,)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from fedbench import Unit


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The share of examples whose highest score is their label (top-1), in [0, 1]."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[Unit] = "percent"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """Return the share of correct predictions."""
        return float((scores.argmax(1) == labels).double().mean())


@dataclass(frozen=True, eq=False)
class Loss:
    """The mean cross-entropy in nats, with the scores as logits; at least 0."""

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[Unit] = "plain"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """Return the mean cross-entropy in nats."""
        return float(F.cross_entropy(scores.double(), labels))


@dataclass(frozen=True, eq=False)
class ClassAccuracy:
    """The accuracy of each class, in [0, 1]; none for a class without test examples."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[Unit] = "percent"

    def __call__(self, scores: Tensor, labels: Tensor) -> list[float | None]:
        """Return the share of correct predictions of each class, C numbers."""
        classes = scores.shape[1]
        total = labels.bincount(minlength=classes).tolist()
        right = labels[scores.argmax(1) == labels].bincount(minlength=classes).tolist()
        return [r / n if n else None for r, n in zip(right, total, strict=True)]
