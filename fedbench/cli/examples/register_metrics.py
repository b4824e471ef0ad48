"""A package with a metric: accuracy that gives every class the same weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbench import Unit, hookimpl
from fedbench.contracts import Metric

fedbench_api = 1


@dataclass(frozen=True, eq=False)
class Balanced:
    """The accuracy within each class, averaged over the classes in the test data."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[Unit] = "percent"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """Return the accuracy of class scores (N, C) for labels (N,)."""
        right = (scores.argmax(1) == labels).double()
        return float(sum(right[labels == c].mean() for c in labels.unique()) / len(labels.unique()))


@hookimpl
def register_metrics() -> Mapping[str, type[Metric]]:
    return {"balanced": Balanced}
