"""Krum and Multi-Krum: keep the clients whose vectors lie nearest to most of the others.

Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent, NeurIPS 2017. The paper was not re-read.

Krum returns the vector with the lowest score, Multi-Krum the plain mean of the m lowest. Scores sum
*squared* distances to the ``K - f - 2`` nearest others. ALIE's authors sum unsquared distances to
``K - f`` others; another public version squares twice and returns the sum of the m vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientResult,
    ConfigError,
    ServerContext,
    ServerState,
    ServerUpdate,
    hookimpl,
)

from .robust import ONE_MEAN, ROLE, cohort, count


def check_clients(clients: int, byzantine: int) -> None:
    """Raise a `ConfigError` when ``clients < 2 byzantine + 3`` or ``byzantine < 0``."""
    if byzantine < 0 or clients < 2 * byzantine + 3:
        raise ConfigError(
            f"krum: byzantine = {byzantine} needs at least {2 * max(byzantine, 0) + 3} clients in "
            f"every round, and there are {clients}; byzantine, in a run the option fraction times "
            "the clients, must be from 0 to (clients - 3) / 2"
        )


def scores(points: Tensor, byzantine: int) -> Tensor:
    """Return each client's sum of squared distances to its ``K - byzantine - 2`` nearest others.

    Distances are over the whole vector, in float64, and exactly 0 between equal vectors.

    Args:
        points: (K, n), one client's vector per row. All clients are needed at once, in float64,
            which takes the memory of 2 K models of float32.
        byzantine: f, how many clients may be malicious.

    Returns:
        (K,), of the same type; low is good.

    Raises:
        ConfigError: when ``K < 2 f + 3`` or ``f < 0``.
    """
    clients = len(points)
    check_clients(clients, byzantine)
    wide = points.double()
    distances = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").square()
    others = distances.fill_diagonal_(torch.inf).sort(dim=1).values
    return others[:, : clients - byzantine - 2].sum(dim=1).to(points.dtype)


def select(points: Tensor, byzantine: int, keep: int) -> Tensor:
    """Return the ``keep`` clients with the lowest scores, best first; of equal ones, the earlier.

    Args:
        points: (K, n), as in `scores`.
        byzantine: f, as in `scores`.
        keep: m, from 1 to K; 1 is Krum.

    Returns:
        (keep,) int64, rows of ``points``.

    Raises:
        ConfigError: as in `scores`, and when ``keep`` is not from 1 to K.
    """
    if not 1 <= keep <= len(points):
        raise ConfigError(f"krum: keep = {keep} must be from 1 to {len(points)}, the clients")
    # As float64: two scores that differ must not become equal by rounding.
    return scores(points.double(), byzantine).sort(stable=True).indices[:keep]


@dataclass(frozen=True, eq=False)
class _Krum:
    """What Krum and Multi-Krum share.

    Memory: all clients' updates at once, K models, and twice as much again for the distances.
    """

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_MEAN

    fraction: Annotated[
        float,
        Field(
            ge=0,
            lt=0.5,
            description="share of a round's clients that may be malicious; byzantine is that many "
            "clients, rounded down, and a round needs 2 byzantine + 3",
        ),
    ] = 0.2

    @hookimpl
    def run_start(self, ctx: ServerContext) -> None:
        # No round can have more clients; a round with fewer is checked when it is played.
        check_clients(ctx.num_clients, count(self.fraction, ctx.num_clients))


@dataclass(frozen=True, eq=False)
class Krum(_Krum):
    """Move the global weights by one client's update: the one nearest to most of the others.

    The metric ``krum.client`` is the id of the client that was chosen.
    """

    @hookimpl
    def aggregate(self, state: ServerState, results: Iterator[ClientResult]) -> ServerUpdate:
        found = cohort(state, results)
        best = int(select(found.points, count(self.fraction, len(found.clients)), 1))
        metrics = {"krum.client": float(found.clients[best])}
        return ServerUpdate(weights=found.moved(found.points[best]), metrics=metrics)


@dataclass(frozen=True, eq=False)
class MultiKrum(_Krum):
    """Move the global weights by the plain mean of the updates that are nearest to most others.

    The metric ``multi_krum.client.ID`` is 1 when that client of the round was chosen, 0 otherwise.
    """

    keep: Annotated[
        int | None,
        Field(
            ge=1,
            description="how many clients to choose; by default as many as each one is compared "
            "with, the clients of the round minus byzantine minus 2",
        ),
    ] = None

    @hookimpl
    def aggregate(self, state: ServerState, results: Iterator[ClientResult]) -> ServerUpdate:
        found = cohort(state, results)
        clients = len(found.clients)
        byzantine = count(self.fraction, clients)
        check_clients(clients, byzantine)
        chosen = select(found.points, byzantine, self.keep or clients - byzantine - 2)
        mean = found.points[chosen].double().mean(dim=0).to(found.points.dtype)
        metrics = {f"multi_krum.client.{c}": 0.0 for c in found.clients}
        metrics |= {f"multi_krum.client.{found.clients[i]}": 1.0 for i in chosen.tolist()}
        return ServerUpdate(weights=found.moved(mean), metrics=metrics)
