"""The statistics of a comparison: intervals, paired tests, Holm's correction, mean ranks.

Pure functions on numbers. Values keep their unit (accuracies are fractions of 1, not percent);
intervals are two-sided at `CONFIDENCE`, and p-values are two-sided. ``None`` stands for what the
data cannot tell, and the note next to it says why. Every formula is SciPy's except Holm's, which
SciPy does not have.

Accuracies are quotients of small integers, so equal differences are common and may differ in the
last bits. Values that agree to within `ROUNDING` of the largest count as equal here; otherwise,
five equal differences would yield a t of 10^16, and ties would get different ranks.
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
"""Relative; larger than the rounding errors of sums, smaller than any test set resolves."""

MIN_SEEDS: Mapping[Test, int] = {"t": 3, "wilcoxon": 6}
"""Seeds that a test needs: for ``wilcoxon``, the first n with 2 / 2^n < 0.05; for ``t``, two
degrees of freedom, because the critical value with one is 12.7."""

MIN_METHODS, MIN_DATA_SETS = 3, 3
"""What the Friedman test needs: if two data sets rank up to 8 methods identically, p > 0.05."""


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one sample.

    Args:
        mean: the arithmetic mean.
        std: sample standard deviation (``ddof=1``); ``None`` for a single value.
        n: the number of values.
        low: lower end of the 95 % t-interval of the mean; ``None`` for a single value, and if all
            values are equal, because they say nothing about the spread.
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
        difference: mean of method minus reference; ``None`` if they share no seed.
        low: lower end of the 95 % paired t-interval of the difference, whichever test was chosen;
            ``None`` with fewer than two shared seeds, and if all differences are equal.
        high: its upper end.
        p: the test's two-sided p before any correction; if ``None``, the note says why.
        effect: Cohen's d_z, the mean difference over the standard deviation (``ddof=1``) of the
            differences; ``None`` as for ``low``.
        n: the number of shared seeds.
        note: what a reader has to know, in clauses joined by semicolons; usually empty.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    effect: float | None
    n: int
    note: str

    def __str__(self) -> str:
        """Return the difference, with its interval if it has one: ``+1.20 (-0.31 to +2.71)``."""
        if self.difference is None:
            return ""
        interval = "" if self.low is None else f" ({self.low:+.2f} to {self.high:+.2f})"
        return f"{self.difference:+.2f}{interval}"


@dataclass(frozen=True)
class Ranks:
    """Methods ranked on every data set, or on every other block of paired values.

    Args:
        ranks: method -> mean rank over the blocks; 1 is the best, and ties share their mean.
        p: p of the Friedman test, whose null hypothesis is that all methods rank equally; if
            ``None``, the note says why.
        critical_difference: see `critical_difference`; ``None`` where p is.
        n: the number of blocks.
        note: the tests in words, never empty.
    """

    ranks: Mapping[str, float]
    p: float | None
    critical_difference: float | None
    n: int
    note: str


def summary(values: Sequence[float]) -> Summary:
    """Return the mean, the standard deviation and the 95 % t-interval of the mean (Student 1908).

    Raises:
        ValueError: when there is no value, or one is not finite.
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
    """Compare two methods over the seeds that both have.

    ``t`` is the paired t-test (Student 1908), the default for the reason in `DEFAULT_TEST_REASON`.
    ``wilcoxon`` is the signed-rank test (Wilcoxon, Biometrics 1945), which drops seeds with a zero
    difference and is exact up to 13 seeds, or up to 50 without ties and zeros. d_z: Cohen 1988;
    Lakens, Frontiers in Psychology 2013.

    If the results are identical on all seeds, p = 1 with either test, because swapping the labels
    of any seed changes nothing. If all differences are equal but not zero, the t-test has no spread
    to work with, and p is ``None``.

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
    """Return a note on the seeds that only one of the two has."""
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
    """Return the p-value of the differences ``d`` (n,), and notes on it.

    Args:
        test: ``t`` or ``wilcoxon``.
        d: the differences, seed by seed.
        slack: differences up to this size are rounding errors.
        identical: whether all of them are.
        t: the t-test's p-value; ``None`` if the differences have no spread.
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
    """Return Holm's adjusted p-values; rejecting up to 0.05 keeps the family's error rate at 5 %.

    Step-down Bonferroni, valid under any dependence (Holm, Scandinavian Journal of Statistics
    1979): the i-th of m sorted p-values becomes ``max over j <= i of (m - j + 1) p_j``, at most 1.

    Args:
        p_values: one family; ``None`` stays ``None`` and does not count towards m.

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
    """Count the shared keys, such as (seed, domain), on which the method wins, ties and loses.

    Args:
        method: key -> value; higher is better, so values that should be low have to be negated.
        reference: key -> value.
        tolerance: differences up to this are ties, in the unit of the values.

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


