"""TERM: an aggregation that tilts the clients' weights towards high losses, or away from them.

Li, Beirami, Sanjabi, Smith: Tilted Empirical Risk Minimization, ICLR 2021. The formula is as
remembered; the paper was not re-read.

The released code divides by a running mean of earlier rounds' sums, so its weights need not add up
to 1; here they do.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tilted_weights(losses: Tensor, shares: Tensor, t: float) -> Tensor:
    """Return ``p_k exp(t F_k) / sum_j p_j exp(t F_j)``, without overflow, computed in float64.

    With ``t`` 0 these are the shares, as in FedAvg. Clients with a high loss count more if
    ``t > 0``, those with a low loss if ``t < 0``.

    Args:
        losses: F, (K,) floating-point.
        shares: p, (K,), at least 0 and not all 0: shares or numbers of examples.
        t: the tilt.

    Returns:
        (K,), of the type of ``losses``; a client with a share of 0 gets 0.
    """
    return torch.softmax(shares.double().log() + t * losses.double(), dim=0).to(losses.dtype)
