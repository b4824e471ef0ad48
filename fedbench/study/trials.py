"""Trials of a search: what was tried, what came of it, and which one is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..config.yamlfile import inline
from .spaces import Values


@dataclass(frozen=True)
class Trial:
    """One set of values of a method's options, and what its runs scored.

    Args:
        number: from 0; 0 is the method's default.
        values: ``PLUGIN.OPTION`` -> the value that was tried.
        rounds: rounds that it is charged for, over its seeds; a failed trial is charged in full.
        score: validation score after all rounds, the mean over its seeds; ``None`` if it has none.
        curve: round -> validation score, where the search looked.
        error: why it failed; empty if it did not.
    """

    number: int
    values: Values
    rounds: int
    score: float | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    error: str = ""

    @property
    def status(self) -> Literal["complete", "pruned", "failed"]:
        """How it ended."""
        if self.error:
            return "failed"
        return "pruned" if self.score is None else "complete"


def key(values: Values) -> tuple[tuple[str, str], ...]:
    """Return what is equal for equal values."""
    return tuple(sorted((name, inline(value)) for name, value in values.items()))


def best(trials: Sequence[Trial], higher_is_better: bool) -> Trial:
    """Return the complete trial with the best score, the first of equals; else the default."""
    sign = 1 if higher_is_better else -1
    complete = [trial for trial in trials if trial.score is not None]
    return max(complete, key=lambda t: sign * (t.score or 0.0), default=trials[0])


def rank(trials: Sequence[Trial], of: Trial, higher_is_better: bool) -> int | None:
    """Return a trial's rank by score, 1 for the best; ``None`` for one without a score.

    Pruned and failed trials rank behind all others.
    """
    if of.score is None:
        return None
    sign = 1 if higher_is_better else -1
    scores = [sign * trial.score for trial in trials if trial.score is not None]
    return 1 + sum(score > sign * of.score for score in scores)
