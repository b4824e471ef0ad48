"""AFL: the mixture of clients with the highest loss is minimised, so the worst client counts.

Mohri, Sivek, Suresh: Agnostic Federated Learning, ICML 2019. What is said of the paper here is from
memory; it was not re-read.

The shares of the clients move by ``lambda <- project_simplex(lambda + lr * F)``, where F are their
losses at the received weights. The paper makes one gradient step per client and round and returns
the average of all rounds' weights. Local epochs between two averages, as in this benchmark, are not
in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import ClientResult, Search, ServerContext, ServerState, ServerUpdate, Value, hookimpl

from .fairness import Cohort, SendsLoss
from .fedavg import weighted_mean

SHARES = "afl.shares"
TINY = 1e-12
"""The least weight in the mean, which so exists also when all clients of a round have share 0."""


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


def moved_shares(shares: Tensor, losses: Mapping[int, float], lr: float) -> Tensor:
    """Return the shares after one step towards high losses.

    With all clients these are ``project_simplex(shares + lr * F)``. Otherwise only the shares of
    the clients in ``losses`` change, and their sum stays the same.

    Args:
        shares: (N,) float64, at least 0, by client id.
        losses: client id -> F.
        lr: the step size.
    """
    clients = torch.tensor(list(losses), dtype=torch.int64)
    values = torch.tensor(list(losses.values()), dtype=shares.dtype)
    mass = shares[clients].sum()
    if mass == 0:
        return shares
    moved = mass * project_simplex((shares[clients] + lr * values) / mass)
    return shares.index_copy(0, clients, moved)


@dataclass(frozen=True, eq=False)
class Afl(SendsLoss):
    """Weigh the clients' parameters by shares that move towards the clients with a high loss.

    Buffers are averaged by number of examples. The method needs every client in every round. With
    a sample of them, only their shares move, and the mean is over them; a warning says so.
    """

    lr: Annotated[
        float,
        Field(gt=0, description="step size of the shares; 0.1 or 0.01 in others' code"),
        Search(choices=(0.01, 0.1)),
    ] = 0.1

    key: ClassVar[str] = "afl.loss"

    @hookimpl
    def init_server(self, ctx: ServerContext) -> Mapping[str, Value]:
        return {SHARES: torch.full((ctx.num_clients,), 1 / ctx.num_clients, dtype=torch.float64)}

    @hookimpl(wrapper=True)
    def select_clients(self, ctx: ServerContext) -> Generator[None, Sequence[int], Sequence[int]]:
        chosen = yield
        if len(chosen) < ctx.num_clients:
            warnings.warn(
                "afl is defined for rounds with all clients; with a sample, only its clients' "
                "shares change (uniform.fraction=1 selects all)",
                stacklevel=1,
            )
        return chosen

    @hookimpl
    def aggregate(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> ServerUpdate:
        shares = state.entries.tensor(SHARES)
        cohort = Cohort(results, ctx.model, self.key)
        weights = weighted_mean(
            (sent.parameters, max(float(shares[sent.client]), TINY)) for sent in cohort
        )
        return ServerUpdate(
            weights={**weights, **cohort.buffers()},
            entries={SHARES: moved_shares(shares, cohort.losses, self.lr)},
            metrics=cohort.metrics("afl"),
        )
