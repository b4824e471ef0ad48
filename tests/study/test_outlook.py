"""What a comparison says that it would run, and what it then runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry
from fedbench.store import fingerprint
from fedbench.store.directory import RunDirectory
from fedbench.study.comparison import How, forecast
from fedbench.study.execute import PATIENCE, Progress, as_kept
from fedbench.study.grid import Job
from fedbench.study.outlook import left


@pytest.fixture
def planned(registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path) -> list[Job]:
    """Five runs: a finished one, one that failed, one left alone, one begun and a new one."""
    configs = [tiny_config(registry, seed=seed, rounds=3) for seed in range(5)]
    jobs = [Job(one, "fedavg", tmp_path / "runs" / str(one.seed)) for one in configs]
    finished, failed, ended, begun, _ = (RunDirectory(job.path) for job in jobs)
    Run(configs[0], finished.path, registry=registry).run()
    failed.path.mkdir()
    failed.fail(configs[1], "out of luck", "")
    for _ in range(PATIENCE):
        ended.interrupt("killed", "")
    rounds = Run(configs[3], begun.path, registry=registry).rounds()
    next(rounds)
    rounds.close()
    return jobs


def test_runs_are_counted_by_method_and_in_all(registry: Registry, planned: list[Job]) -> None:
    protocol, line, total = forecast(registry, planned, How())
    assert protocol == "data tiny, no card"
    parts = (
        "1 finished, 1 failed before (--retry tries again), "
        "1 interrupted too often (--retry tries again), 2 to run"
    )
    assert line == f"fedavg: {parts}"
    assert total == f"5 in all: {parts}; 5 rounds to go"
    *_, total = forecast(registry, planned, How(retry=True))
    assert total == "5 in all: 1 finished, 2 to run, 2 to try again; 11 rounds to go"


def test_a_run_from_before_a_change_would_be_repeated(
    registry: Registry, planned: list[Job]
) -> None:
    finished = RunDirectory(planned[0].path)
    depends = finished.read_environment().depends
    finished.write_depends({**depends, fingerprint.CORE: "another"})
    *_, total, why = forecast(registry, planned[:1], How())
    assert total == "1 in all: 1 to repeat; 3 rounds to go"
    assert why.startswith("1 run is repeated because of a change since then")
    *_, total = forecast(registry, planned[:1], How(trust_old=True))
    assert total == "1 in all: 1 finished; 0 rounds to go"


@pytest.mark.parametrize(("retry", "number"), [(False, 2), (True, 4)])
def test_what_would_be_run_is_run(
    registry: Registry, planned: list[Job], retry: bool, number: int
) -> None:
    assert len(left(planned, retry=retry, changes=lambda _: ())) == number
    before = forecast(registry, planned, How(retry=retry))
    assert before == forecast(registry, planned, How(retry=retry))
    progress = Progress(len(planned))
    kept = [as_kept(job, progress, retry=retry, changes=lambda _: ()) for job in planned]
    assert kept.count({}) == number
