"""Shared by FedHPro's two matching steps: gradients at the logits, a cosine, gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench.types import PerClass, Report

EPSILON = 1e-6


def residual(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``softmax(W z + b) - onehot(y)``, each sample's cross-entropy gradient at its logits.

    Args:
        features: (..., d).
        labels: int64, of a shape that broadcasts to the features' leading dimensions.
        weight: (C, d), the classifier's weight.
        bias: (C,), its bias.

    Returns:
        (..., C).
    """
    return F.softmax(F.linear(features, weight, bias), dim=-1) - F.one_hot(labels, len(bias))


def one_minus_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return ``1 - a.b / (|a||b| + 1e-6)`` over the last dimension."""
    norms: Tensor = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return 1 - (a * b).sum(-1) / (norms + EPSILON)


def descend(start: Tensor, loss: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    """Return ``start`` after ``steps`` steps of plain gradient descent on ``loss``."""
    moved = start.detach().clone()
    for _ in range(steps):
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(moved.requires_grad_()), moved)
        moved = moved.detach() - lr * gradient
    return moved


def mean_upload(reports: Sequence[Report], key: str) -> PerClass:
    """Return the plain mean of the upload ``key`` over the clients that report a class.

    The result has one row per reported class. Clients count the same whatever their sizes.
    """
    return PerClass.concat(r.uploads.per_class(key) for r in reports).average()
