"""Coordinate median: per coordinate, the median of the clients' values.

Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates, ICML 2018. The paper was not re-read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbench import ClientResult, ServerState, Weights, hookimpl

from .robust import ONE_MEAN, ROLE, cohort
from .trimmed_mean import trimmed_mean


def coordinate_median(points: Tensor) -> Tensor:
    """Return the median per coordinate; for an even K, the mean of the two middle values.

    (`torch.median` returns the lower one of the two.) NaN sorts above infinity, so fewer than half
    of the clients cannot make the result NaN.

    Args:
        points: (K, n), one client's vector per row, K >= 1; memory as for `trimmed_mean`.

    Returns:
        (n,), of the same type.
    """
    return trimmed_mean(points, (len(points) - 1) // 2)


@dataclass(frozen=True, eq=False)
class Median:
    """Move the global weights by the coordinate median of the clients' updates.

    Memory: all clients' updates at once, K models, and as much again for sorting.
    """

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_MEAN

    @hookimpl
    def aggregate(self, state: ServerState, results: Iterator[ClientResult]) -> Weights:
        found = cohort(state, results)
        return found.moved(coordinate_median(found.points))
