"""Metrics computed by hand, on four examples of three classes."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.metrics import Accuracy, ClassAccuracy, Loss

SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5], [0.0, 1.0, 4.0]])
LABELS = torch.tensor([0, 1, 1, 2])
# predictions: 0, 1, 0, 2


def test_accuracy_is_the_share_of_highest_scores_on_the_label():
    assert Accuracy()(SCORES, LABELS) == 0.75
    assert Accuracy()(SCORES, torch.tensor([1, 0, 2, 0])) == 0.0


def test_a_tie_goes_to_the_first_class():
    assert Accuracy()(torch.zeros(2, 3), torch.tensor([0, 1])) == 0.5


def test_accuracy_of_many_examples_is_exact():
    labels = torch.arange(3001) % 3
    scores = torch.eye(3)[torch.where(torch.arange(3001) < 1000, labels, (labels + 1) % 3)]
    assert Accuracy()(scores, labels) == 1000 / 3001


def test_class_accuracy_has_a_value_for_every_class():
    assert ClassAccuracy()(SCORES, LABELS) == [1.0, 0.5, 1.0]
    assert ClassAccuracy()(SCORES[[1, 2]], LABELS[[0, 1]]) == [0.0, 0.0, None]


def test_a_class_without_a_test_example_has_no_accuracy():
    assert ClassAccuracy()(SCORES[:3], LABELS[:3]) == [1.0, 0.5, None]


def test_the_mean_of_class_accuracy_by_examples_is_accuracy():
    each = torch.tensor(ClassAccuracy()(SCORES, LABELS))
    counts = LABELS.bincount()
    assert float((each * counts).sum() / counts.sum()) == Accuracy()(SCORES, LABELS)


def test_loss_is_the_mean_cross_entropy_in_nats():
    expected = 0.0
    for row, label in zip(SCORES.tolist(), LABELS.tolist(), strict=True):
        expected -= row[label] - math.log(sum(math.exp(s) for s in row))
    assert Loss()(SCORES, LABELS) == pytest.approx(expected / 4)
    assert Loss()(torch.zeros(5, 10), torch.arange(5)) == pytest.approx(math.log(10))


def test_large_scores_do_not_overflow():
    assert Loss()(torch.tensor([[1e30, 0.0]]), torch.tensor([0])) == 0.0


@pytest.mark.parametrize("metric", [Accuracy, Loss, ClassAccuracy])
def test_each_says_which_way_is_better(metric):
    assert metric.higher_is_better is (metric is not Loss)