def complete(values: Mapping[str, Mapping[K, float]]) -> dict[str, dict[str, float]]:
    """Return block -> method -> value, for the methods that have a value on every block.

    Args:
        values: method -> block -> value; a block is a seed, or the number of a setting.
    """
    blocks = list(dict.fromkeys(block for found in values.values() for block in found))
    whole = {method: found for method, found in values.items() if len(found) == len(blocks)}
    return {str(block): {m: found[block] for m, found in whole.items()} for block in blocks}


def mean_ranks(
    table: Mapping[str, Mapping[str, float]],
    *,
    higher_is_better: bool = True,
    blocks: str = "data sets",
) -> Ranks:
    """Rank methods on each data set, average the ranks, and test for a difference (Friedman 1937).

    As in Demsar, Journal of Machine Learning Research 2006, section 3.2.2, with SciPy's correction
    for ties. The p-value is the chi-squared approximation; the note says so unless there are more
    than 10 data sets and 5 methods, Demsar's rule of thumb.

    Args:
        table: data set -> method -> value; every data set has the same methods.
        higher_is_better: whether rank 1 is the highest value.
        blocks: what the note calls data sets, where the blocks are something else.

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
    size = f"{k} methods on {n} {blocks}"
    if k < MIN_METHODS or n < MIN_DATA_SETS:
        least = f"{MIN_METHODS} methods and {MIN_DATA_SETS} {blocks}"
        return Ranks(means, None, None, n, f"No Friedman test for {size}: it needs {least}")
    critical = critical_difference(k, n)
    if np.ptp(ranks) == 0:
        note = f"Friedman test, {size}: p = 1, all tie everywhere"
        return Ranks(means, 1.0, critical, n, note)
    p = float(stats.friedmanchisquare(*ranks.T).pvalue)
    note = f"Friedman test, {size}: {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}"
    if n <= 10 or k <= 5:
        note += f" (chi-squared approximation, rough up to 10 {blocks} or 5 methods)"
    note += f"; Nemenyi's critical difference of mean ranks at 5 %: {critical:.2f}"
    return Ranks(means, p, critical, n, note)


def critical_difference(methods: int, data_sets: int) -> float:
    """Return by how much two mean ranks must differ to be significant at 5 % (Nemenyi 1963).

    ``q sqrt(k (k + 1) / 6 n)`` for k methods on n data sets, where q is the 95 % quantile of the
    studentized range of k means with infinite degrees of freedom, over the square root of 2
    (Demsar, Journal of Machine Learning Research 2006, section 3.2.2 and Table 5). It covers all
    pairs of methods at once.
    """
    q = stats.studentized_range.ppf(CONFIDENCE, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * data_sets)))


def not_told_apart(ranks: Ranks) -> list[list[str]]:
    """Return the largest sets of methods, best first, of which no two differ significantly.

    Two methods differ if their mean ranks are at least the critical difference apart. Nemenyi's
    test follows only a Friedman test that rejects; otherwise all methods are one set. A method that
    differs from every other is in no set.

    Raises:
        ValueError: for ranks without a test.
    """
    if ranks.p is None or ranks.critical_difference is None:
        raise ValueError(ranks.note)
    order = sorted(ranks.ranks, key=lambda method: ranks.ranks[method])
    if ranks.p >= 0.05:
        return [order]
    found: list[list[str]] = []
    for first, method in enumerate(order):
        limit = ranks.ranks[method] + ranks.critical_difference
        alike = [other for other in order[first:] if ranks.ranks[other] < limit]
        if len(alike) > 1 and not (found and alike[-1] in found[-1]):
            found.append(alike)
    return found


def _finite(values: Mapping[K, float], what: str) -> Floats:
    for key, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{what} {key} is {value}, expected a finite number")
    return np.array(list(values.values()), dtype=np.float64)


def _slack(*samples: Floats) -> float:
    """Return by how much two values, or two differences, may differ through rounding alone."""
    return ROUNDING * max(float(np.abs(x).max()) for x in samples)


def _snap(x: Floats, step: float) -> Floats:
    """Return ``x`` in whole steps, so that values that differ only through rounding are equal."""
    return np.round(x / step) if step else x


def _interval(result: Any) -> tuple[float, float]:
    low, high = result.confidence_interval(CONFIDENCE)
    return float(low), float(high)
