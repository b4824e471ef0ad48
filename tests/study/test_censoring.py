"""Medians and paired comparisons of amounts that may be censored."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from fedbench.study.censoring import MIN_DECIDED, Amount, less, median, versus


def more_than(value):
    return Amount(value, exact=False)


def by_seed(*amounts):
    return {n: a if isinstance(a, Amount) else Amount(a) for n, a in enumerate(amounts)}


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ((5, 9, 7), Amount(7)),
        ((5, 9, more_than(20)), Amount(9)),
        ((5, more_than(20), more_than(20)), more_than(20)),
        ((more_than(20),), more_than(20)),
        ((4, 8), Amount(6)),
        ((4, more_than(20)), more_than(12)),
        # a run that ended early may still be below the others or above: 9 is no more than a bound
        ((more_than(3), 9, 10), more_than(9)),
        ((more_than(3), 9, 9), Amount(9)),
    ],
)
def test_the_median_is_censored_unless_all_outcomes_yield_it(amounts, expected):
    assert median([*by_seed(*amounts).values()]) == expected


def test_no_outcome_contradicts_the_median():
    rng = random.Random(0)
    for _ in range(300):
        amounts = [Amount(rng.randint(1, 9), rng.random() < 0.6) for _ in range(rng.randint(1, 6))]
        found = median(amounts)
        outcomes = [
            statistics.median(
                a.value if a.exact else a.value + rng.choice((1, 5, 50)) for a in amounts
            )
            for _ in range(30)
        ]
        assert all(o == found.value if found.exact else o >= found.value for o in outcomes)


def test_a_median_needs_an_amount():
    with pytest.raises(ValueError, match=r"^a median needs at least one amount$"):
        median([])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Amount(3), Amount(4), True),
        (Amount(4), Amount(4), False),
        (Amount(0.3), Amount(0.1 + 0.2), False),  # equal but for rounding
        (Amount(4), more_than(4), True),
        (Amount(5), more_than(4), False),  # the other may have needed 4.5
        (more_than(4), Amount(9), False),
        (more_than(4), more_than(9), False),
    ],
)
def test_less_only_where_it_is_certain(a, b, expected):
    assert less(a, b) is expected


def test_wins_ties_and_losses_with_censored_runs():
    method = by_seed(10, 10, more_than(100), more_than(100), more_than(20), 50)
    reference = by_seed(20, more_than(100), 30, more_than(100), 30, 50)
    found = versus(method, reference)
    # seed 3: neither got there; seed 4: the method ended at 20, perhaps before getting there at 25
    assert (found.wins, found.ties, found.losses) == (2, 3, 1)
    assert (found.ratio, found.low, found.high, found.p) == (None, None, None, None)


def test_the_sign_test_by_counting_all_outcomes_of_fair_coins():
    method = by_seed(*[10] * 6, 30, 20)
    reference = by_seed(*[20] * 6, 20, 20)
    found = versus(method, reference)
    assert (found.wins, found.ties, found.losses) == (6, 1, 1)
    coins = list(itertools.product((0, 1), repeat=7))
    assert found.p == pytest.approx(sum(sum(c) in (0, 1, 6, 7) for c in coins) / len(coins))


@pytest.mark.parametrize("n", [MIN_DECIDED - 1, MIN_DECIDED])
def test_the_sign_test_is_left_out_where_it_cannot_reject(n):
    found = versus(by_seed(*[1] * n), by_seed(*[2] * n))
    assert found.wins == n
    assert 2 / 2 ** (MIN_DECIDED - 1) > 0.05 > 2 / 2**MIN_DECIDED
    assert found.p == (None if n < MIN_DECIDED else pytest.approx(2 / 2**n))


def test_the_ratio_is_the_geometric_mean_and_swaps_to_its_inverse():
    method, reference = by_seed(10, 40, 25), by_seed(20, 20, 20)
    found, back = versus(method, reference), versus(reference, method)
    assert found.ratio == pytest.approx((0.5 * 2 * 1.25) ** (1 / 3))
    assert (back.ratio, back.low, back.high) == pytest.approx(
        (1 / found.ratio, 1 / found.high, 1 / found.low)
    )
    assert found.low < found.ratio < found.high


def test_a_reference_that_sends_nothing_has_no_ratio():
    found = versus(by_seed(10, 20), by_seed(0, 0))
    assert (found.ratio, found.losses) == (None, 2)


def test_only_shared_seeds_count():
    found = versus({1: Amount(1), 2: Amount(3)}, {2: Amount(6), 3: Amount(1)})
    assert (found.ratio, found.wins, found.ties, found.losses) == (pytest.approx(0.5), 1, 0, 0)
    assert versus({1: Amount(1)}, {2: Amount(1)}).ratio is None
