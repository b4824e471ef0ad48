"""Verdicts on hand-made numbers: what is within the rule, beyond it, or not known yet."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedbench.config.model import Accuracy
from fedbench.engine.evaluation import over_domains
from fedbench.study import verdicts
from fedbench.study.censoring import Amount
from fedbench.study.grid import Grid
from fedbench.study.reproductions import Cell, Part, Rule
from fedbench.study.verdicts import Verdict, judge, pair, value, worst
from fedbench.types import RoundResult


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


def scored(number: int, accuracy: float) -> RoundResult:
    scores = {"classifier": {"accuracy": over_domains({"x": accuracy}, True)}}
    return RoundResult(number, [0], scores, {}, {}, {}, 1.0)


@pytest.fixture
def judged(registry, monkeypatch: pytest.MonkeyPatch):
    """Judge runs with these curves: method -> the accuracies of the rounds of each seed."""

    def judged(published, curves, stop_at=None, order=(), score="mean"):
        cell = Cell("a cell", published=published, order=order, score=score)
        config = {"accuracy": Accuracy(), "stop_at": stop_at}
        jobs, records = [], []
        for method, of_seed in curves.items():
            for seed, curve in enumerate(of_seed):
                path, here = Path(f"{method}-{seed}"), SimpleNamespace(seed=seed, **config)
                jobs.append(SimpleNamespace(config=here, method=method, also=(), path=path))
                rounds = [scored(n, a) for n, a in enumerate(curve, 1)]
                result = SimpleNamespace(accuracy=SimpleNamespace(**{score: curve[-1]}))
                records.append(
                    SimpleNamespace(path=path, config=here, rounds=rounds, result=result)
                )
        monkeypatch.setattr(verdicts, "collect", lambda *_: records)
        part = Part("c", cell, Grid(methods=list(curves)), {})
        return judge(registry, part, Rule(percent=25), jobs)

    return judged


def test_accuracies_are_those_of_the_runs_rule(judged) -> None:
    found = judged({"a": 0.8, "b": 0.4}, {"a": [[0.1, 0.7]], "b": [[0.9, 0.3], [0.9, 0.5]]})
    assert not found.rounds
    assert [v.summary.mean for v in found.values] == [0.7, 0.4]
    assert found.outcome == "reproduced"


def test_with_stop_at_rounds_are_counted_to_the_first_that_reaches_it(judged) -> None:
    curves = {"a": [[0.5, 0.9, 0.8], [0.9]], "b": [[0.5, 0.9, 0.9], [0.1] * 5]}
    found = judged({"a": 2, "b": 2}, curves, stop_at=0.9)
    assert found.rounds
    assert [dict(v.measured) for v in found.values] == [
        {0: Amount(2), 1: Amount(1)},
        {0: Amount(2), 1: Amount(5, False)},
    ]
    assert [v.outcome for v in found.values] == ["reproduced", "not reproduced"]


def test_fewer_rounds_are_the_better_ones(judged) -> None:
    fast, slow = [[0.1, 0.9], [0.1, 0.1, 0.9], [0.1, 0.9]], [[0.1] * n + [0.9] for n in (7, 9, 8)]
    found = judged({}, {"a": slow, "b": fast}, stop_at=0.9, order=("b", "a"))
    assert found.pairs[0].outcome == found.outcome == "reproduced"


@pytest.mark.parametrize(("score", "outcome"), [("worst", "reproduced"), ("std", "not reproduced")])
def test_a_cell_may_judge_the_worst_clients_or_the_deviation_of_which_less_is_better(
    judged, score: str, outcome: str
) -> None:
    high, low = [[0.31], [0.29], [0.30]], [[0.2], [0.2], [0.2]]
    found = judged({"a": 0.25}, {"a": high, "b": low}, order=("a", "b"), score=score)
    assert [v.summary.mean for v in found.values] == pytest.approx([0.3, 0.2])
    assert found.values[0].outcome == "reproduced"
    assert found.pairs[0].outcome == outcome
