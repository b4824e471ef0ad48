"""Means, intervals, paired tests, Holm and wins, on numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.study.statistics import (
    DEFAULT_TEST,
    MIN_SEEDS,
    Paired,
    Summary,
    holm,
    paired,
    summary,
    wins_ties_losses,
)

ALPHA = 0.05


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


def test_wilcoxon_on_six_seeds_rejects_2_of_the_64_sign_patterns():
    sizes = np.array([0.3, 0.1, 0.7, 0.2, 1.1, 0.5])
    patterns = [np.array(signs) * sizes for signs in itertools.product([-1, 1], repeat=6)]
    assert sum(against_zero(d, "wilcoxon").p <= ALPHA for d in patterns) == 2


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
