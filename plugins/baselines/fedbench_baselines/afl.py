"""AFL: the mixture of clients with the highest loss is minimised, so the worst client counts.

Mohri, Sivek, Suresh: Agnostic Federated Learning, ICML 2019. What is said of the paper here is from
memory; it was not re-read.

The shares of the clients move by ``lambda <- project_simplex(lambda + lr * F)``, where F are their
losses at the received weights. The paper makes one gradient step per client and round and returns
the average of all rounds' weights. Local epochs between two averages, as in this benchmark, are not
in it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def project_simplex(values: Tensor) -> Tensor:
    """Return the point nearest to ``values`` whose entries are at least 0 and add up to 1.

    The entries above a threshold are lowered by it and the others become 0; the threshold is found
    by sorting, in float64 (the algorithm of Duchi, Shalev-Shwartz, Singer, Chandra, ICML 2008).

    Args:
        values: (K,), floating-point and finite, K >= 1.

    Returns:
        (K,), of the same type.
    """
    # The projection ignores a constant added to all entries; this one keeps sums of large ones.
    shifted = values.double() - values.double().max()
    ordered = shifted.sort(descending=True).values
    place = torch.arange(1, len(values) + 1, device=values.device)
    thresholds = (ordered.cumsum(0) - 1) / place
    last = (ordered > thresholds).sum() - 1
    return (shifted - thresholds[last]).clamp(min=0).to(values.dtype)
