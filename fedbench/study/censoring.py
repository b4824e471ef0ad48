"""Statistics of amounts of which some are known only to be larger than what was observed.

A run that ends without reaching a target is **censored**: it would have needed more than it spent.
Leaving it out, or counting what it spent, would favour the method that fails more often. Nothing is
assumed about censored amounts here beyond their lower bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median as middle

from scipy import stats

from . import statistics

MIN_DECIDED = 6
"""Seeds that the sign test needs: the first n with 2 / 2^n < 0.05."""


@dataclass(frozen=True)
class Amount:
    """An amount: exactly ``value``, or, where it is censored, more than ``value``."""

    value: float
    exact: bool = True


@dataclass(frozen=True)
class Versus:
    """The amounts of a method compared with those of a reference, seed by seed.

    Args:
        ratio: geometric mean of method over reference; below 1 the method needs less. ``None`` if
            an amount of a shared seed is censored, zero or infinite, or there is no such seed.
        low: lower end of the 95 % t-interval of the ratio, computed on logarithms; ``None`` as for
            `fedbench.study.statistics.Paired`.
        high: its upper end.
        wins: seeds on which the method needs less.
        ties: seeds on which both need the same, or censoring leaves open which needs less.
        losses: seeds on which the method needs more.
        p: two-sided p of the sign test on wins and losses; ``None`` with fewer than `MIN_DECIDED`.
        adjusted_p: p after Holm's correction over the methods; ``None`` if there is no p.
    """

    ratio: float | None
    low: float | None
    high: float | None
    wins: int
    ties: int
    losses: int
    p: float | None
    adjusted_p: float | None = None


def median(amounts: Sequence[Amount]) -> Amount:
    """Return the median, which is censored unless every outcome of the censored amounts yields it.

    The bound is the median of all amounts and bounds: no outcome yields less.

    Raises:
        ValueError: when there is no amount.
    """
    if not amounts:
        raise ValueError("a median needs at least one amount")
    least = middle(a.value for a in amounts)
    most = middle(a.value if a.exact else math.inf for a in amounts)
    return Amount(least, least == most)


def less(a: Amount, b: Amount) -> bool:
    """Return whether ``a`` is certainly less than ``b``.

    A censored ``b`` is more than its bound, so that it is also more than an exact ``a`` up to it.
    """
    if not a.exact:
        return False
    if b.exact:
        return a.value < b.value and not math.isclose(a.value, b.value, rel_tol=statistics.ROUNDING)
    return a.value <= b.value


def versus(method: Mapping[int, Amount], reference: Mapping[int, Amount]) -> Versus:
    """Compare two methods over the seeds that both have.

    The test is the sign test on the seeds whose order is known. It is what remains of the
    proportional hazards model for pairs that share everything but the method: with a stratum for
    each pair, the likelihood depends only on which of the two came first, and pairs in which that
    is censored drop out (Holt and Prentice, Biometrika 1974). Ranks of differences, as in
    Wilcoxon's test, are not defined where a difference is censored. The ratio with its interval is
    an estimate beside the test and needs every amount.

    Args:
        method: seed -> amount.
        reference: seed -> amount.
    """
    pairs = {seed: (method[seed], reference[seed]) for seed in method.keys() & reference.keys()}
    wins = sum(less(a, b) for a, b in pairs.values())
    losses = sum(less(b, a) for a, b in pairs.values())
    decided = wins + losses
    ratio, low, high = _ratio(pairs)
    p = float(stats.binomtest(wins, decided).pvalue) if decided >= MIN_DECIDED else None
    return Versus(ratio, low, high, wins, len(pairs) - decided, losses, p)


def _ratio(
    pairs: Mapping[int, tuple[Amount, Amount]],
) -> tuple[float | None, float | None, float | None]:
    """Return the geometric mean of first over second, and its interval."""
    if not all(one.exact and 0 < one.value < math.inf for pair in pairs.values() for one in pair):
        return None, None, None
    ours, theirs = ({seed: math.log(pair[n].value) for seed, pair in pairs.items()} for n in (0, 1))
    found = statistics.paired(ours, theirs)
    ratio, low, high = (
        None if v is None else math.exp(v) for v in (found.difference, found.low, found.high)
    )
    return ratio, low, high
