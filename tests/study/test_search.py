"""A search spends the same budget on every method, and its trials depend on nothing but the seed.

Scores come from formulas; real runs are in test_tuning.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import optuna
import pytest

from fedbench import Search as Declared
from fedbench.study import sampling
from fedbench.study.sampling import Sampler, Storage, importances, prunes
from fedbench.study.search import Budget, Outcome, Point, Search, advance
from fedbench.study.spaces import Space, Spaces
from fedbench.study.trials import Trial, best, rank

LR = Space(Declared(low=1e-3, high=1.0, scale="log"))
MU = Space(Declared(choices=(0.001, 0.01, 0.1, 1.0)))
EPOCHS = Space(Declared(low=1, high=5), whole=True)
DEFAULT = {"sgd.lr": 0.01, "fedprox.mu": 0.01}


def hill(point: Point) -> float:
    """Return a score that is best at lr = 0.1, mu = 0.01."""
    values = point.values
    return 1 - sum(
        abs(math.log10(values[key]) - top) / 5
        for key, top in (("sgd.lr", -1), ("fedprox.mu", -2))
        if key in values
    )


def score(points: Sequence[Point], rounds: int) -> list[Outcome]:
    return [Outcome(hill(point) * rounds / (rounds + 3)) for point in points]


def search(
    spaces: Spaces | None = None, name: str = "tpe", seed: int = 0, **budget: object
) -> Search:
    spaces = {"sgd.lr": LR, "fedprox.mu": MU} if spaces is None else spaces
    spend = Budget(**{"trials": 20, "rounds": 8, **budget})
    default = {key: DEFAULT.get(key, 3) for key in spaces}
    return Search("fedprox", spaces, default, spend, Sampler(name, seed, spend.trials, True))


def run(*searches: Search, evaluate=score) -> None:
    while advance(searches, evaluate):
        pass


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
def test_every_method_gets_the_budget_and_begins_with_its_default(name: str) -> None:
    one, two = search(name=name), search({"sgd.lr": LR}, name=name)
    run(one, two)
    for found in (one, two):
        assert found.trials[0].values == found.default
        assert [trial.number for trial in found.trials] == list(range(20))
        assert found.spent == 20 * 8
        assert len({str(trial.values) for trial in found.trials}) == 20


def test_values_stay_in_their_spaces() -> None:
    found = search({"sgd.lr": LR, "sgd.epochs": EPOCHS, "fedprox.mu": MU}, trials=40)
    run(found)
    for trial in found.trials:
        assert all(trial.values[key] in space for key, space in found.spaces.items())
        assert isinstance(trial.values["sgd.epochs"], int)
        assert float(f"{trial.values['sgd.lr']:.4g}") == trial.values["sgd.lr"]


def test_a_search_finds_a_better_point_than_its_default() -> None:
    found = search(trials=30)
    run(found)
    assert found.best.score > found.trials[0].score + 0.1
    assert abs(math.log10(found.best.values["sgd.lr"]) + 1) < 0.3


def test_the_same_seed_gives_the_same_trials_and_another_others() -> None:
    one, two, other = search(), search(), search(seed=1)
    run(one, two, other)
    assert one.trials == two.trials
    assert one.trials[1].values != other.trials[1].values


def test_a_search_does_not_depend_on_the_searches_beside_it() -> None:
    alone, beside = search(), search()
    run(alone)
    run(search({"sgd.lr": LR}), beside, search({}))
    assert alone.trials == beside.trials


def test_an_interrupted_search_continues_as_if_it_had_not_been() -> None:
    whole, cut = search(), search()
    run(whole)
    advance([cut], score)
    again = search()
    again.trials = list(cut.trials)
    run(again)
    assert again.trials == whole.trials


def test_a_longer_search_begins_with_the_shorter_one() -> None:
    short, long = search(trials=10), search(trials=20)
    run(short, long)
    assert long.trials[:10] == short.trials


def test_trials_are_told_in_the_order_of_asking() -> None:
    seen: list[int] = []

    def evaluate(points: Sequence[Point], rounds: int) -> list[Outcome]:
        seen.append(len(points))
        return score(points, rounds)

    found = search(trials=10, batch=4)
    run(found, evaluate=evaluate)
    assert seen == [4, 4, 2]
    assert [t.score for t in found.trials] == [
        score([Point("", t.values)], 8)[0].score for t in found.trials
    ]


def test_a_method_without_options_to_search_has_only_its_default() -> None:
    found = search({})
    run(found)
    assert [trial.values for trial in found.trials] == [{}]


def test_a_space_with_few_points_is_tried_out_and_no_point_twice() -> None:
    for name in ("tpe", "random", "grid"):
        found = search({"fedprox.mu": MU}, name=name)
        run(found)
        assert sorted(trial.values["fedprox.mu"] for trial in found.trials) == [0.001, 0.01, 0.1, 1]


def test_a_default_outside_its_space_is_tried_all_the_same() -> None:
    high = Space(Declared(low=0.1, high=1.0, scale="log"))
    found = search({"sgd.lr": high, "fedprox.mu": MU}, trials=30)
    run(found)
    assert found.trials[0].values["sgd.lr"] == 0.01
    assert all(trial.values["sgd.lr"] >= 0.1 for trial in found.trials[1:])
    assert len(found.trials) == 30


def test_a_failed_trial_is_charged_in_full_and_is_never_the_best() -> None:
    def fails(points: Sequence[Point], rounds: int) -> list[Outcome]:
        return [
            Outcome(None, "loss is nan") if p.values["sgd.lr"] > 0.05 else Outcome(hill(p))
            for p in points
        ]

    found = search()
    run(found, evaluate=fails)
    failed = [trial for trial in found.trials if trial.status == "failed"]
    assert failed
    assert {(trial.rounds, trial.error, trial.score) for trial in failed} == {
        (8, "loss is nan", None)
    }
    assert found.spent == 20 * 8
    assert found.best.values["sgd.lr"] <= 0.05


def test_if_all_fail_the_default_stands() -> None:
    found = search(trials=4)
    run(found, evaluate=lambda points, rounds: [Outcome(None, "no")] * len(points))
    assert found.best.number == 0
    assert rank(found.trials, found.trials[0], True) is None


def test_lower_may_be_better() -> None:
    trials = [Trial(0, {}, 1, 0.3), Trial(1, {}, 1, 0.2), Trial(2, {}, 1, None, {}, "x")]
    assert best(trials, False).number == 1
    assert best(trials, True).number == 0
    assert rank(trials, trials[0], False) == 2
    assert rank(trials, trials[0], True) == 1


def test_equal_scores_share_a_rank_and_the_first_is_best() -> None:
    trials = [Trial(n, {}, 1, value) for n, value in enumerate((0.5, 0.7, 0.7, 0.5))]
    assert best(trials, True).number == 1
    assert [rank(trials, trial, True) for trial in trials] == [3, 1, 1, 3]


@pytest.mark.parametrize(
    ("rounds", "every", "rungs"),
    [(8, 1, (2, 4, 6, 8)), (20, 5, (5, 10, 15, 20)), (10, 4, (4, 8, 10)), (1, 1, (1,))],
)
def test_pruning_looks_at_scored_rounds(rounds: int, every: int, rungs: tuple[int, ...]) -> None:
    assert Budget(5, rounds, prune=True, evaluate_every=every).rungs == rungs
    assert Budget(5, rounds, evaluate_every=every).rungs == (rounds,)


def test_with_pruning_the_budget_is_equal_in_rounds() -> None:
    one = search(prune=True, seeds=2)
    two = search({"sgd.lr": LR}, prune=True, seeds=2)
    run(one, two)
    for found in (one, two):
        total, full = 20 * 8 * 2, 8 * 2
        assert total - full < found.spent <= total
        assert len(found.trials) > 20
        for trial in found.trials:
            assert trial.rounds == (2 * max(trial.curve) if trial.curve else 16)
            assert (trial.status == "complete") == (8 in trial.curve)
    assert {t.status for t in one.trials} == {"complete", "pruned"}


def test_a_trial_is_pruned_below_the_median_of_the_batches_before_it() -> None:
    found = search(prune=True, batch=4)
    run(found)
    for trial in found.trials:
        start = trial.number // 4 * 4
        before = [t for t in found.trials[:start] if t.score is not None]
        for rung in list(trial.curve)[:-1] if trial.score is None else trial.curve:
            if rung == 8 or len(before) < sampling.STARTUP:
                continue
            so_far = max(value for r, value in trial.curve.items() if r <= rung)
            assert so_far >= median(t.curve[rung] for t in before)
        if trial.status == "pruned":
            end = max(trial.curve)
            assert max(trial.curve.values()) < median(t.curve[end] for t in before)


def test_nothing_is_pruned_before_there_are_enough_complete_trials() -> None:
    few = [Trial(n, {}, 8, 0.9, {2: 0.9}) for n in range(sampling.STARTUP)]
    assert not prunes({}, few[:-1], {2: 0.1}, True)
    assert prunes({}, few, {2: 0.1}, True)
    assert not prunes({}, few, {2: 0.1}, False)


def test_importance_names_the_option_that_matters_and_needs_enough_trials() -> None:
    spaces = {"sgd.lr": LR, "sgd.epochs": EPOCHS}
    found = search(spaces, name="random", trials=60)
    run(found)
    shares = importances(spaces, found.trials, True)
    assert shares["sgd.lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(spaces, found.trials[: sampling.ENOUGH - 1], True) == {}
    assert importances({"sgd.lr": LR}, found.trials, True) == {}


def test_optuna_reads_the_trials_and_older_results_are_replaced(tmp_path: Path) -> None:
    found = search({"sgd.lr": LR, "fedprox.mu": MU}, trials=8)
    run(found)
    trials = [*found.trials, Trial(8, {"sgd.lr": 0.5, "fedprox.mu": 1.0}, 8, None, {}, "nan")]
    file = tmp_path / "trials.db"
    with Storage(file) as storage:
        storage.keep("fedprox", found.spaces, trials[:4], True)
        storage.keep("fedprox", found.spaces, trials, True)
        storage.keep("fedprox", found.spaces, trials, True)
    study = optuna.load_study(study_name="fedprox", storage=f"sqlite:///{file}")
    assert [one.value for one in study.trials] == [*(t.score for t in found.trials), -math.inf]
    assert study.best_trial.number == found.best.number
    assert study.trials[1].params["sgd.lr"] == trials[1].values["sgd.lr"]
    assert study.trials[8].user_attrs["error"] == "nan"
    trials[2] = Trial(2, trials[2].values, 8, 0.123, {8: 0.123})
    with Storage(file) as storage:
        storage.keep("fedprox", found.spaces, trials, True)
    study = optuna.load_study(study_name="fedprox", storage=f"sqlite:///{file}")
    assert [one.value for one in study.trials][2] == 0.123
    assert len(study.trials) == 9
