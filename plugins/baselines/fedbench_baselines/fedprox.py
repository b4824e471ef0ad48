"""FedProx: FedAvg with a proximal term that keeps local weights near the received ones.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks,
MLSys 2020, equation 2.

The authors do not recommend one ``mu`` for all data; they try 0.001, 0.01, 0.1 and 1. The default,
0.01, is the value that FPL's authors set for this baseline on Digits and Office-Caltech. Their code
multiplies it by another 0.01/2, so what they ran is ``mu: 0.0001``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedbench import ClientContext, Search, hookimpl

SCRATCH, STRENGTH = "fedprox.anchor", "fedprox.mu"
"""What a client's scratch has in its turn: the received parameters, and `FedProx.mu`."""


def proximal_term(params: Iterable[Tensor], anchor: Iterable[Tensor]) -> Tensor:
    """Return ``1/2 * ||w - w_t||^2`` over all parameters, a scalar.

    Args:
        params: the local trainable parameters w.
        anchor: the received parameters w_t, in the same order, without gradient.
    """
    squares = [(w - a).square().sum() for w, a in zip(params, anchor, strict=True)]
    return torch.stack(squares).sum() / 2


@dataclass(frozen=True, eq=False)
class FedProx:
    """Add ``mu/2 * ||w - w_t||^2`` over trainable parameters; ``mu = 0`` is FedAvg, bit for bit."""

    mu: Annotated[
        float,
        Field(
            ge=0, description="weight of the term; choose it for the data, from 0.001, 0.01, 0.1, 1"
        ),
        Search(choices=(0.001, 0.01, 0.1, 1.0)),
    ] = 0.01

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        ctx.scratch[SCRATCH] = [p.detach().clone() for p in ctx.model.parameters()]
        ctx.scratch[STRENGTH] = self.mu
        return (yield)

    @hookimpl
    def local_loss(self, ctx: ClientContext) -> Mapping[str, Tensor]:
        if self.mu == 0 or SCRATCH not in ctx.scratch:  # outside of a turn nothing is received
            return {}
        received: list[Tensor] = ctx.scratch[SCRATCH]
        both = zip(ctx.model.parameters(), received, strict=True)
        params, anchor = zip(*((p, a) for p, a in both if p.requires_grad), strict=True)
        return {"fedprox": self.mu * proximal_term(params, anchor)}
