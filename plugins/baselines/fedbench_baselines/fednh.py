"""FedNH: the classifier's rows are unit prototypes that only the server moves.

Dai, Chen, Li, Heinecke, Sun, Xu: Tackling Data Heterogeneity in Federated Learning with Class
Prototypes, AAAI 2023.

The logits are ``scale * cos(z, W_c)``. The rows W are orthonormal at the start, fixed in local
training, and smoothed on the server towards the clients' mean directions. From the released code:
clients compute these directions in evaluation mode after training, and extractors are averaged
plainly. There the scale is trained or fixed at 30; here it is an argument. The paper's text was not
re-read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench import PerClass


def initial_prototypes(num_classes: int, d: int, generator: torch.Generator) -> Tensor:
    """Return random orthonormal rows (C, d); with C > d, the columns are orthonormal instead."""
    rows = torch.empty(num_classes, d)
    nn.init.orthogonal_(rows, generator=generator)
    return rows


def class_directions(features: Tensor, labels: Tensor) -> PerClass:
    """Return each class's mean direction: the normalised mean of normalised features.

    Args:
        features: (n, d), in evaluation mode.
        labels: (n,) int64.

    Returns:
        one unit row per class present, with the number of its features; a zero row if they cancel.
    """
    means = PerClass.means(F.normalize(features, dim=1), labels)
    return PerClass(means.labels, F.normalize(means.values, dim=1), means.counts)


def smooth(prototypes: Tensor, uploads: PerClass, smoothing: float) -> Tensor:
    """Return the new rows ``normalize( r W_c + (1 - r) m_c )``, (C, d).

    ``m_c`` is the normalised mean of the clients' directions, weighted by count. A class without
    examples in ``uploads`` keeps its row.

    Args:
        prototypes: W, (C, d).
        uploads: all clients' `class_directions`, at least one row.
        smoothing: r, in (0, 1].
    """
    held = uploads.counts > 0
    parts = (uploads.labels[held], uploads.values[held].double(), uploads.counts[held])
    means = PerClass(*parts).average(by_count=True)
    old = prototypes[means.labels].double()
    moved = smoothing * old + (1 - smoothing) * F.normalize(means.values, dim=1)
    return prototypes.index_copy(0, means.labels, F.normalize(moved, dim=1).to(prototypes.dtype))


def cosine_logits(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Return ``scale * cos(z_i, W_c)``, (B, C).

    Args:
        features: z, (B, d).
        prototypes: W, (C, d).
        scale: s > 0, the inverse of a temperature.
    """
    return scale * F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T
