"""Intervals, paired tests, Holm and ranks: on numbers worked by hand, and in simulated studies.

The bounds of the simulated studies are quantiles of the binomial distribution at 1 in 1,000, for
the rate that theory gives; nothing is tuned to the seed.

Long, since every statistic has its hand-computed cases beside its simulated study.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedbench.study.statistics import (
    DEFAULT_TEST,
    MIN_DATA_SETS,
    MIN_SEEDS,
    Paired,
    Ranks,
    Summary,
    holm,
    mean_ranks,
    paired,
    summary,
    wins_ties_losses,
)

ALPHA = 0.05
RARE = 1e-3


def by_seed(values, first=0):
    return dict(enumerate(map(float, values), first))


def against_zero(differences, test="t"):
    return paired(by_seed(differences), by_seed([0.0] * len(differences)), test)


# summary


def test_summary_of_three_values_by_hand():
    # s = 1, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653
    found = summary([1.0, 2.0, 3.0])
    assert (found.mean, found.std, found.n) == (2.0, 1.0, 3)
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)


def test_two_values_have_the_very_wide_interval_of_one_degree_of_freedom():
    # s = sqrt(1/2), standard error 1/2, t(0.975, 1) = tan(0.475 pi) = 12.7062
    found = summary([0.0, 1.0])
    assert found.std == pytest.approx(0.5**0.5)
    assert (found.low, found.high) == pytest.approx((0.5 - 6.3531, 0.5 + 6.3531), abs=1e-4)


def test_one_value_has_neither_spread_nor_interval():
    assert summary([0.7]) == Summary(mean=0.7, std=None, n=1, low=None, high=None)


@pytest.mark.parametrize("values", [[0.25] * 5, [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]])
def test_equal_values_have_no_interval_even_if_equal_up_to_rounding_only(values):
    found = summary(values)
    assert found.std == pytest.approx(0.0, abs=1e-15)
    assert (found.low, found.high) == (None, None)


def test_summary_does_not_depend_on_order_or_container():
    values = [0.61, 0.58, 0.66, 0.6]
    assert summary(values) == summary(tuple(values)) == summary(np.array(values))
    assert summary(values[::-1]).low == pytest.approx(summary(values).low, rel=1e-14)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "a summary needs at least one value"),
        ([0.5, float("nan")], "value 1 is nan, expected a finite number"),
        ([float("inf")], "value 0 is inf, expected a finite number"),
    ],
)
def test_summary_refuses_what_has_no_mean(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        summary(values)


# paired


def test_paired_t_by_hand():
    # differences 1, 2, 3: t = 2 sqrt(3), and with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    found = paired({0: 11.0, 1: 5.0, 2: 33.0}, {0: 10.0, 1: 3.0, 2: 30.0})
    half = 4.302653 / 3**0.5
    assert found.difference == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-6)
    assert found.p == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert found.effect == pytest.approx(2.0)
    assert (found.n, found.note) == (3, "")


def test_the_default_is_the_t_test():
    a, b = by_seed([3, 1, 4, 1, 5, 9]), by_seed([2, 7, 1, 8, 2, 8])
    assert DEFAULT_TEST == "t"
    assert paired(a, b) == paired(a, b, "t") != paired(a, b, "wilcoxon")


@pytest.mark.parametrize("test", MIN_SEEDS)
def test_swapping_the_two_sides_changes_signs_only(test):
    a, b = by_seed([3, 1, 4, 1, 5, 9]), by_seed([2, 7, 1, 8, 2, 9])
    there, back = paired(a, b, test), paired(b, a, test)
    assert (back.difference, back.low, back.high, back.effect) == pytest.approx(
        (-there.difference, -there.high, -there.low, -there.effect)
    )
    assert (back.p, back.n, back.note) == (there.p, there.n, there.note)


def test_seeds_are_matched_by_key_whatever_their_order():
    method, reference = {7: 3.0, 2: 1.0, 5: 2.5}, {2: 0.5, 5: 1.0, 7: 2.0}
    again = paired(dict(reversed(method.items())), reference)
    assert paired(method, reference) == again
    assert again.difference == pytest.approx((1.0 + 0.5 + 1.5) / 3)


def test_only_shared_seeds_count_and_the_others_are_named():
    found = paired(by_seed([1, 2, 3, 4, 50]), by_seed([1, 1, 1, 90, 90], first=1))
    assert found.n == 4
    assert found.difference == pytest.approx((1 + 2 + 3 - 40) / 4)
    assert found.note == (
        "seeds without the method, left out: 5; seeds without the reference, left out: 0"
    )


def test_without_a_shared_seed_there_is_no_comparison():
    found = paired({0: 1.0, 1: 2.0}, {2: 1.0})
    assert found == Paired(None, None, None, None, None, 0, found.note)
    assert found.note == (
        "no shared seed; seeds without the method, left out: 2; "
        "seeds without the reference, left out: 0, 1"
    )


def test_one_shared_seed_has_a_difference_and_nothing_else():
    assert paired({4: 0.5}, {4: 0.25}) == Paired(
        0.25, None, None, None, None, 1, "no p: the t-test needs 3 seeds (n = 1)"
    )


@pytest.mark.parametrize(
    ("test", "n", "note"),
    [
        ("t", 2, "no p: the t-test needs 3 seeds (n = 2)"),
        (
            "wilcoxon",
            3,
            "no p: Wilcoxon's test needs 6 seeds (n = 3, Wilcoxon's smallest p is then 0.25)",
        ),
        (
            "wilcoxon",
            5,
            "no p: Wilcoxon's test needs 6 seeds (n = 5, Wilcoxon's smallest p is then 0.062)",
        ),
    ],
)
def test_too_few_seeds_are_said_instead_of_a_p_and_the_interval_stays(test, n, note):
    found = against_zero(range(1, n + 1), test)
    assert (found.p, found.note) == (None, note)
    assert found.low < found.difference < found.high
    assert found.effect == pytest.approx(found.difference / np.std(range(n), ddof=1))


@pytest.mark.parametrize("test", MIN_SEEDS)
def test_from_the_least_number_of_seeds_on_there_is_a_p(test):
    found = against_zero(range(1, MIN_SEEDS[test] + 1), test)
    assert 0 < found.p < 0.1
    assert found.note == ""


def test_wilcoxons_least_number_of_seeds_is_the_first_that_can_reject():
    n = MIN_SEEDS["wilcoxon"]
    assert 2 / 2**n < ALPHA < 2 / 2 ** (n - 1)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([-1, 2, 3, 4, 5, 6], 4 / 64),
        # W- = 4; rank sums up to 4: {}, 1, 2, 3, 1+2, 4, 1+3
        ([1, 2, 3, -4, 5, 6], 14 / 64),
        # all ranks 3.5: no or one negative sign on either side
        ([1, 1, 1, 1, 1, -1], 14 / 64),
        ([1, 1, 1, 1, 1, 1], 2 / 64),
    ],
)
def test_wilcoxon_is_exact_with_and_without_ties(differences, p):
    assert against_zero(differences, "wilcoxon").p == pytest.approx(p)


def test_wilcoxon_drops_zero_differences_and_says_how_many():
    found = against_zero([1, 2, 3, 4, 5, 0], "wilcoxon")
    assert found.p == pytest.approx(2 / 32)
    assert found.n == 6
    assert found.note == "zero differences, dropped by Wilcoxon's test: 1 of 6"


def test_equal_differences_are_ties_for_wilcoxon_although_their_last_bits_differ():
    reference = by_seed([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    up = {seed: value + 0.1 for seed, value in reference.items()} | {5: 0.5}
    assert len({up[s] - reference[s] for s in range(5)}) > 1
    assert paired(up, reference, "wilcoxon").p == pytest.approx(14 / 64)


@pytest.mark.parametrize("test", MIN_SEEDS)
def test_identical_results_have_p_1_and_say_so(test):
    values = by_seed([0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    same = values | {0: 0.1 + 1e-17, 2: 0.1 + 0.2}
    assert paired(same, values, test) == Paired(
        0.0, None, None, 1.0, None, 6, "identical results on every seed (n = 6)"
    )
    assert paired(by_seed([0] * 6), by_seed([0] * 6), test).p == 1.0


def test_identical_results_on_too_few_seeds_have_no_p():
    assert paired({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6}) == Paired(
        0.0,
        None,
        None,
        None,
        None,
        2,
        "identical results on every seed (n = 2); no p: the t-test needs 3 seeds (n = 2)",
    )


def test_one_difference_on_all_seeds_leaves_the_t_test_without_spread():
    reference = by_seed([0.1, 0.2, 0.3, 0.4, 0.5])
    found = paired({seed: value + 0.1 for seed, value in reference.items()}, reference)
    assert found.difference == pytest.approx(0.1)
    assert (found.low, found.high, found.p, found.effect) == (None,) * 4
    assert found.note == "no p: the same difference on every seed (n = 5), no spread to test with"


def test_the_smallest_differences_that_count_pass_scipy_without_a_warning():
    # warnings are errors; an accuracy on 100 million examples still resolves 1e-8
    found = paired(by_seed([0.9, 0.9, 0.9 + 1e-8, 0.9]), by_seed([0.1] * 4))
    assert found.high - found.low < 1e-7
    assert found.p < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({0: float("nan")}, {0: 1.0}), "method, seed 0 is nan, expected a finite number"),
        (({3: 1.0}, {3: float("inf")}), "reference, seed 3 is inf, expected a finite number"),
        (({0: 1.0}, {0: 1.0}, "wilcoxn"), r"unknown test 'wilcoxn' \(did you mean 'wilcoxon'\?\)"),
    ],
)
def test_paired_refuses_what_it_cannot_compare(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        paired(*arguments)


# Holm


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 may not fall below 0.06
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, None, 0.04], [0.02, None, 0.04]),
        ([0.6, 0.5, 0.9], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.03], [0.03]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_holm_by_hand(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.05]), max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    # Closed testing: reject i when Bonferroni rejects every family that holds i.
    families = [
        f for size in range(1, len(p) + 1) for f in itertools.combinations(range(len(p)), size)
    ]
    expected = [
        max(min(1.0, len(f) * min(p[j] for j in f)) for f in families if i in f)
        for i in range(len(p))
    ]
    assert holm(p) == pytest.approx(expected)


@given(st.lists(st.none() | st.floats(0, 1)), st.randoms())
def test_holm_keeps_places_and_order_and_only_raises(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    adjusted = holm(p)
    assert holm([p[i] for i in order]) == [adjusted[i] for i in order]
    assert [a is None for a in adjusted] == [one is None for one in p]
    tested = sorted((one, a) for one, a in zip(p, adjusted, strict=True) if one is not None)
    assert all(one <= a <= 1 for one, a in tested)
    assert [a for _, a in tested] == sorted(a for _, a in tested)


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_holm_refuses_what_is_no_probability(bad):
    with pytest.raises(ValueError, match=r"^p-value 1 is .*, expected one in \[0, 1\]$"):
        holm([0.5, bad])


# wins, ties, losses


def test_wins_ties_and_losses_over_shared_seeds_and_domains():
    method = {(0, "a"): 0.9, (0, "b"): 0.5, (1, "a"): 0.4, (1, "b"): 0.8, (2, "a"): 1.0}
    reference = {(0, "a"): 0.8, (0, "b"): 0.5, (1, "a"): 0.6, (1, "b"): 0.7, (3, "a"): 0.0}
    assert wins_ties_losses(method, reference) == (2, 1, 1)
    assert wins_ties_losses(reference, method) == (1, 1, 2)
    assert wins_ties_losses(method, reference, tolerance=0.1) == (0, 3, 1)
    assert wins_ties_losses({}, reference) == (0, 0, 0)


def test_rounding_makes_no_winner():
    assert wins_ties_losses({0: 0.1 + 0.2}, {0: 0.3}) == (0, 1, 0)
    assert wins_ties_losses({0: 0.3 + 1e-9}, {0: 0.3}) == (1, 0, 0)


def test_wins_refuse_a_negative_tolerance_and_nan():
    with pytest.raises(ValueError, match=r"^the tolerance is -1, expected 0 or more$"):
        wins_ties_losses({}, {}, tolerance=-1)
    with pytest.raises(ValueError, match=r"^reference, \(0, 'a'\) is nan"):
        wins_ties_losses({(0, "a"): 1.0}, {(0, "a"): float("nan")})


# mean ranks

DEMSAR = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975
0.957 0.978 0.946 0.970
"""
"""AUC of four variants of C4.5 on 14 data sets: Demsar 2006, Table 6. It prints 0.975 twice in the
last row but one; the ranks beside the values tell the two apart, so a fourth digit does here."""


