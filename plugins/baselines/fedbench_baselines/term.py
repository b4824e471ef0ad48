"""TERM: an aggregation that tilts the clients' weights towards high losses, or away from them.

Li, Beirami, Sanjabi, Smith: Tilted Empirical Risk Minimization, ICLR 2021. The formula is as
remembered; the paper was not re-read.

The released code divides by a running mean of earlier rounds' sums, so its weights need not add up
to 1; here they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import ClientResult, Search, ServerContext, ServerUpdate, Weights, hookimpl

from .fairness import Cohort, SendsLoss
from .vectors import accumulate


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


def tilted_mean(items: Iterable[tuple[Weights, float, float]], t: float) -> Weights:
    """Return ``sum_k p_k exp(t F_k) w_k / sum_k p_k exp(t F_k)``, summed in float64.

    These are the weights of `tilted_weights`, but each client is read once and not kept: the sums
    are scaled to the highest ``t F`` so far. With ``t`` 0 it is FedAvg's mean, bit for bit.

    Args:
        items: (w_k, F_k, p_k) with p_k > 0, at least one.
        t: the tilt.
    """
    sums, total, top = dict[str, Tensor](), 0.0, -math.inf
    for weights, loss, share in items:
        if t * loss > top:
            scale, top = math.exp(top - t * loss), t * loss
            total *= scale
            for value in sums.values():
                value.mul_(scale)
        factor = share * math.exp(t * loss - top)
        total += factor
        accumulate(sums, weights, factor)
    return {k: (sums[k] / total).to(w.dtype) for k, w in weights.items()}


@dataclass(frozen=True, eq=False)
class Term(SendsLoss):
    """Average the clients' parameters with tilted weights; buffers by number of examples."""

    t: Annotated[
        float,
        Field(
            ge=-1000,
            le=1000,
            description="the tilt: 0 is FedAvg, above 0 clients with a high loss count more",
        ),
        Search(low=0.1, high=10, scale="log"),
    ] = 1.0

    key: ClassVar[str] = "term.loss"

    @hookimpl
    def aggregate(self, ctx: ServerContext, results: Iterator[ClientResult]) -> ServerUpdate:
        cohort = Cohort(results, ctx.model, self.key)
        items = ((sent.parameters, sent.loss, sent.examples) for sent in cohort)
        weights = tilted_mean(items, self.t)
        return ServerUpdate(weights={**weights, **cohort.buffers()}, metrics=cohort.metrics("term"))
