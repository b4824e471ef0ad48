"""A package with a data set: two clouds of points whose noise differs between domains."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from fedbench import Dataset, Examples, hookimpl
from fedbench.contracts import DataSource

fedbench_api = 1


@dataclass(frozen=True, eq=False)
class Clouds:
    """Points (N, 2) of two classes in two domains, one clean and one noisy."""

    examples: Annotated[int, Field(ge=2, description="training examples per domain")] = 40

    def load(self, root: Path) -> Dataset:
        """Return the data set; it does not need any file below ``root``."""
        rng = torch.Generator().manual_seed(0)  # a run's seed does not change the data

        def draw(size: int) -> Examples:
            labels = torch.arange(2 * size) % 2
            domains = torch.arange(2 * size) // size
            noise = torch.randn(2 * size, 2, generator=rng) * (1 + domains[:, None])
            return Examples(4.0 * labels[:, None] + noise, labels, domains)

        return Dataset(("low", "high"), ("clean", "noisy"), draw(self.examples), draw(20))


@hookimpl
def register_datasets() -> Mapping[str, type[DataSource]]:
    return {"clouds": Clouds}