def table(rows, methods="abcdefghi"):
    return {str(i): dict(zip(methods, map(float, row), strict=False)) for i, row in enumerate(rows)}


def test_mean_ranks_and_friedman_by_hand_with_a_tie():
    # rank sums 4.5, 7.5, 12: 220.5 / 4 - 48 = 7.125; over 1 - 6 / 96 for the tie it is 7.6,
    # and with 2 degrees of freedom p = exp(-7.6 / 2)
    found = mean_ranks(table([[9, 8, 7], [3, 2, 1], [0.3, 0.2, 0.1], [0.5, 0.5, 0]]))
    assert found.ranks == {"a": 1.125, "b": 1.875, "c": 3.0}
    assert found.p == pytest.approx(np.exp(-3.8))
    assert found.n == 4
    assert found.note == (
        "Friedman test, 3 methods on 4 data sets: p = 0.022 "
        "(chi-squared approximation, rough up to 10 data sets or 5 methods)"
    )


def test_mean_ranks_are_those_that_demsar_published():
    found = mean_ranks(table(line.split() for line in DEMSAR.strip().splitlines()))
    assert list(found.ranks.values()) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    # He gives 9.28 without the correction for ties, which can only lower p.
    assert found.p < stats.chi2.sf(9.28, 3) < ALPHA


