"""The mean reciprocal rank of the right class."""

from dataclasses import dataclass
from typing import ClassVar

from fedbench import Unit


@dataclass(frozen=True, eq=False)
class MeanReciprocalRank:
    """The mean over the examples of one over the rank of the right class, in (0, 1]."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[Unit] = "plain"

    def __call__(self, scores, labels):
        """Return it for scores (N, C) and labels (N,); of equal scores the right one ranks last."""
        right = scores.gather(1, labels[:, None])
        return float((1 / (scores >= right).sum(1).double()).mean())
