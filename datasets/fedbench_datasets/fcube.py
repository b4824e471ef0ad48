"""FCUBE, the generated points in a cube of NIID-Bench (Li et al., ICDE 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from fedbench.types import Dataset, Examples

PER_DOMAIN, TEST = 1000, 1000

Floats: TypeAlias = npt.NDArray[np.float64]


def of_points(points: Floats) -> Examples:
    """Return points (N, 3) as examples: class 1 where x1 <= 0, and the domain of their octant.

    The domain is ``2 a + b``, where a says whether the signs of x1 and x2 differ, and b those of x1
    and x3, so that a point and its opposite, ``-x``, are in the same one.
    """
    positive = points > 0
    differ = positive[:, 1:] != positive[:, :1]
    return Examples(
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(np.where(positive[:, 0], 0, 1)),
        torch.from_numpy(differ @ np.array([2, 1])),
    )


@dataclass(frozen=True, eq=False)
class Fcube:
    """NIID-Bench's FCUBE: generated points in a cube, two classes, four pairs of opposite octants.

    The points are uniform in the cube from -1 to 1. The plane x1 = 0 divides it into the classes,
    ``0`` where x1 > 0. A domain is an octant and its opposite, named by the signs of x1, x2, x3 in
    both; with one client for each domain, clients differ in their features and all have both
    classes evenly. Each domain has 1,000 training points, 500 in each octant. The 1,000 test points
    are drawn from the whole cube. Inputs are float32 (N, 3).
    """

    name: ClassVar[str] = "fcube"
    size: ClassVar[str] = "4,000 + 1,000 points"
    card: ClassVar[str] = "fcube-niid-bench"
    default: ClassVar[bool]
    embedded: ClassVar[bool] = True
    licence: ClassVar[str] = "Apache-2.0"
    source: ClassVar[str] = "generated; Li et al., ICDE 2022, and their released code"
    domains: ClassVar[tuple[str, ...]] = ("+++ ---", "++- --+", "+-+ -+-", "+-- -++")
    classes: ClassVar[tuple[str, ...]] = ("0", "1")

    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="of the data; the run's seed does not change them")
    ] = 0

    def load(self, root: Path) -> Dataset:
        """Generate the data; ``root`` is not used."""
        # NumPy promises the numbers of this generator for all versions, but not default_rng's.
        rng = np.random.RandomState(self.seed)
        octants = [[1.0 if sign == "+" else -1.0 for sign in name[:3]] for name in self.domains]
        signs = np.repeat(octants, PER_DOMAIN, axis=0)
        signs[1::2] *= -1  # every other point is in the opposite octant
        train = signs * (1 - rng.random_sample(signs.shape))  # never 0, which has no octant
        test = 1 - 2 * rng.random_sample((TEST, 3))
        return Dataset(self.classes, self.domains, of_points(train), of_points(test))
