"""A run that the machine ends is interrupted, not failed: counted, resumed, at last left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry
from fedbench.store.contents import Interrupted
from fedbench.store.directory import RunDirectory
from fedbench.study import TEMPORARY, records
from fedbench.study.execute import PATIENCE, Progress, _Execution, execute
from fedbench.study.grid import Grid, Job, collect, plan

pytestmark = pytest.mark.long

SMALL = ["domains.examples=12", "domains.clients_per_domain=1", "sgd.epochs=1", "model.width=2"]
FULL = "Error: c/runs/one/rounds.jsonl: No space left on device"


def planned(registry: Registry, folder: Path, rounds: int = 2) -> Job:
    (job,) = plan(registry, Grid(["fedavg"], set=SMALL, rounds=rounds, seeds=1), folder)
    return job


@pytest.fixture
def job(installed: Registry, tmp_path: Path) -> Job:
    return planned(installed, tmp_path)


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Job]]:
    """Let runs end with a status and a text instead of really running; return those that began."""

    def patch(status: int, text: str = "", act: Callable[[Job], Any] = lambda _: None) -> list[Job]:
        begun: list[Job] = []

        def run(execution: _Execution, job: Job, directory: RunDirectory) -> tuple[int, str]:
            begun.append(job)
            act(job)
            return status, text

        monkeypatch.setattr(_Execution, "_run", run)
        monkeypatch.setattr("fedbench.study.execute.SETTLE", 0.0)
        return begun

    return patch


def begin(registry: Registry, job: Job) -> None:
    """Play a round of a job's run and leave a checkpoint."""
    run = Run(job.config, job.path, registry=registry, checkpoint_rounds=1)
    rounds = run.rounds()
    next(rounds)
    rounds.close()
    assert (job.path / "checkpoint" / "checkpoint.json").is_file()


