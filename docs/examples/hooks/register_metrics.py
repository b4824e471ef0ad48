"""A package with a metric: accuracy that counts every class the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbench import Unit, hookimpl

fedbench_api = 1


@dataclass(frozen=True, eq=False)
class Balanced:
    """The mean, over the classes that the test data have, of the accuracy within the class."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[Unit] = "percent"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """Score (N, C) against (N,)."""
        right = (scores.argmax(1) == labels).double()
        return float(sum(right[labels == c].mean() for c in labels.unique()) / len(labels.unique()))


@hookimpl
def register_metrics() -> Mapping[str, type]:
    return {"balanced": Balanced}
