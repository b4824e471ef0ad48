"""``fedbench compare``: what its exit status says of runs that failed or were interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fedbench.store.directory import RunDirectory
from fedbench.study.execute import _Execution

FULL = "Error: one/rounds.jsonl: No space left on device"


@pytest.fixture
def compare(
    fedbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Compare FedAvg with itself on one seed, where each run ends with a status and a text."""

    def call(status: int, text: str, *words: str, begun: bool = True) -> Result:
        def run(execution: _Execution, job: Any, directory: RunDirectory) -> tuple[int, str]:
            if begun and not directory.exists:
                RunDirectory.create(job.path, job.config)
            return status, text

        monkeypatch.setattr(_Execution, "_run", run)
        given = ("--seeds", "1", "--rounds", "1", "--set", "model.width=2", "--trust-old")
        return fedbench("compare", "fedavg", *given, "--quiet", *words)

    return call


def test_interrupted_runs_are_named_and_the_same_command_may_succeed(
    compare: Callable[..., Result],
) -> None:
    done = compare(75, FULL)
    assert done.exit_code == 75, done.output
    (path,) = [p for p in Path("comparison/runs").iterdir() if not p.name.startswith(".")]
    reason = "one/rounds.jsonl: No space left on device"
    assert done.stdout.splitlines()[-1] == (
        f"interrupted: {path}: {reason}; the same command resumes it"
    )
    assert f"interrupted: fedavg, seed 0: {reason}" in " ".join(done.stdout.split())
    assert "1 interrupted" in Path("comparison/table.md").read_text()


def test_runs_that_were_interrupted_three_times_are_left_alone(
    compare: Callable[..., Result],
) -> None:
    assert [compare(75, FULL).exit_code for _ in range(3)] == [75, 75, 1]
    done = compare(0, "not run any more")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].endswith(
        "No space left on device (interrupted 3 times); left alone; remove the cause (fewer --jobs "
        "need less memory), then add --retry"
    )


def test_runs_that_were_interrupted_before_they_began_need_no_report(
    compare: Callable[..., Result],
) -> None:
    done = compare(-9, "", begun=False)
    assert done.exit_code == 75, done.output
    assert done.stdout.startswith("interrupted: comparison/runs/digits-fedavg-s0-")
    assert "ended by SIGKILL, perhaps for lack of memory; the same command" in done.stdout


def test_a_failure_counts_more_than_an_interruption(compare: Callable[..., Result]) -> None:
    assert compare(1, "Error: loss is nan").exit_code == 1
