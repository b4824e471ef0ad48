"""The statistics of a comparison: intervals, paired tests, Holm's correction, mean ranks.

Pure functions on numbers that are already there. Values keep the unit that they come in (accuracies
are fractions of 1, not percent), intervals are two-sided at `CONFIDENCE`, p-values are two-sided.
``None`` stands for what the data cannot tell, and the note beside it says why. Every formula is
scipy's but Holm's, which scipy has not.

Accuracies are quotients of small integers, so equal differences are common and differ in the last
bits only. What agrees to `ROUNDING` of the largest value counts as equal here: without that, five
equal differences would give a t of 10^16 and ties would get different ranks.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..errors import did_you_mean

Floats = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)

Test = Literal["t", "wilcoxon"]
TEST_NAMES: Mapping[Test, str] = {"t": "the t-test", "wilcoxon": "Wilcoxon's test"}

DEFAULT_TEST: Test = "t"
DEFAULT_TEST_REASON = (
    "the paired t-test is exact for normal differences and has power from 3 seeds on; Wilcoxon's "
    "smallest p is 0.25 with 3 seeds and 0.0625 with 5, so it cannot reject at 5 % below 6 seeds"
)
"""Why `DEFAULT_TEST` is the default, for help texts and reports."""

CONFIDENCE = 0.95
"""Coverage of every interval."""

ROUNDING = 1e-12
"""Relative; above what sums of doubles lose, below what any test set resolves."""

MIN_SEEDS: Mapping[Test, int] = {"t": 3, "wilcoxon": 6}
"""Seeds that a test needs. For ``wilcoxon`` the first n with 2 / 2^n < 0.05; for ``t`` two degrees
of freedom, as the critical value with one is 12.7."""

MIN_METHODS, MIN_DATA_SETS = 3, 3
"""What the Friedman test needs: on two data sets, methods in the same order on both give p > 0.05
with up to 8 methods."""


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one sample.

    Args:
        mean: the arithmetic mean.
        std: sample standard deviation (``ddof=1``); ``None`` for a single value.
        n: how many values.
        low: lower end of the 95 % t-interval of the mean; ``None`` for a single value and for
            values that are all equal, which say nothing about the spread.
        high: its upper end.
    """

    mean: float
    std: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """A method compared with a reference, seed by seed.

    Args:
        difference: mean of method minus reference; ``None`` without a shared seed.
        low: lower end of the 95 % paired t-interval of the difference, whichever test was chosen;
            ``None`` below two shared seeds and when all differences are equal.
        high: its upper end.
        p: the test's two-sided p before any correction; ``None`` when the note says why.
        effect: Cohen's d_z, the mean difference over the standard deviation (``ddof=1``) of the
            differences; ``None`` as for ``low``.
        n: how many seeds are shared.
        note: what a reader has to know, clauses joined by semicolons; mostly empty.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    effect: float | None
    n: int
    note: str


@dataclass(frozen=True)
class Ranks:
    """Methods ranked on every data set.

    Args:
        ranks: method -> mean rank over the data sets, from 1, the best; ties share their mean.
        p: p of the Friedman test that all methods rank alike; ``None`` when the note says why.
        n: how many data sets.
        note: the test in words, never empty.
    """

    ranks: Mapping[str, float]
    p: float | None
    n: int
    note: str


def summary(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and the 95 % t-interval of the mean (Student 1908).

    Raises:
        ValueError: without a value, or when one is not finite.
    """
    if not len(values):
        raise ValueError("a summary needs at least one value")
    x = _finite(dict(enumerate(values)), "value")
    std = float(np.std(x, ddof=1)) if x.size > 1 else None
    low = high = None
    if np.ptp(x) > _slack(x):
        low, high = _interval(stats.ttest_1samp(x, 0.0))
    return Summary(float(x.mean()), std, x.size, low, high)


