"""The workloads' random pictures as fedbench data sets: `speed-w1`, `speed-w2` and short forms.

The folder of this file and `benchmarks/` must be on the path; the metadata beside it then makes
fedbench find it like any installed plugin package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from common import test_images, train_images
from torch import Tensor
from workloads import WORKLOADS, Workload

from fedbench import Dataset, Examples, hookimpl

fedbench_api = 1


@dataclass(frozen=True, eq=False)
class Pictures:
    """Random pictures of a benchmark's workload; nothing can be learned from them."""

    workload: ClassVar[Workload]

    def load(self, root: Path) -> Dataset:
        classes = tuple(map(str, range(self.workload.classes)))
        train = examples(*train_images(self.workload))
        return Dataset(classes, ("noise",), train, examples(*test_images(self.workload)))


def examples(pixels: Tensor, labels: Tensor) -> Examples:
    return Examples(pixels, labels, torch.zeros_like(labels))


@hookimpl
def register_datasets() -> Mapping[str, type]:
    return {
        f"speed-{name}": dataclass(frozen=True, eq=False)(
            type("Pictures", (Pictures,), {"workload": workload, "__doc__": Pictures.__doc__})
        )
        for name, workload in WORKLOADS.items()
    }
