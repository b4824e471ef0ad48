"""Curves over seeds: which runs count, where the target comes from, Holm's correction."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fedbench.config.model import Accuracy
from fedbench.engine.evaluation import over_domains
from fedbench.plugins.facts import MetricFacts
from fedbench.study.censoring import Amount
from fedbench.study.targets import curves
from fedbench.types import RoundResult, Scores

METRICS = {
    "accuracy": MetricFacts(higher_is_better=True, unit="percent"),
    "class_error": MetricFacts(higher_is_better=False, unit="percent"),
}


def a_run(variant, seed, *values, final=None, finished=True, errors=()):
    """A record of a run with these accuracies, and class errors if they are given."""
    rounds = []
    for n, value in enumerate(values, 1):
        scores = {"accuracy": over_domains({"x": value}, True)}
        if errors:
            scores["class_error"] = Scores({"x": errors[n - 1]})
        rounds.append(RoundResult(n, [0], {"classifier": scores}, {}, {"w": 10}, {"w": 10}, 1.0))
    accuracy = SimpleNamespace(mean=values[-1] if final is None else final) if finished else None
    result = SimpleNamespace(accuracy=accuracy) if finished else None
    return SimpleNamespace(variant=variant, seed=seed, rounds=rounds, result=result)


def found(records, target=None, reference="base"):
    return curves(records, Accuracy(), METRICS, reference, target)


def test_the_target_is_by_default_the_references_final_value_over_its_seeds():
    records = [a_run("base", 0, 0.1, 0.5), a_run("base", 1, 0.1, 0.7), a_run("mine", 0, 0.6, 0.9)]
    reaching = found(records).reaching
    assert reaching.target == pytest.approx(0.6)
    assert reaching.source == "final value of base, mean over 2 seeds"
    assert reaching.amounts["base"]["rounds"] == {0: Amount(2, False), 1: Amount(2)}
    assert reaching.amounts["mine"]["bytes"] == {0: Amount(20)}
    assert (reaching.reached("base"), reaching.reached("mine")) == ((1, 2), (1, 1))
    assert reaching.medians["base"]["rounds"] == Amount(2, False)
    assert reaching.versus["mine"]["rounds"].wins == 1
    assert "base" not in reaching.versus


def test_without_a_finished_reference_only_a_given_target_is_compared():
    records = [a_run("base", 0, 0.1, finished=False), a_run("mine", 0, 0.6, 0.9)]
    assert found(records).reaching is None
    given = found(records, target=0.6).reaching
    assert (given.target, given.source) == (0.6, "given")
    assert given.amounts["base"]["rounds"] == {0: Amount(1, False)}
    alone = found(records[1:], target=0.6).reaching
    assert alone.versus == {"mine": {}}


def test_failed_and_unfinished_runs_count_for_the_target_but_have_no_shape():
    records = [
        a_run("base", 0, 0.2, 0.5),
        a_run("mine", 0, 0.2, 0.6, 0.1, finished=False),
        a_run("mine", 1, finished=False),
    ]
    all_of_it = found(records, target=0.5)
    assert all_of_it.reaching.amounts["mine"]["rounds"] == {0: Amount(2), 1: Amount(0, False)}
    assert all_of_it.reaching.reached("mine") == (1, 2)
    assert {v: [*of_seed] for v, of_seed in all_of_it.shapes.items()} == {"base": [0], "mine": []}


def test_of_two_runs_of_a_seed_the_finished_one_counts_or_else_the_longer():
    short, long = a_run("base", 0, 0.2, finished=False), a_run("base", 0, 0.2, 0.3, finished=False)
    done = a_run("base", 0, 0.9)
    for records in ([short, long], [long, short]):
        assert found(records, 0.5).reaching.amounts["base"]["rounds"] == {0: Amount(2, False)}
    for records in ([long, done], [done, long]):
        assert found(records, 0.5).reaching.amounts["base"]["rounds"] == {0: Amount(1)}


def test_a_metric_with_values_per_class_is_followed_in_its_own_direction():
    errors = ([0.1, 0.1], [0.3, 0.05])
    one = found([a_run("base", 0, 0.2, 0.5, errors=errors)])
    assert one.by_class == "class_error"
    assert one.shapes["base"][0].drop == pytest.approx(0.1)
    assert found([a_run("base", 0, 0.2, 0.5)]).by_class is None


def test_p_is_corrected_over_the_variants_of_a_cost():
    records = []
    for seed in range(8):
        records += [a_run("base", seed, 0.1, 0.5), a_run("fast", seed, 0.5, 0.6)]
        records.append(a_run("slow", seed, 0.1, 0.2))
    reaching = found(records, 0.5).reaching
    fast, slow = (reaching.versus[v]["rounds"] for v in ("fast", "slow"))
    assert (fast.wins, slow.losses) == (8, 8)
    assert fast.p == pytest.approx(2 / 2**8)
    assert fast.adjusted_p == slow.adjusted_p == pytest.approx(2 * fast.p)
    assert fast.ratio == pytest.approx(0.5)
    assert slow.ratio is None