# --- which ends are interruptions ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (-signal.SIGKILL, "", "ended by SIGKILL, perhaps for lack of memory"),
        (128 + signal.SIGKILL, "", "ended by SIGKILL, perhaps for lack of memory"),
        (-signal.SIGBUS, "", "ended by SIGBUS"),
        (-signal.SIGABRT, "terminate called after ...", "ended by SIGABRT"),
        (128 + signal.SIGTERM, "Interrupted after 1 of 2 rounds", "ended by SIGTERM"),
        (128 + signal.SIGINT, "Interrupted", "ended by SIGINT"),
        (TEMPORARY, f"a warning\n{FULL}", FULL.removeprefix("Error: ")),
    ],
)
def test_what_the_machine_ends_is_interrupted(
    status: int, text: str, reason: str, job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    end(status, text, lambda job: begin(installed, job))
    final = execute([job])
    assert (final.done, final.failed) == (1, 0)
    assert final.interrupted == {job.path: Interrupted(1, reason)}
    assert final.left_alone == {}
    assert not (job.path / "error.txt").exists()
    assert (job.path / "run.log").read_text() == text
    (record,) = collect(installed, [job], print)
    assert (record.status, record.error) == ("interrupted", reason)


@pytest.mark.parametrize("status", [1, 2, 70])
def test_an_error_of_its_own_is_a_failure(status: int, job: Job, end: Callable[..., Any]) -> None:
    begun = end(status, "Error: loss is nan")
    assert execute([job]).failed == 1
    assert (job.path / "error.txt").read_text() == "loss is nan"
    assert execute([job]).failed == 1
    assert len(begun) == 1


def test_a_run_that_was_killed_when_all_was_done_is_finished(
    job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    end(-signal.SIGKILL, act=lambda job: Run(job.config, job.path, registry=installed).run())
    final = execute([job])
    assert (final.done, final.failed, final.interrupted) == (1, 0, {})
    assert not (job.path / "interrupted.json").exists()


def test_a_comparison_that_is_told_to_stop_counts_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(execution: _Execution, job: Job, directory: RunDirectory) -> tuple[int, str]:
        execution.stop.set()
        return -signal.SIGTERM, ""

    monkeypatch.setattr(_Execution, "_run", stopped)
    final = execute([job])
    assert (final.done, final.interrupted) == (0, {})
    assert not job.path.exists()


def test_a_disk_that_has_no_room_for_the_note_does_not_end_the_comparison(
    job: Job, end: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "interrupt", full)
    end(TEMPORARY, FULL)
    assert execute([job]).interrupted[job.path].times == 1


# --- how often -----------------------------------------------------------------------------------


def test_after_three_interruptions_a_run_is_left_alone_until_it_is_retried(
    job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    begin(installed, job)
    begun = end(-signal.SIGKILL)
    for times in range(1, PATIENCE + 1):
        assert execute([job]).interrupted[job.path].times == times
    assert len(begun) == PATIENCE
    final = execute([job])
    assert final.done == 1
    assert final.left_alone == {
        job.path: Interrupted(PATIENCE, "ended by SIGKILL, perhaps for lack of memory")
    }
    assert len(begun) == PATIENCE
    (record,) = collect(installed, [job], print)
    assert record.error == ("ended by SIGKILL, perhaps for lack of memory (interrupted 3 times)")
    assert execute([job], retry=True).interrupted[job.path].times == 1
    assert len(begun) == PATIENCE + 1
    assert (job.path / "checkpoint" / "checkpoint.json").is_file()


def test_a_run_that_finishes_forgets_its_interruptions(
    job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    begin(installed, job)
    end(-signal.SIGKILL)
    execute([job])
    before = {p.name for p in job.path.iterdir()}
    assert {"interrupted.json", "run.log"} <= before
    Run.resume(job.path, registry=installed).run()
    assert {p.name for p in job.path.iterdir()} & {"interrupted.json", "run.log"} == set()
    assert records.read(installed, job.path).status == "finished"


def test_a_run_that_pauses_where_it_should_forgets_its_interruptions(
    job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    """As a pruning search does, which would take the run for failed, and wear its patience out."""
    begin(installed, job)
    end(-signal.SIGKILL)
    execute([job])
    assert records.read(installed, job.path).status == "interrupted"
    end(0)
    execute([job], words=["--until", "1"])
    assert records.read(installed, job.path).status == "unfinished"


def test_a_run_that_was_killed_before_it_had_a_folder_starts_in_it(
    job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    end(-signal.SIGKILL)
    assert execute([job]).interrupted[job.path].times == 1
    assert execute([job]).interrupted[job.path].times == 2
    assert sorted(p.name for p in job.path.iterdir()) == ["interrupted.json", "run.log"]
    assert collect(installed, [job], print) == []
    Run(job.config, job.path, registry=installed).run()
    assert execute([job]).reused == 1


# --- retrying ------------------------------------------------------------------------------------


def test_a_failed_run_is_retried_from_its_checkpoint(
    job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    begin(installed, job)
    RunDirectory(job.path).fail(job.config, "a bug", "a bug")
    seen: list[list[str]] = []
    end(1, "a bug", lambda job: seen.append([p.name for p in job.path.rglob("*")]))
    execute([job], retry=True)
    assert "state-1.safetensors" in seen[0]
    assert not {"error.txt", "run.log"} & set(seen[0])


@pytest.mark.parametrize("what", ["checkpoint/checkpoint.json", "rounds.jsonl", "config.yaml only"])
def test_a_failed_run_that_cannot_be_resumed_starts_anew(
    what: str, job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    if what != "config.yaml only":
        begin(installed, job)
        (job.path / what).write_text("{")
    RunDirectory(job.path).fail(job.config, "a bug", "a bug")
    end(0, act=lambda job: Run(job.config, job.path, registry=installed).run())
    assert execute([job], retry=True).failed == 0
    assert execute([job]).reused == 1


def test_a_run_that_another_process_is_at_is_not_retried(
    job: Job, installed: Registry, end: Callable[..., Any]
) -> None:
    begin(installed, job)
    RunDirectory(job.path).fail(job.config, "a bug", "a bug")
    resumed = Run.resume(job.path, registry=installed)
    begun = end(1)
    final = execute([job], retry=True)
    assert "another process is running in it" in final.interrupted[job.path].reason
    assert begun == []
    assert len(resumed.run()["weights_sha256"]) == 64


# --- processes -----------------------------------------------------------------------------------


def test_a_run_that_is_killed_is_resumed_by_the_same_command(
    installed: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, started = planned(installed, tmp_path, rounds=40), []
    start = subprocess.Popen

    def spy(*words: Any, **more: Any) -> Any:
        started.append(start(*words, **more))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", spy)

    def kill(progress: Progress) -> None:
        if any(done >= 3 for done, _ in progress.running.values()):
            os.kill(started[0].pid, signal.SIGKILL)

    words = ["--checkpoint-rounds", "1"]
    assert list(execute([job], words=words, show=kill).interrupted) == [job.path]
    checkpoint = json.loads((job.path / "checkpoint" / "checkpoint.json").read_text())
    kept = (job.path / "rounds.jsonl").read_text().splitlines()[: checkpoint["round"]]
    assert len(kept) >= 2
    final = execute([job], words=words)
    assert (final.done, final.failed, final.interrupted) == (1, 0, {})
    lines = (job.path / "rounds.jsonl").read_text().splitlines()
    assert lines[: len(kept)] == kept
    whole = Run(job.config, registry=installed).run()
    result = json.loads((job.path / "result.json").read_text())
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert result["metrics_sha256"] == whole["metrics_sha256"]


def test_no_code_from_the_current_folder_runs_and_no_link_is_followed(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in (
        *("random", "queue", "token", "types", "statistics", "threading", "logging", "numpy"),
        *("torch", "click", "fedbench", "fedbench_baselines", "sitecustomize", "usercustomize"),
    ):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'hit')!r}, 'a').write('{name} ')")
    (tmp_path / "precious").write_text("precious")
    job.path.parent.mkdir()
    (job.path.parent / f".{job.path.name}.log").symlink_to(tmp_path / "precious")
    monkeypatch.chdir(here)
    final = execute([job])
    assert (final.done, final.failed, final.interrupted) == (1, 0, {})
    assert not (tmp_path / "hit").exists()
    assert (tmp_path / "precious").read_text() == "precious"
