"""FedDecorr: features of a client should not be correlated, as skewed labels make them collapse.

Shi, Liang, Zhang, Xu, Tan, Bai: Towards Understanding and Mitigating Dimensional Collapse in
Heterogeneous Federated Learning, ICLR 2023.

The loss is that of the released code, to which the published results belong. It does not divide
the correlations by the batch size before squaring, so it is about B times the mean squared
correlation and its effective weight grows with the batch. The paper's formula, as it is remembered
(its text was not re-read), is the squared Frobenius norm of the correlation matrix over ``d^2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedbench import Output, Search, hookimpl


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


@dataclass(frozen=True, eq=False)
class FedDecorr:
    """Add ``beta`` times the decorrelation loss of the features."""

    beta: Annotated[
        float,
        Field(
            ge=0,
            description="weight of the term; 0.1 in the released code, 0.05 there for CIFAR-100",
        ),
        Search(low=0.01, high=0.5, scale="log"),
    ] = 0.1

    @hookimpl
    def local_loss(self, output: Output) -> Mapping[str, Tensor]:
        return {"feddecorr": self.beta * decorrelation_loss(output.features)}