def test_lower_can_be_better():
    rows = [[9, 8, 7], [3, 2, 1], [0.5, 0.5, 0]]
    up, down = mean_ranks(table(rows)), mean_ranks(table(rows), higher_is_better=False)
    assert down.ranks == pytest.approx({method: 4 - rank for method, rank in up.ranks.items()})
    assert down.p == pytest.approx(up.p)


def test_the_order_of_methods_in_a_row_does_not_matter():
    rows = table([[3, 2, 1], [3, 1, 2], [2, 3, 1]])
    rows["1"] = dict(reversed(rows["1"].items()))
    assert mean_ranks(rows).ranks == pytest.approx({"a": 4 / 3, "b": 2.0, "c": 8 / 3})


def test_values_that_differ_through_rounding_share_their_rank():
    assert mean_ranks({"x": {"a": 0.1 + 0.2, "b": 0.3}}).ranks == {"a": 1.5, "b": 1.5}


@pytest.mark.parametrize(("methods", "data_sets"), [(2, 9), (3, 2), (1, 1)])
def test_too_small_a_table_has_ranks_but_no_p(methods, data_sets):
    found = mean_ranks(table([range(methods)] * data_sets))
    assert found == Ranks(
        {"abc"[i]: methods - i for i in range(methods)},
        None,
        data_sets,
        f"No Friedman test for {methods} methods on {data_sets} data sets: "
        "it needs 3 methods and 3 data sets",
    )