def paired(
    method: Mapping[int, float], reference: Mapping[int, float], test: Test = DEFAULT_TEST
) -> Paired:
    """Compare two methods over the seeds that both have; seeds are matched by key.

    ``t`` is the paired t-test (Student 1908), the default for the reason in `DEFAULT_TEST_REASON`.
    ``wilcoxon`` is the signed-rank test (Wilcoxon, Biometrics 1945), which drops seeds with a zero
    difference and is exact up to 13 seeds, up to 50 without ties and zeros. d_z: Cohen 1988;
    Lakens, Frontiers in Psychology 2013.

    Identical results on all seeds have p = 1, whatever the test: swapping the labels of any seed
    changes nothing. Equal differences other than zero leave the t-test without a spread, so p is
    ``None``.

    Args:
        method: seed -> value.
        reference: seed -> value.
        test: ``t`` or ``wilcoxon``.

    Raises:
        ValueError: for an unknown test, or a value that is not finite.
    """
    if test not in MIN_SEEDS:
        raise ValueError(f"unknown test {test!r}{did_you_mean(test, MIN_SEEDS)}")
    seeds = sorted(method.keys() & reference.keys())
    notes = _left_out(method, reference)
    n = len(seeds)
    if not n:
        return Paired(None, None, None, None, None, 0, "; ".join(["no shared seed", *notes]))
    a = _finite({seed: method[seed] for seed in seeds}, "method, seed")
    b = _finite({seed: reference[seed] for seed in seeds}, "reference, seed")
    d, slack = a - b, _slack(a, b)
    identical = bool(np.abs(d).max() <= slack)
    difference = 0.0 if identical else float(d.mean())
    low = high = effect = None
    t = stats.ttest_rel(a, b) if np.ptp(d) > slack else None  # without a spread there is no t
    if t is not None:
        low, high = _interval(t)
        effect = difference / float(np.std(d, ddof=1))
    if identical:
        notes.append(f"identical results on every seed (n = {n})")
    p, note = _p_value(test, d, slack, identical, None if t is None else float(t.pvalue))
    return Paired(difference, low, high, p, effect, n, "; ".join([*notes, *note]))


def _left_out(method: Mapping[int, float], reference: Mapping[int, float]) -> list[str]:
    """Name the seeds that only one of the two has."""
    sides = (
        ("method", reference.keys() - method.keys()),
        ("reference", method.keys() - reference.keys()),
    )
    return [
        f"seeds without the {name}, left out: {', '.join(map(str, sorted(missing)))}"
        for name, missing in sides
        if missing
    ]


