"""Intervals, paired tests and Holm's correction keep their promises in simulated studies.

The bounds are quantiles of the binomial distribution at 1 in 1,000, for the rate that theory
gives; nothing is tuned to the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from fedbench.study.statistics import (
    holm,
    paired,
    summary,
)

pytestmark = pytest.mark.long

ALPHA = 0.05
RARE = 1e-3


def within_binomial_error(count, studies, rate):
    low, high = stats.binom.interval(1 - RARE, studies, rate)
    return low <= count <= high


def t_test_power(effect, n, alpha):
    """Return the power of the two-sided one-sample t-test, from the noncentral t distribution."""
    critical = stats.t.isf(alpha / 2, n - 1)
    shifted = stats.nct(n - 1, effect * n**0.5)
    return float(shifted.sf(critical) + shifted.cdf(-critical))


NOISE, SHARED = 0.5, 2.0
"""Standard deviations, in points: of a run, and of what all methods share within a seed."""


def simulate(generator, gains, n):
    """Return a reference and methods that are better by ``gains`` points, on ``n`` paired seeds.

    All share the seed's level, and the differences share the reference's noise (correlation 1/2).
    """
    level = 70 + SHARED * generator.standard_normal(n)
    runs = level + NOISE * generator.standard_normal((1 + len(gains), n))
    runs[1:] += np.reshape(gains, (-1, 1))
    first, *others = (dict(enumerate(map(float, run))) for run in runs)
    return first, others


def test_intervals_cover_the_truth_in_95_of_100_experiments():
    generator, studies, n, gain = np.random.default_rng(4), 2000, 5, 0.3
    alone = together = 0
    for _ in range(studies):
        reference, (method,) = simulate(generator, [gain], n)
        one, pair = summary(list(method.values())), paired(method, reference)
        alone += one.low <= 70 + gain <= one.high
        together += pair.low <= gain <= pair.high
    assert within_binomial_error(alone, studies, 0.95)
    assert within_binomial_error(together, studies, 0.95)


@dataclass(frozen=True)
class Study:
    """p before and after Holm, (studies, methods)."""

    raw: np.ndarray
    adjusted: np.ndarray


def study(gains, studies=500, n=5):
    generator = np.random.default_rng([11, *(int(100 * gain) for gain in gains)])
    raw = []
    for _ in range(studies):
        reference, methods = simulate(generator, gains, n)
        raw.append([paired(method, reference).p for method in methods])
    return Study(np.array(raw), np.array([holm(p) for p in raw]))


def at_most(count, studies, rate):
    return count <= stats.binom.ppf(1 - RARE, studies, rate)


def at_least(count, studies, rate):
    return count >= stats.binom.ppf(RARE, studies, rate)


def test_four_methods_without_a_gain_are_called_different_in_5_of_100_studies_at_most():
    found = study([0.0, 0.0, 0.0, 0.0])
    wrong = (found.adjusted <= ALPHA).any(axis=1)
    assert at_most(wrong.sum(), wrong.size, ALPHA)
    # The study can tell: each test alone has its 5 %, so the uncorrected family has more.
    for method in (found.raw <= ALPHA).T:
        assert within_binomial_error(method.sum(), method.size, ALPHA)
    assert not at_most((found.raw <= ALPHA).any(axis=1).sum(), wrong.size, ALPHA)


def test_a_real_gain_is_found_while_the_error_rate_over_the_others_stays():
    gain = 2.0
    found = study([gain, 0.0, 0.0, 0.0])
    real, wrong = found.adjusted[:, 0] <= ALPHA, (found.adjusted[:, 1:] <= ALPHA).any(axis=1)
    assert at_most(wrong.sum(), wrong.size, ALPHA)
    effect = gain / (NOISE * 2**0.5)
    alone = (found.raw[:, 0] <= ALPHA).sum()
    assert within_binomial_error(alone, real.size, t_test_power(effect, 5, ALPHA))
    # Holm rejects all that Bonferroni rejects.
    bonferroni = t_test_power(effect, 5, ALPHA / 4)
    assert bonferroni > 0.5
    assert at_least(real.sum(), real.size, bonferroni)
