"""Mean ranks, the Friedman test and Nemenyi's, by hand and on published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedbench.study.statistics import (
    MIN_DATA_SETS,
    Ranks,
    complete,
    critical_difference,
    mean_ranks,
    not_told_apart,
)

ALPHA = 0.05

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
        "(chi-squared approximation, rough up to 10 data sets or 5 methods); "
        "Nemenyi's critical difference of mean ranks at 5 %: 1.66"  # 2.343 sqrt(12 / 24)
    )


def test_mean_ranks_are_those_that_demsar_published():
    found = mean_ranks(table(line.split() for line in DEMSAR.strip().splitlines()))
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)  # his section 3.2.2
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
        critical_difference(3, 3),
        3,
        "Friedman test, 3 methods on 3 data sets: p = 1, all tie everywhere",
    )


def test_a_tiny_p_and_a_large_table_need_no_caveat():
    note = (
        "Friedman test, 6 methods on 11 data sets: p < 0.001; "
        "Nemenyi's critical difference of mean ranks at 5 %: 2.27"
    )
    assert mean_ranks(table([range(6)] * 11)).note == note
    for methods, data_sets in ((5, 11), (6, 10)):
        assert "rough" in mean_ranks(table([range(methods)] * data_sets)).note


def test_ranks_with_ties_are_the_means_of_scipys():
    values = np.random.default_rng(0).integers(0, 4, size=(12, 7))
    found = mean_ranks(table(values))
    by_scipy = stats.rankdata(-values, axis=1)
    assert len(np.unique(by_scipy % 1)) == 2, "some ties share half a rank"
    assert list(found.ranks.values()) == pytest.approx(by_scipy.mean(axis=0).tolist())
    assert found.p == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)


def test_the_note_says_what_was_ranked():
    rows = table([[3, 2, 1], [3, 1, 2], [2, 3, 1]])
    assert mean_ranks(rows, blocks="seeds").note.startswith(
        "Friedman test, 3 methods on 3 seeds: p = 0.264 "
        "(chi-squared approximation, rough up to 10 seeds or 5 methods); "
    )


NEMENYI = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)
"""Critical values at 5 % for 2 to 10 methods: Demsar 2006, Table 5 (a)."""


@pytest.mark.parametrize(("methods", "q"), list(enumerate(NEMENYI, start=2)))
def test_the_critical_difference_is_that_of_the_published_table(methods, q):
    for data_sets in (3, 14, 30):
        scale = np.sqrt(methods * (methods + 1) / (6 * data_sets))
        assert critical_difference(methods, data_sets) / scale == pytest.approx(q, abs=1e-3)


@pytest.mark.parametrize(
    ("means", "sets"),
    [
        ({"a": 1.0, "b": 2.0, "c": 4.0}, [["a", "b"]]),
        ({"c": 3.0, "a": 1.0, "b": 2.0}, [["a", "b"], ["b", "c"]]),
        ({"a": 1.0, "b": 3.0, "c": 5.0}, []),
        ({"a": 1.0, "b": 1.5, "c": 2.0, "d": 2.4}, [["a", "b", "c", "d"]]),
        # a to c and b to d overlap; e and f tie, apart from all others
        (
            {"a": 1.0, "b": 1.8, "c": 2.2, "d": 3.0, "e": 5.5, "f": 5.5},
            [["a", "b", "c"], ["b", "c", "d"], ["e", "f"]],
        ),
        # exactly the critical difference apart counts as different
        ({"a": 1.0, "b": 2.5}, []),
    ],
)
def test_sets_of_methods_that_are_not_told_apart(means, sets):
    assert not_told_apart(Ranks(means, 0.01, 1.5, 9, "")) == sets


def test_nothing_is_told_apart_where_friedman_does_not_reject():
    means = {"b": 5.0, "a": 1.0}
    assert not_told_apart(Ranks(means, 0.06, 1.5, 9, "")) == [["a", "b"]]
    with pytest.raises(ValueError, match="No Friedman test for 2 methods"):
        not_told_apart(mean_ranks(table([[2, 1]] * 9)))


def test_methods_that_lack_a_block_are_left_out():
    values = {"a": {0: 0.1, 1: 0.2}, "b": {1: 0.3}, "c": {1: 0.4, 0: 0.5}, "d": {}}
    assert complete(values) == {"0": {"a": 0.1, "c": 0.5}, "1": {"a": 0.2, "c": 0.4}}
    assert complete({}) == {}


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