def _p_value(
    test: Test, d: Floats, slack: float, identical: bool, t: float | None
) -> tuple[float | None, list[str]]:
    """Return the p-value of differences ``d`` (n,) and what has to be said of it.

    Args:
        test: ``t`` or ``wilcoxon``.
        d: the differences, seed by seed.
        slack: differences up to this come from rounding alone.
        identical: whether all of them do.
        t: the t-test's p-value; ``None`` when the differences have no spread.
    """
    n = len(d)
    if n < MIN_SEEDS[test]:
        lowest = f", Wilcoxon's smallest p is then {2 / 2**n:.2g}" if test == "wilcoxon" else ""
        return None, [f"no p: {TEST_NAMES[test]} needs {MIN_SEEDS[test]} seeds (n = {n}{lowest})"]
    if identical:
        return 1.0, []
    if test == "wilcoxon":
        steps = _snap(d, slack)
        zeros = int((steps == 0).sum())
        dropped = f"zero differences, dropped by {TEST_NAMES[test]}: {zeros} of {n}"
        return float(stats.wilcoxon(steps).pvalue), [dropped] if zeros else []
    if t is None:
        return None, [f"no p: the same difference on every seed (n = {n}), no spread to test with"]
    return t, []


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p: rejecting up to 0.05 keeps the family's error rate at 5 %.

    Step-down Bonferroni, valid under any dependence (Holm, Scandinavian Journal of Statistics
    1979): of m sorted p-values the i-th becomes ``max over j <= i of (m - j + 1) p_j``, at most 1.

    Args:
        p_values: a family; ``None`` stays ``None`` and does not count in m.

    Raises:
        ValueError: for a value outside [0, 1].
    """
    tested = [(p, place) for place, p in enumerate(p_values) if p is not None]
    for p, place in tested:
        if not 0 <= p <= 1:
            raise ValueError(f"p-value {place} is {p!r}, expected one in [0, 1]")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for done, (p, place) in enumerate(sorted(tested)):
        largest = max(largest, min(1.0, (len(tested) - done) * p))
        adjusted[place] = largest
    return adjusted


def wins_ties_losses(
    method: Mapping[K, float], reference: Mapping[K, float], tolerance: float = 0.0
) -> tuple[int, int, int]:
    """Count the shared keys, say (seed, domain), on which the method is above, level, below.

    Args:
        method: key -> value, higher is better; negate what should be low.
        reference: key -> value.
        tolerance: a difference up to this is a tie, in the unit of the values.

    Raises:
        ValueError: for a negative tolerance or a value that is not finite.
    """
    if not tolerance >= 0:
        raise ValueError(f"the tolerance is {tolerance!r}, expected 0 or more")
    keys = [key for key in method if key in reference]
    a = _finite({key: method[key] for key in keys}, "method,")
    b = _finite({key: reference[key] for key in keys}, "reference,")
    level = tolerance + ROUNDING * np.maximum(np.abs(a), np.abs(b))
    wins, losses = int((a - b > level).sum()), int((b - a > level).sum())
    return wins, len(keys) - wins - losses, losses


def mean_ranks(table: Mapping[str, Mapping[str, float]], *, higher_is_better: bool = True) -> Ranks:
    """Rank methods on each data set, average, and test whether they differ (Friedman 1937).

    As in Demsar, Journal of Machine Learning Research 2006, section 3.2.2, with scipy's correction
    for ties. The p-value is the chi-squared approximation, and the note says so below Demsar's rule
    of thumb of more than 10 data sets and 5 methods.

    Args:
        table: data set -> method -> value; every data set has the same methods.
        higher_is_better: whether rank 1 is the highest value.

    Raises:
        ValueError: for an empty table, a data set without one of the methods, or a value that is
            not finite.
    """
    methods = list(dict.fromkeys(m for row in table.values() for m in row))
    if not methods:
        raise ValueError("mean ranks need at least one data set with one method")
    rows = []
    for name, row in table.items():
        lacking = [m for m in methods if m not in row]
        if lacking:
            raise ValueError(f"data set {name!r} has no value for {', '.join(lacking)}")
        x = _finite({m: row[m] for m in methods}, f"{name},")
        rows.append(stats.rankdata((-1 if higher_is_better else 1) * _snap(x, _slack(x))))
    ranks = np.stack(rows)  # (data sets, methods)
    means = dict(zip(methods, ranks.mean(axis=0).tolist(), strict=True))
    n, k = ranks.shape
    size = f"{k} methods on {n} data sets"
    if k < MIN_METHODS or n < MIN_DATA_SETS:
        least = f"{MIN_METHODS} methods and {MIN_DATA_SETS} data sets"
        return Ranks(means, None, n, f"No Friedman test for {size}: it needs {least}")
    if np.ptp(ranks) == 0:
        return Ranks(means, 1.0, n, f"Friedman test, {size}: p = 1, all tie everywhere")
    p = float(stats.friedmanchisquare(*ranks.T).pvalue)
    note = f"Friedman test, {size}: {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}"
    if n <= 10 or k <= 5:
        note += " (chi-squared approximation, rough up to 10 data sets or 5 methods)"
    return Ranks(means, p, n, note)


def _finite(values: Mapping[K, float], what: str) -> Floats:
    for key, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{what} {key} is {value}, expected a finite number")
    return np.array(list(values.values()), dtype=np.float64)


def _slack(*samples: Floats) -> float:
    """Return how far two values, or two differences, may lie apart through rounding alone."""
    return ROUNDING * max(float(np.abs(x).max()) for x in samples)


def _snap(x: Floats, step: float) -> Floats:
    """Return ``x`` in whole steps, so that what differs through rounding alone is equal."""
    return np.round(x / step) if step else x


def _interval(result: Any) -> tuple[float, float]:
    low, high = result.confidence_interval(CONFIDENCE)
    return float(low), float(high)
