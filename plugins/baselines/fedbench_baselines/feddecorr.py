"""FedDecorr: features of a client should not be correlated, as skewed labels make them collapse.

Shi, Liang, Zhang, Xu, Tan, Bai: Towards Understanding and Mitigating Dimensional Collapse in
Heterogeneous Federated Learning, ICLR 2023.

The loss is that of the released code, to which the published results belong. It does not divide
the correlations by the batch size before squaring, so it is about B times the mean squared
correlation and its effective weight grows with the batch. The paper's formula, as it is remembered
(its text was not re-read), is the squared Frobenius norm of the correlation matrix over ``d^2``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def decorrelation_loss(features: Tensor) -> Tensor:
    """Return the mean squared off-diagonal entry of ``x^T x``, divided by B, a scalar.

    Here ``x`` is each feature standardised over the batch: ``(z - mean) / sqrt(var + 1e-8)`` with
    the unbiased variance. A single sample or a constant feature adds nothing.

    Args:
        features: z, (B, d), the input of the classifier.
    """
    size, d = features.shape
    centred = features - features.mean(dim=0)
    # Not `var`, which is NaN for one sample.
    variance = centred.square().sum(dim=0) / max(size - 1, 1)
    x = centred / (variance + 1e-8).sqrt()
    products = (x.T @ x) * (1 - torch.eye(d, dtype=x.dtype, device=x.device))
    return products.square().sum() / (max(d * (d - 1), 1) * size)
