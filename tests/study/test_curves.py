"""The numbers of one learning curve: hand-made curves, and plain loops over random ones."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from fedbench.config.model import Accuracy
from fedbench.engine.evaluation import over_clients, over_domains, reaches
from fedbench.study.censoring import Amount
from fedbench.study.curves import (
    area,
    best,
    drop_per_round,
    loss_from_peak,
    parts,
    points,
    shape,
    to_target,
)
from fedbench.types import RoundResult, Scores, SplitScores

RULE = Accuracy()


def a_round(number, domains=None, classes=None, **more):
    """A round of 10 bytes up, 5 down and 2 seconds; without ``domains`` it has no score."""
    scores = {}
    if domains is not None:
        metrics = {"accuracy": over_domains(domains, True), "loss": over_domains(domains, False)}
        scores = {"classifier": metrics}
        if classes:
            metrics["class_accuracy"] = Scores(classes)
    up, down = {"weights": 10}, {"weights": 4, "prototypes": 1}
    return RoundResult(number, [0], scores, {}, up, down, 2.0, **more)


def a_run(*values):
    """A run of one domain; ``None`` is a round without scores."""
    return [a_round(n, None if v is None else {"x": v}) for n, v in enumerate(values, 1)]


def spent(rounds, exact=True):
    totals = {"rounds": rounds, "bytes": 15 * rounds, "seconds": 2.0 * rounds}
    return {cost: Amount(value, exact) for cost, value in totals.items()}


# to the target


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        ((0.5, 0.7, 0.9, 0.8), 0.7, spent(2)),
        ((0.5, 0.7, 0.9, 0.8), 0.71, spent(3)),
        ((0.95, 0.1, 0.1), 0.9, spent(1)),  # the first time counts, whatever comes after
        ((0.5, 0.7), 0.9, spent(2, exact=False)),
        ((None, 0.9, None, 0.9), 0.9, spent(2)),
        ((None, 0.4, None, 0.9), 0.9, spent(4)),  # the unscored third round was spent, too
        ((None, 0.4, None), 0.9, spent(3, exact=False)),
        ((), 0.9, spent(0, exact=False)),
    ],
)
def test_costs_up_to_the_first_scored_round_at_the_target(values, target, expected):
    assert to_target(a_run(*values), RULE, target, True) == expected


def test_a_metric_that_should_be_low_reaches_from_above():
    rule = Accuracy(metric="loss")
    assert to_target(a_run(2.0, 1.0, 0.5), rule, 1.0, False) == spent(2)
    assert to_target(a_run(2.0, 1.5), rule, 1.0, False) == spent(2, exact=False)


def test_a_mean_that_misses_the_target_through_rounding_alone_reaches_it():
    mean = (0.1 + 0.7 + 0.4) / 3
    assert mean < 0.4
    assert reaches(mean, 0.4, True)
    assert not reaches(0.4 - 1e-9, 0.4, True)
    assert reaches(0.4 + 1e-17, 0.4, False)


def test_the_rule_says_which_scores_are_the_curve():
    clients = {"classifier": {"accuracy": over_clients({0: 0.2, 1: 0.6}, {0: 1, 1: 3}, True)}}
    domains = {"classifier": {"accuracy": over_domains({"x": 0.9}, True)}}
    one = a_round(1, {"x": 0.1}, client_scores=clients, validation=SplitScores(domains))
    assert points([one], RULE) == [(1, 0.1)]
    assert points([one], Accuracy(population="clients")) == [(1, pytest.approx(0.5))]
    assert points([one], Accuracy(split="validation")) == [(1, 0.9)]
    assert points([one], Accuracy(inference="prototypes")) == []
    assert parts(one, Accuracy(population="clients"), None) == {0: 0.2, 1: 0.6}


# area and best


def test_area_by_hand():
    # straight lines: 2 rounds at 0.3 on average and 4 at 0.5, so (0.6 + 2) / 6
    assert area([(2, 0.2), (4, 0.4), (8, 0.6)]) == pytest.approx(2.6 / 6)
    assert area([(7, 0.4)]) == 0.4
    assert area([(1, 0.4), (2, 0.4), (9, 0.4)]) == pytest.approx(0.4)


def test_area_is_the_mean_of_the_interpolated_curve():
    rng = random.Random(0)
    rounds = sorted(rng.sample(range(1, 100), 12))
    curve = [(n, rng.random()) for n in rounds]
    heights = []
    for (a, u), (b, v) in pairwise(curve):
        steps = 1000 * (b - a)
        heights += [u + (v - u) * (k + 0.5) / steps for k in range(steps)]
    assert area(curve) == pytest.approx(sum(heights) / len(heights))


def test_scoring_a_straight_line_less_often_does_not_change_its_area():
    line = [(n, n / 20) for n in range(1, 14)]
    assert area(line[::3]) == pytest.approx(area(line))


def test_the_best_round_is_the_first_of_equals():
    curve = [(2, 0.5), (4, 0.8), (6, 0.8), (8, 0.1)]
    assert best(curve, True) == (4, 0.8)
    assert best(curve, False) == (8, 0.1)


# forgetting


HISTORY = ({"a": 0.5, "b": 0.6}, {"a": 0.3, "b": 0.9}, {"a": 0.4, "b": 0.7})


def test_forgetting_by_hand():
    # drops 0.2 and 0, then 0 and 0.2; from the peaks 0.5 and 0.9 down to 0.4 and 0.7
    assert drop_per_round(HISTORY, True) == pytest.approx(0.1)
    assert loss_from_peak(HISTORY, True) == pytest.approx((0.1 + 0.2) / 2)


def test_of_a_loss_a_rise_is_what_is_forgotten():
    # rises 0 and 0.3, then 0.1 and 0; from the lowest 0.3 and 0.6 up to 0.4 and 0.7
    assert drop_per_round(HISTORY, False) == pytest.approx(0.1)
    assert loss_from_peak(HISTORY, False) == pytest.approx(0.1)


def test_a_curve_that_only_rises_forgets_nothing_and_ends_above_its_earlier_values():
    rising = [{"a": 0.1}, {"a": 0.2}, {"a": 0.5}]
    assert drop_per_round(rising, True) == 0
    assert loss_from_peak(rising, True) == pytest.approx(-0.3)


def test_forgetting_is_that_of_plain_loops():
    rng = random.Random(1)
    table = [[rng.random() for _ in range(5)] for _ in range(8)]
    drops = losses = 0.0
    for c in range(5):
        for t in range(1, 8):
            drops += max(0.0, table[t - 1][c] - table[t][c]) / (5 * 7)
        losses += (max(table[t][c] for t in range(7)) - table[7][c]) / 5
    history = [dict(enumerate(row)) for row in table]
    assert drop_per_round(history, True) == pytest.approx(drops)
    assert loss_from_peak(history, True) == pytest.approx(losses)


def test_one_point_has_no_forgetting():
    assert drop_per_round(HISTORY[:1], True) is None
    assert loss_from_peak(HISTORY[:1], True) is None


def test_classes_are_followed_in_each_domain_and_those_without_a_value_are_not():
    run = [
        a_round(1, {"x": 0.5, "y": 0.5}, {"x": [0.9, None], "y": [0.5, 0.5]}),
        a_round(2),
        a_round(3, {"x": 0.5, "y": 0.5}, {"x": [0.3, None], "y": [0.6, 0.6]}),
    ]
    assert parts(run[0], RULE, "class_accuracy") == {("x", 0): 0.9, ("y", 0): 0.5, ("y", 1): 0.5}
    found = shape(run, RULE, True, ("class_accuracy", True))
    assert found.drop == pytest.approx(0.6 / 3)
    assert found.loss == pytest.approx((0.6 - 0.1 - 0.1) / 3)
    assert shape(run, RULE, True).drop == 0  # over domains, whose accuracies do not change


def test_a_run_without_a_scored_round_has_no_shape():
    assert shape(a_run(None, None), RULE, True) is None
