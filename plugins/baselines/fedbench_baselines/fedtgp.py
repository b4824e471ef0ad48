"""FedTGP: the server trains global prototypes that keep a margin between classes.

Zhang, Liu, Hua, Cao: FedTGP: Trainable Global Prototypes with Adaptive-Margin-Enhanced Contrastive
Learning for Data and Model Heterogeneity in Federated Learning, AAAI 2024.

The server keeps a small network from a class to its prototype (`.tgp`) and trains it by SGD to
classify the clients' prototypes by their distance to the global ones. All C prototypes are sent,
also those of classes that nobody has uploaded yet. A client's term is `.fedproto.prototype_loss`.

From the released code: the margin ``max_min``. The paper takes the maximum over all pairs, as it is
remembered (its text was not re-read): ``max``. In the released code a distance of 0 makes a NaN,
and each client sets the global seed to 0; here neither happens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass

EXACT = "donot_use_mm_for_euclid_dist"


def adaptive_margin(
    prototypes: PerClass, threshold: float, form: Literal["max_min", "max"]
) -> float:
    """Return the margin: the largest gap between class means, but at most ``threshold``.

    Args:
        prototypes: the clients' rows (d,), any number per class; a class's mean is the plain one.
        threshold: upper bound, and the margin when fewer than two classes have rows.
        form: a gap is a class's distance to its nearest other class (``max_min``), or to its
            farthest (``max``).
    """
    means = prototypes.average().values
    if len(means) < 2:
        return threshold
    distances = torch.cdist(means, means, compute_mode=EXACT)
    if form == "max_min":
        distances = distances.fill_diagonal_(torch.inf).amin(dim=1)
    return min(float(distances.max()), threshold)


def center_loss(prototypes: Tensor, labels: Tensor, centers: Tensor, margin: float) -> Tensor:
    """Return the mean cross-entropy of ``-(||P_i - T_c|| + margin * [c = y_i])``, a scalar.

    Args:
        prototypes: P, (n, d), of the clients.
        labels: y, (n,) int64.
        centers: T, (C, d), the global prototypes.
        margin: not negative.
    """
    # Its gradient is 0, not NaN, where a prototype and a centre are equal.
    distances = torch.cdist(prototypes, centers, compute_mode=EXACT)
    own = F.one_hot(labels, len(centers))
    return F.cross_entropy(-(distances + margin * own), labels)