def test_below_the_least_number_of_data_sets_friedman_cannot_reject():
    # n data sets in full agreement on k methods give the largest statistic, n (k - 1)
    n = MIN_DATA_SETS
    assert all(stats.chi2.sf((n - 1) * (k - 1), k - 1) > ALPHA for k in range(3, 9))
    found = mean_ranks(table([[3, 2, 1]] * n))
    assert found.p < ALPHA
    assert found.p == pytest.approx(np.exp(-3.0))


def test_methods_that_tie_everywhere_have_p_1():
    assert mean_ranks(table([[1, 1, 1], [2, 2, 2], [0, 0, 0]])) == Ranks(
        dict.fromkeys("abc", 2.0),
        1.0,
        3,
        "Friedman test, 3 methods on 3 data sets: p = 1, all tie everywhere",
    )


def test_a_tiny_p_and_a_large_table_need_no_caveat():
    note = "Friedman test, 6 methods on 11 data sets: p < 0.001"
    assert mean_ranks(table([range(6)] * 11)).note == note
    for methods, data_sets in ((5, 11), (6, 10)):
        assert "rough" in mean_ranks(table([range(methods)] * data_sets)).note


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "mean ranks need at least one data set with one method"),
        ({"x": {}}, "mean ranks need at least one data set with one method"),
        (
            {"x": {"a": 1.0, "b": 2.0, "c": 3.0}, "y": {"b": 1.0}},
            "data set 'y' has no value for a, c",
        ),
        ({"x": {"a": float("nan")}}, "x, a is nan, expected a finite number"),
    ],
)
def test_mean_ranks_refuse_an_incomplete_table(bad, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        mean_ranks(bad)


# simulated studies


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
    return by_seed(runs[0]), [by_seed(run) for run in runs[1:]]


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


def test_wilcoxon_on_six_seeds_rejects_2_of_the_64_sign_patterns():
    sizes = np.array([0.3, 0.1, 0.7, 0.2, 1.1, 0.5])
    patterns = [np.array(signs) * sizes for signs in itertools.product([-1, 1], repeat=6)]
    assert sum(against_zero(d, "wilcoxon").p <= ALPHA for d in patterns) == 2
