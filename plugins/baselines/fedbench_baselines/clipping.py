"""Norm clipping: no client's update is longer than a bound, so that none outweighs the others.

Sun, Kairouz, Suresh, McMahan: Can You Really Backdoor Federated Learning?, 2019 (arXiv); the same
step bounds the sensitivity in DP-FedAvg (McMahan, Ramage, Talwar, Zhang: Learning Differentially
Private Recurrent Language Models, ICLR 2018). The papers were not re-read.
"""

from __future__ import annotations

import math

from fedbench import Weights

from .vectors import squared_norm


def clip(update: Weights, bound: float) -> Weights:
    """Return ``D * min(1, bound / ||D||)``; the norm is over all tensors together, in float64.

    An update within the bound, 0 included, keeps its bits. The norm of a clipped one is the bound
    up to the rounding of its type.

    Args:
        update: D, the difference to the received weights, floating-point tensors by name.
        bound: S >= 0.
    """
    norm = math.sqrt(squared_norm(update))
    factor = 1.0 if norm <= bound else bound / norm
    return {k: d * factor for k, d in update.items()}
