"""A kept run is reused while its result would be the same today, and believed while it fits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench import ConfigError, Run
from fedbench.plugins.registry import Registry
from fedbench.store import fingerprint
from fedbench.store.directory import RunDirectory
from fedbench.store.files import default_data_root
from fedbench.study import records
from fedbench.study.analysis import differences
from fedbench.study.execute import execute
from fedbench.study.grid import Grid, Job, collect, plan
from fedbench.study.reuse import UNKNOWN, Reuse

SMALL = ["domains.examples=12", "domains.clients_per_domain=1", "sgd.epochs=1", "model.width=2"]


@pytest.fixture
def job(registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path) -> Job:
    """A finished run of a plan."""
    config = tiny_config(registry)
    made = Job(config, "fedavg", tmp_path / "runs" / "one")
    made.path.parent.mkdir()
    Run(config, made.path, registry=registry).run()
    return made


@pytest.fixture
def reuse(registry: Registry) -> Reuse:
    return Reuse(registry, default_data_root())


def changed(job: Job, name: str, text: str = "another") -> None:
    directory = RunDirectory(job.path)
    directory.write_depends({**directory.read_environment().depends, name: text})


def test_a_run_of_today_is_reused(job: Job, reuse: Reuse) -> None:
    assert reuse.changes(job) == []
    assert reuse.summary([job]) is None


@pytest.mark.parametrize("name", [fingerprint.CORE, fingerprint.DATA, "plugin sgd", "switches"])
def test_what_changed_is_named_in_one_line(name: str, job: Job, reuse: Reuse) -> None:
    changed(job, name)
    (change,) = reuse.changes(job)
    assert change.startswith(f"{name}: another then")
    line = reuse.summary([job])
    assert line is not None
    assert line.startswith(f"1 run is repeated because of a change since then: {name}: another")
    assert "--trust-old" in line


def test_a_run_that_keeps_no_fingerprint_is_not_trusted(job: Job, reuse: Reuse) -> None:
    RunDirectory(job.path).write_depends({})
    assert reuse.changes(job) == [UNKNOWN]


def test_data_that_cannot_be_read_is_an_error_that_names_the_flag(
    job: Job, reuse: Reuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConfigError("no such file")

    monkeypatch.setattr("fedbench.testing.TinyData.load", fail)
    with pytest.raises(ConfigError, match="no such file") as caught:
        reuse.changes(job)
    assert "--trust-old" in caught.value.__notes__[0]


def test_trust_in_old_runs_ends_where_one_would_have_to_be_resumed(
    job: Job, registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    config = tiny_config(registry, rounds=2)
    paused = Job(config, "fedavg", job.path.parent / "two")
    rounds = Run(config, paused.path, registry=registry, checkpoint_rounds=1).rounds()
    next(rounds)
    rounds.close()
    trusting = Reuse(registry, default_data_root(), trust_old=True)
    assert trusting.summary([job, paused]) is None
    for each in (job, paused):
        changed(each, fingerprint.CORE)
    assert trusting.changes(job) == []
    (change,) = trusting.changes(paused)
    with pytest.raises(ConfigError, match=re.escape(change)):
        Run.resume(paused.path, registry=registry)
    RunDirectory(job.path).environment_file.write_text("damaged")
    line = trusting.summary([job, paused])  # what is trusted is not read
    assert line == f"1 run is repeated because of a change since then: {change}"


@pytest.mark.long
def test_a_run_that_is_made_anew_is_set_aside_not_lost(installed: Registry, tmp_path: Path) -> None:
    grid = Grid(methods=["fedavg"], set=SMALL, rounds=1, seeds=1)
    (job,) = plan(installed, grid, tmp_path)
    assert execute([job]).done == 1
    (job.path / "mark").touch()
    final = execute([job], changes=lambda _: ["plugin sgd: changed"])
    assert (final.done, final.reused) == (1, 0)
    assert RunDirectory(job.path).finished
    assert not (job.path / "mark").exists()
    assert (tmp_path / "replaced" / f"{job.path.name}-1" / "mark").exists()


# --- files that contradict each other ------------------------------------------------------------


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data) + "\n")


def better(data: dict[str, Any]) -> None:
    data["accuracy"]["mean"] += 0.1


def test_files_that_fit_are_read(job: Job, registry: Registry) -> None:
    lines: list[str] = []
    assert len(collect(registry, [job], lines.append)) == 1
    assert lines == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (better, "its result has accuracy"),
        (lambda data: data.update(seed=7), "its result has seed 7, its config 0"),
        (lambda data: data.update(config_hash="0" * 64), "its config is not the one"),
        (lambda data: data["accuracy"].update(mean=math.nan), "its accuracy is not a finite"),
        (
            lambda data: data.update(stop_at={"value": 0.5, "reached": True}),
            "its result and its rounds disagree on whether it reached stop_at",
        ),
    ],
    ids=["accuracy", "seed", "config", "nan", "stop_at"],
)
def test_a_result_that_does_not_fit_is_named_and_left_out(
    change: Callable[[dict[str, Any]], None], why: str, job: Job, registry: Registry
) -> None:
    edited(job.path / "result.json", change)
    lines: list[str] = []
    assert collect(registry, [job], lines.append) == []
    (line,) = lines
    assert line.startswith(f"{job.path} is left out: {why}")


def test_a_run_that_ends_in_time_without_reaching_its_target_is_read(
    registry: Registry, run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    clock = {"constant": {}}
    run = run_tiny("fedavg", tmp_path / "run", rounds=3, extra=clock, stop_at=0.9999, stop_time=0.3)
    assert len(run.history) < 3
    record = records.read(registry, tmp_path / "run")
    assert record.result
    assert record.result.stop_at
    assert not record.result.stop_at.reached
    assert records.contradiction(registry, record) is None


def test_rounds_of_another_run_are_named_and_left_out(job: Job, registry: Registry) -> None:
    path = job.path / "rounds.jsonl"
    first, *rest = path.read_text().splitlines()
    data = json.loads(first)
    data["metrics"]["loss.ce" if "loss.ce" in data["metrics"] else next(iter(data["metrics"]))] = (
        9.0
    )
    path.write_text("\n".join([json.dumps(data), *rest]) + "\n")
    lines: list[str] = []
    assert collect(registry, [job], lines.append) == []
    assert "its rounds are not those that its result was computed from" in lines[0]


# --- what runs of one table do not share ---------------------------------------------------------


def test_runs_that_share_all_have_no_difference(job: Job, registry: Registry) -> None:
    found = collect(registry, [job, job])
    assert differences(found) == []


def test_a_difference_is_named_with_the_variants_that_have_it(
    job: Job, registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    other = Job(tiny_config(registry, "moon"), "moon", job.path.parent / "two")
    Run(other.config, other.path, registry=registry).run()
    changed(other, fingerprint.DATA, "xxh3:0123456789abcdef")
    changed(other, "CPU capability", "NO AVX")
    here = RunDirectory(job.path).read_environment().depends["CPU capability"]
    lines = differences(collect(registry, [job, other]))
    assert f"CPU capability: {here} (fedavg); NO AVX (moon)" in lines
    assert any(line.startswith("data: ") and "89abcdef (moon)" in line for line in lines)
    assert len(lines) == 2
