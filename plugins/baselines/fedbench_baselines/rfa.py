"""RFA: the geometric median of the clients' vectors, by a few smoothed Weiszfeld steps.

Pillutla, Kakade, Harchaoui: Robust Aggregation for Federated Learning, IEEE Transactions on Signal
Processing 2022. The paper was not re-read; iteration and stopping rule are those of the released
code (4 iterations, smoothing 1e-5, tolerance 1e-6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedbench import ClientResult, ServerState, Weights, hookimpl

from .robust import ONE_MEAN, ROLE, cohort


def geometric_median(
    points: Tensor, shares: Tensor, iterations: int, smoothing: float, tolerance: float
) -> Tensor:
    """Return nearly the point z with the least ``sum_k a_k ||z - x_k||``, computed in float64.

    z starts at the weighted mean. Every iteration moves it to the mean of the points weighted with
    ``a_k / max(smoothing, ||z - x_k||)``.

    Args:
        points: x, (K, n), one client's vector per row. All clients are needed at once, in float64,
            which takes the memory of 2 K models of float32.
        shares: a, (K,), at least 0 and not all 0: shares or numbers of examples.
        iterations: the most iterations, at least 0; 0 returns the weighted mean.
        smoothing: nu > 0, the distance below which a point's weight grows no further.
        tolerance: stop when an iteration changes the sum by less than this share of it.

    Returns:
        (n,), of the type of ``points``.
    """
    wide = points.double()
    weights = shares.double() / shares.double().sum()

    def distances(center: Tensor) -> Tensor:
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(center[None], wide, compute_mode=exact)[0]

    center = weights @ wide
    far = distances(center)
    for _ in range(iterations):
        pull = weights / far.clamp(min=smoothing)
        center = pull @ wide / pull.sum()
        before, far = weights @ far, distances(center)
        now = weights @ far
        if abs(float(before - now)) < tolerance * float(now):
            break
    return center.to(points.dtype)


@dataclass(frozen=True, eq=False)
class GeometricMedian:
    """Move the global weights by the geometric median of the clients' updates.

    Memory: all clients' updates at once, K models, and twice as much again for the distances.
    """

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_MEAN

    weights: Annotated[
        Literal["examples", "uniform"],
        Field(description="what a client counts: as many examples as it says, or all alike"),
    ] = "examples"
    iterations: Annotated[int, Field(ge=1, description="the most Weiszfeld steps")] = 4
    smoothing: Annotated[
        float, Field(gt=0, description="distance below which a client's pull grows no further")
    ] = 1e-5
    tolerance: Annotated[
        float, Field(ge=0, description="stop when a step changes the sum by less than this share")
    ] = 1e-6

    @hookimpl
    def aggregate(self, state: ServerState, results: Iterator[ClientResult]) -> Weights:
        found = cohort(state, results)
        by_examples = self.weights == "examples"
        shares = found.examples if by_examples else torch.ones_like(found.examples)
        rule = self.iterations, self.smoothing, self.tolerance
        return found.moved(geometric_median(found.points, shares, *rule))
