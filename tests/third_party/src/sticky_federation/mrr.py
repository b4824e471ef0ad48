"""The mean reciprocal rank of the right class."""

from dataclasses import dataclass
from typing import ClassVar

from fedbench import Unit


@dataclass(frozen=True, eq=False)
class MeanReciprocalRank:
    """One over the place of the right class among all scores, averaged over the examples."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[Unit] = "plain"

    def __call__(self, scores, labels):
        """Return the mean over (N, C) scores and (N,) labels; classes with equal scores tie low."""
        right = scores.gather(1, labels[:, None])
        return float((1 / (scores >= right).sum(1).double()).mean())
