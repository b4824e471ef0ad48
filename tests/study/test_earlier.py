"""What an earlier comparison left in the folder stays in the tables, or a line says why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedbench import Run
from fedbench.plugins.registry import Registry
from fedbench.store.directory import RunDirectory
from fedbench.study.earlier import earlier
from fedbench.study.grid import Job
from fedbench.study.records import Record, read

Make = Callable[..., Job]
Look = Callable[[Sequence[Job]], tuple[list[Record], str]]


@pytest.fixture
def make(registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path) -> Make:
    """Make a finished run in the folder of a comparison."""

    def run(method: str, name: str, **given: Any) -> Job:
        job = Job(tiny_config(registry, method, **given), method, tmp_path / "runs" / name)
        job.path.parent.mkdir(exist_ok=True)
        Run(job.config, job.path, registry=registry).run()
        return job

    return run


@pytest.fixture
def look(registry: Registry) -> Look:
    """Look for what is next to planned runs; those made by an old plugin have changed."""

    def changes(job: Job) -> list[str]:
        return ["plugin old"] if "old" in job.path.name else []

    def found(planned: Sequence[Job]) -> tuple[list[Record], str]:
        here = [read(registry, job.path) for job in planned]
        return earlier(registry, planned, here, changes)

    return found


def test_runs_of_the_same_setting_are_added(make: Make, look: Look, tmp_path: Path) -> None:
    planned = [make("fedavg", "a"), make("fedavg", "b", seed=1)]
    others = [make("fedprox", "c"), make("moon", "d"), make("fedavg", "e", seed=2)]
    added, line = look(planned)
    assert [record.path for record in added] == [job.path for job in others]
    assert line == f"{tmp_path}/runs: 3 earlier runs are in the tables too, of the same setting"


def test_a_folder_with_nothing_else_needs_no_line(make: Make, look: Look, tmp_path: Path) -> None:
    planned = [make("fedavg", "a")]
    (tmp_path / "runs" / ".a.lock").touch()
    (tmp_path / "runs" / "notes").mkdir()
    assert look(planned) == ([], "")


def test_what_is_left_out_is_counted_with_its_reason(
    make: Make, look: Look, tmp_path: Path
) -> None:
    planned = [make("fedavg", "a")]
    make("fedprox", "rounds", rounds=3)
    make("fedprox", "data", data={"name": "tiny", "examples": 12})
    make("fedprox", "old")
    make("fedavg", "again", extra={"sgd": {"lr": 0.5}})  # has no recipe: its name is the same
    (make("moon", "unfinished").path / "result.json").unlink()
    (make("moon", "damaged").path / "config.yaml").write_text("method: [")
    result = make("moon", "contradicts").path / "result.json"
    result.write_text(result.read_text().replace('"seed": 0', '"seed": 1'))
    added, line = look(planned)
    assert added == []
    start, reasons = line.removesuffix(f" (`fedbench report {tmp_path}/runs` shows all)").split(
        " left out: "
    )
    assert start == f"{tmp_path}/runs: 7 earlier runs are"
    assert set(reasons.split(", ")) == {
        "2 of other settings",
        "1 not finished",
        "1 with the method and seed of another run",
        "1 from before a change of code or data or versions (see --trust-old)",
        "2 that cannot be read",
    }


def test_of_two_runs_that_a_table_cannot_both_show_one_is_added(make: Make, look: Look) -> None:
    planned = [make("fedavg", "a")]
    make("moon", "b")
    make("moon", "c", extra={"sgd": {"lr": 0.5}})
    added, line = look(planned)
    assert [record.path.name for record in added] == ["b"]
    assert "1 earlier run is in the tables too" in line
    assert "1 earlier run is left out: 1 with the method and seed of another run" in line


def test_an_earlier_failure_is_not_a_row(make: Make, look: Look) -> None:
    planned = [make("fedavg", "a")]
    job = make("moon", "b")
    (job.path / "result.json").unlink()
    RunDirectory(job.path).fail(job.config, "broke", "broke")
    assert "1 not finished" in look(planned)[1]
