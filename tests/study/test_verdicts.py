"""Verdicts on hand-made numbers: what is within the rule, beyond it, or not known yet."""

from __future__ import annotations

import math

import pytest

from fedbench.study.censoring import Amount
from fedbench.study.reproductions import Cell, Rule
from fedbench.study.verdicts import Verdict, pair, value, worst


def seeds(*values, at_least=()):
    found = [Amount(v) for v in values] + [Amount(v, False) for v in at_least]
    return dict(enumerate(found))


@pytest.mark.parametrize(
    ("rule", "published", "measured", "outcome"),
    [
        (Rule(points=2), 0.90, seeds(0.89, 0.91), "reproduced"),
        (Rule(points=2), 0.90, seeds(0.85, 0.91), "reproduced"),  # the mean is exactly 2 below
        (Rule(points=2), 0.90, seeds(0.85, 0.90), "not reproduced"),
        (Rule(points=2), 0.90, seeds(0.93), "not reproduced"),  # better is different, too
        (Rule(points=2), 0.90, seeds(), "undecided"),
        (Rule(percent=25), 40, seeds(30, 50), "reproduced"),
        (Rule(percent=25), 40, seeds(51), "not reproduced"),
        (Rule(percent=25), 40, seeds(40, at_least=[20]), "undecided"),
        (Rule(percent=25), 40, seeds(40, at_least=[61]), "not reproduced"),
    ],
    ids=str,
)
def test_a_value_is_judged_by_the_mean_over_seeds(rule, published, measured, outcome):
    assert value("fedavg", published, rule, measured).outcome == outcome


def test_a_value_carries_its_range_and_an_interval_only_if_every_run_is_exact():
    found = value("fedavg", 40, Rule(percent=25), seeds(38, 42, 40))
    assert (found.low, found.high) == (30, 50)
    assert found.summary.mean == 40
    assert found.summary.high - 40 == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-3)
    assert value("fedavg", 40, Rule(percent=25), seeds(38, at_least=[42])).summary is None


def test_without_a_published_value_there_is_no_verdict_on_it():
    found = value("fedavg", None, Rule(points=2), seeds(0.5))
    assert (found.outcome, found.summary.mean) == (None, 0.5)


@pytest.mark.parametrize(
    ("ours", "theirs", "more", "outcome"),
    [
        (seeds(0.90, 0.92, 0.91), seeds(0.80, 0.83, 0.80), True, "reproduced"),
        (seeds(0.80, 0.83, 0.80), seeds(0.90, 0.92, 0.91), True, "not reproduced"),
        (seeds(0.80, 0.83, 0.80), seeds(0.90, 0.92, 0.91), False, "reproduced"),  # fewer rounds
        (seeds(0.90, 0.70, 0.80), seeds(0.80, 0.83, 0.70), True, "undecided"),
        (seeds(0.90), seeds(0.10), True, "undecided"),  # one seed has no interval
        (seeds(), seeds(0.10), True, "undecided"),
        (seeds(20, 21, 20), seeds(30, 33, at_least=[40]), False, "undecided"),
    ],
    ids=str,
)
def test_an_order_needs_an_interval_without_zero(ours, theirs, more, outcome):
    assert pair("mine", "base", ours, theirs, more).outcome == outcome


def test_a_cell_is_as_good_as_its_worst_part():
    assert worst([], []) == "reproduced"
    assert worst(["reproduced"], ["undecided"]) == "undecided"
    assert worst(["reproduced", "not reproduced"], ["undecided"]) == "not reproduced"
    good = value("a", 0.9, Rule(points=2), seeds(0.9))
    unknown = value("b", None, Rule(points=2), seeds())
    open_ = pair("a", "b", seeds(0.9), seeds(), True)
    cell = Cell("a cell", published={"a": 0.9})
    assert Verdict("c", cell, False, (good, unknown), ()).outcome == "reproduced"
    assert Verdict("c", cell, False, (good,), (open_,)).outcome == "undecided"
