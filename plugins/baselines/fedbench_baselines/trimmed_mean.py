"""Trimmed mean: per coordinate, the mean without the largest and the smallest values.

Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates, ICML 2018. The paper was not re-read.

The authors of ALIE use the name for another estimator: the mean of the values nearest the median.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedbench import ClientResult, ConfigError, ServerState, Weights, hookimpl

from .robust import ONE_MEAN, ROLE, cohort, count


def trimmed_mean(points: Tensor, trim: int) -> Tensor:
    """Return the mean per coordinate, in float64, without the ``trim`` largest and smallest values.

    NaN sorts above infinity, so up to ``trim`` clients with NaN have no effect.

    Args:
        points: (K, n), one client's vector per row. All clients are needed at once, which takes the
            memory of K models, and twice more for sorting.
        trim: how many values to drop at each end, at least 0.

    Returns:
        (n,), of the same type.

    Raises:
        ConfigError: when no value would be left.
    """
    clients = len(points)
    if not 0 <= 2 * trim < clients:
        raise ConfigError(
            f"trimmed mean: {clients} clients have no mean without their {trim} largest and "
            f"{trim} smallest values; trim must be at least 0 and below half of the clients"
        )
    kept = points.sort(dim=0).values[trim : clients - trim]
    return kept.double().mean(dim=0).to(points.dtype)


@dataclass(frozen=True, eq=False)
class TrimmedMean:
    """Move the global weights by the mean of the clients' updates without the extreme values.

    Memory: all clients' updates at once, K models, and as much again for sorting.
    """

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_MEAN

    fraction: Annotated[
        float,
        Field(
            ge=0,
            lt=0.5,
            description="share of a round's clients to drop at each end of every coordinate, "
            "rounded down; at least the share of malicious clients",
        ),
    ] = 0.2

    @hookimpl
    def aggregate(self, state: ServerState, results: Iterator[ClientResult]) -> Weights:
        found = cohort(state, results)
        trim = count(self.fraction, len(found.clients))
        return found.moved(trimmed_mean(found.points, trim))
