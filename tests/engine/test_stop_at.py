"""A run with ``stop_at`` is the same run, ended after the first scored round that reaches it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedbench import ConfigError, Run
from fedbench.config.model import RunConfig
from fedbench.config.resolve import resolve
from fedbench.engine.totals import canonical_round
from fedbench.engine.verify import Kept
from fedbench.plugins.registry import Registry
from fedbench.store import digests
from fedbench.store.directory import RunDirectory

ROUNDS = 6


def means(run: Run, metric: str = "accuracy") -> list[float]:
    return [one.scores["classifier"][metric].mean for one in run.history if one.scores]


@pytest.fixture
def whole(run_tiny: Callable[..., Run], tmp_path: Path) -> Run:
    """The run without ``stop_at``."""
    return run_tiny(directory=tmp_path / "whole", rounds=ROUNDS)


def first(values: list[float], target: float) -> int:
    return next(n for n, value in enumerate(values, 1) if value >= target)


def between(values: list[float]) -> tuple[float, int]:
    """Return a target that a round before the last one reaches first, and that round."""
    target = max(values[1:-1])
    return target, first(values, target)


def test_it_ends_with_the_same_bits_after_the_round_that_reaches_it(
    whole: Run, run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    target, last = between(means(whole))
    assert last < ROUNDS
    run = run_tiny(directory=tmp_path / "short", rounds=ROUNDS, stop_at=target)
    assert len(run.history) == last
    assert [*map(canonical_round, run.history)] == [*map(canonical_round, whole.history[:last])]
    kept = digests.read(tmp_path / "whole")
    assert digests.read(tmp_path / "short") == {n: kept[n] for n in range(1, last + 1)}
    result = run.result()
    assert result["stop_at"] == {"value": target, "reached": True}
    assert (result["rounds"], RunDirectory(tmp_path / "short").finished) == (last, True)
    wording = "last round" if last == 1 else f"mean of the last {min(last, 5)} rounds"
    assert result["accuracy"]["rule"] == wording


def test_a_run_that_does_not_reach_it_says_so(run_tiny: Callable[..., Run]) -> None:
    run = run_tiny(rounds=2, stop_at=1.0)
    assert run.result()["stop_at"] == {"value": 1.0, "reached": max(means(run)) == 1.0}
    assert len(run.history) == 2


def test_without_it_nothing_is_said(whole: Run) -> None:
    assert whole.result()["stop_at"] is None


def test_only_scored_rounds_end_a_run(whole: Run, run_tiny: Callable[..., Run]) -> None:
    scored = means(whole)[1::2]  # rounds 2, 4 and 6
    target = scored[1] if scored[1] > scored[0] else scored[0]
    run = run_tiny(rounds=ROUNDS, evaluate_every=2, stop_at=target)
    assert len(run.history) == 2 * first(scored, target)


def test_a_metric_that_should_be_low_ends_a_run_from_above(
    whole: Run, run_tiny: Callable[..., Run]
) -> None:
    losses = means(whole, "loss")
    target = min(losses[:3])
    run = run_tiny(rounds=ROUNDS, accuracy={"metric": "loss"}, stop_at=target)
    assert len(run.history) == losses.index(target) + 1


def test_the_scores_are_those_that_the_rule_is_about(run_tiny: Callable[..., Run]) -> None:
    given: dict[str, Any] = {"rounds": ROUNDS, "clients": {"test": 0.3}}
    rule = {"population": "clients"}
    over = run_tiny(accuracy=rule, **given).history
    values = [one.client_scores["classifier"]["accuracy"].mean for one in over]
    target, last = between(values)
    assert len(run_tiny(accuracy=rule, stop_at=target, **given).history) == last


@pytest.mark.parametrize("after", [1, "last"])
def test_a_run_that_was_interrupted_ends_where_it_would_have(
    whole: Run,
    after: Any,
    tiny_config: Callable[..., RunConfig],
    registry: Registry,
    tmp_path: Path,
) -> None:
    target, last = between(means(whole))
    config = tiny_config(registry, rounds=ROUNDS, stop_at=target)
    path = tmp_path / "cut"
    cut = Run(config, path, registry=registry, checkpoint_rounds=1)
    with closing(cut.rounds()) as rounds:
        for one in rounds:
            if one.round == (last if after == "last" else after):
                break  # with "last", the round is written, and the result is not
    assert not RunDirectory(path).finished
    resumed = Run.resume(path, registry=registry)
    resumed.run()
    assert len(resumed.history) == last
    kept = digests.read(tmp_path / "whole")
    assert digests.read(path) == {n: kept[n] for n in range(1, last + 1)}
    assert resumed.result()["stop_at"] == {"value": target, "reached": True}


def test_a_run_that_ended_early_is_verified(
    whole: Run, run_tiny: Callable[..., Run], registry: Registry, tmp_path: Path
) -> None:
    target, last = between(means(whole))
    path = tmp_path / "short"
    run_tiny(directory=path, rounds=ROUNDS, stop_at=target)
    verdict = Kept(registry, path).verify()
    assert (verdict.difference, verdict.rounds) == (None, last)
    result = json.loads((path / "result.json").read_text())
    result["stop_at"]["reached"] = False
    (path / "result.json").write_text(json.dumps(result))
    difference = Kept(registry, path).verify().difference
    assert difference is not None
    assert difference.startswith("result.json, stop_at: ")


# the config


def test_a_config_without_it_keeps_its_hash(
    tiny_config: Callable[..., RunConfig], registry: Registry
) -> None:
    plain, none = tiny_config(registry), tiny_config(registry, stop_at=None)
    assert plain.hash == none.hash != tiny_config(registry, stop_at=0.5).hash


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (30, "command line: stop_at: 30: accuracy is a fraction from 0 to 1; write 0.3"),
        (-0.1, "command line: stop_at: -0.1: accuracy is a fraction from 0 to 1"),
        ("x", "--stop-at x: write METRIC=VALUE, such as accuracy=0.9"),
        (
            "loss=0.5",
            "--stop-at loss=0.5: the run reports 'accuracy'; add --set accuracy.metric=loss to "
            "report 'loss'",
        ),
    ],
)
def test_a_value_that_cannot_end_a_run_is_refused(
    given: Any, message: str, registry: Registry
) -> None:
    with pytest.raises(ConfigError) as found:
        resolve(registry, "fedavg", flags={"stop_at": given})
    assert str(found.value) == message


@pytest.mark.parametrize("given", ["accuracy=0.5", "0.5", 0.5])
def test_it_may_name_the_metric_that_the_run_reports(given: Any, registry: Registry) -> None:
    assert resolve(registry, "fedavg", flags={"stop_at": given}).stop_at == 0.5


def test_the_metric_may_be_changed_with_it(registry: Registry) -> None:
    sets = ["accuracy.metric=loss"]
    config = resolve(registry, "fedavg", sets=sets, flags={"stop_at": "loss=2.5"})
    assert (config.accuracy.metric, config.stop_at) == ("loss", 2.5)


def test_a_method_that_needs_its_last_round_is_refused(registry: Registry) -> None:
    message = r"^command line: stop_at: ccvr needs the last of the rounds: it retrains"
    with pytest.raises(ConfigError, match=message):
        resolve(registry, "ccvr", flags={"stop_at": 0.5})
