"""The runs of a study are forked by one parent: each as if it were alone, and none hurts another.

The runs of these tests have a package that notes what a run sees, and makes it do harm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.config.model import RunConfig
from fedbench.engine.run import Run
from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import Registry
from fedbench.store import fingerprint
from fedbench.store.directory import RunDirectory
from fedbench.study.execute import Progress, execute
from fedbench.study.grid import Job
from fedbench.study.warm import Warm

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere, each run is a program of its own"
)

SOURCE = """
import json, os, signal, sys, threading, time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from fedbench.hookspecs import hookimpl
from fedbench.testing import TinyData, TinyModel

fedbench_api = 1
NOTES = Path(os.environ["NOTES"])

@dataclass(frozen=True, eq=False)
class Data(TinyData):
    thread: bool = False

    def load(self, root):
        with (NOTES / "loads").open("a") as file:
            file.write("x")
        if self.thread:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return super().load(root)

def signals():
    mine = range(1, signal.NSIG)
    found = {n: str(signal.getsignal(n)) for n in mine if n not in (signal.SIGKILL, signal.SIGSTOP)}
    return {n: how.split(" at ")[0] for n, how in found.items()}

def seen():
    import torch
    return {
        "environment": {k: v for k, v in os.environ.items() if k != "_"},
        "folder": os.getcwd(),
        "mask": oct(os.umask(0o77)),
        "signals": signals(),
        "leads its group": os.getpgid(0) == os.getpid(),
        "threads": [torch.get_num_threads(), threading.active_count()],
        "path": sys.path,
        "CUDA": torch.cuda.is_initialized(),
        "terminal": [os.isatty(n) for n in range(3)],
        "encodings": [sys.stdout.encoding, sys.stderr.encoding],
    }

@dataclass(frozen=True, eq=False)
class Probe:
    act: str = ""

    @hookimpl
    def prepare_data(self, data):
        if self.act == "overwrite":
            data.train.inputs.zero_()
        return data

    @hookimpl
    def round_end(self, result, directory):
        (NOTES / f"{os.getpid()}-{os.getppid()}").write_text(json.dumps([str(directory), seen()]))
        if self.act == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.act == "leave":
            print("no way to go on", file=sys.stderr, flush=True)
            os._exit(7)
        if self.act == "orphan":
            os.kill(os.getppid(), signal.SIGKILL)
        if self.act in ("orphan", "wait"):
            time.sleep(60)

@dataclass(frozen=True, eq=False)
class Version:
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "plain"

    def __call__(self, scores, labels):
        return 1.0

@hookimpl
def register_datasets():
    return {"tiny": Data}

@hookimpl
def register_models():
    return {"tiny_model": TinyModel}

@hookimpl
def register_plugins():
    return {"probe": Probe}

@hookimpl
def register_metrics():
    return {"version": Version}
"""


class Study:
    """A study of runs of the tiny data set, in one folder."""

    def __init__(self, registry: Registry, config: Callable[..., RunConfig], folder: Path) -> None:
        self.registry, self._config, self._folder = registry, config, folder

    def job(self, method: str = "fedavg", act: str = "", **given: Any) -> Job:
        config = self._config(self.registry, method, extra={"probe": {"act": act}}, **given)
        return Job(config, method, self._folder / "runs" / config.hash[:12])

    def notes(self) -> dict[Path, tuple[int, dict[str, Any]]]:
        """Return directory of a run -> the process that started it, and what the run saw."""
        found = {}
        for file in self._folder.glob("*-*"):
            path, seen = json.loads(file.read_text())
            found[Path(path)] = int(file.name.partition("-")[2]), seen
        return found

    def loads(self) -> int:
        """Return how often data were loaded since the last call."""
        text = (self._folder / "loads").read_text()
        (self._folder / "loads").unlink()
        return len(text)


@pytest.fixture
def study(
    install: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_config: Callable[..., RunConfig],
) -> Study:
    monkeypatch.setenv("NOTES", str(tmp_path))
    folder = install("warm-probe", SOURCE)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr("fedbench.study.execute.SETTLE", 0.0)
    return Study(discover(), tiny_config, tmp_path)


def result(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.path / "result.json").read_text())
    return found


@pytest.mark.long
def test_each_run_is_as_if_it_were_alone(study: Study) -> None:
    good = [study.job(), study.job("fedhpro"), study.job(seed=1)]
    harmful = [study.job(act=act) for act in ("overwrite", "crash", "leave")]
    final = execute([*harmful, *good, study.job(data={"name": "tiny", "examples": 30})], workers=2)
    notes = study.notes()
    parents = {parent for parent, _ in notes.values()}
    assert len(notes) == 7
    assert len(parents) == 1
    assert os.getpid() not in parents
    assert study.loads() == 2, "once for each data set"

    assert (final.done, final.failed) == (7, 1)
    assert (harmful[2].path / "error.txt").read_text() == "no way to go on"
    ends = {path: end.reason for path, end in final.interrupted.items()}
    assert ends == {harmful[1].path: "ended by SIGSEGV"}

    alone = study.job(seed=2)
    execute([alone])
    parent, seen = study.notes()[alone.path]
    assert parent == os.getpid()
    assert [notes[job.path][1] for job in good] == [seen] * 3
    for job in good:
        whole = Run(job.config, registry=study.registry).run()
        kept = result(job)
        for digest in ("weights_sha256", "metrics_sha256"):
            assert kept[digest] == whole[digest]
        depends = RunDirectory(job.path).read_environment().depends
        now = fingerprint.of_run(study.registry, job.config)
        assert {k: v for k, v in depends.items() if k in now} == now


@pytest.mark.long
def test_one_parent_serves_several_calls(study: Study) -> None:
    with Warm(threading.Event(), None) as warm:
        for seed in range(2):
            assert execute([study.job(seed=seed)], warm=warm).done == 1
    parents = {parent for parent, _ in study.notes().values()}
    assert len(parents) == 1
    assert os.getpid() not in parents
    assert study.loads() == 1


@pytest.mark.long
def test_a_parent_that_ends_interrupts_its_runs_and_is_replaced(study: Study) -> None:
    lost, other = study.job(act="orphan"), study.job()
    final = execute([lost, other], workers=1)
    assert {p: end.reason for p, end in final.interrupted.items()} == {
        lost.path: "ended by SIGTERM"
    }
    assert RunDirectory(other.path).finished
    notes = study.notes()
    assert notes[lost.path][0] != notes[other.path][0]


@pytest.mark.long
def test_a_run_has_the_code_that_its_fingerprint_says(study: Study) -> None:
    more = {"metrics": {"accuracy": {}, "version": {}}}
    jobs = [study.job(seed=seed, **more) for seed in range(2)]
    file = Path(str(sys.modules["warm_probe"].__file__))

    def edit(progress: Progress) -> None:
        if progress.done == 1:
            file.write_text(SOURCE.replace("return 1.0", "return 2.0"))

    assert execute(jobs, workers=1, show=edit).failed == 0
    values, sources = [], []
    for job in jobs:
        line = json.loads((job.path / "rounds.jsonl").read_text().splitlines()[-1])
        values.append(line["scores"]["classifier"]["version"]["mean"])
        sources.append(RunDirectory(job.path).read_environment().depends["metric version"])
    assert values == [1.0, 2.0]
    assert sources[0] != sources[1]


@pytest.mark.long
def test_a_parent_with_threads_is_not_forked(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.study.warm.PATIENCE", 1)
    data = {"name": "tiny", "thread": True}
    jobs = [study.job(seed=seed, data=data) for seed in range(2)]
    final = execute(jobs, workers=1)
    assert (final.done, final.failed, final.interrupted) == (2, 0, {})
    assert {parent for parent, _ in study.notes().values()} == {os.getpid()}


@pytest.mark.long
def test_what_stops_a_study_stops_its_runs_with_a_checkpoint(study: Study) -> None:
    jobs = [study.job(act="wait", seed=seed) for seed in range(2)]

    def stop(progress: Progress) -> None:
        if len(study.notes()) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(jobs, workers=2, show=stop)
    for job in jobs:
        assert (job.path / "checkpoint" / "checkpoint.json").is_file()
        assert not RunDirectory(job.path).failed
    parents = {parent for parent, _ in study.notes().values()}
    for pid in parents - {os.getpid()}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.long
def test_a_command_forks_the_parent_from_itself(study: Study, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(study.job().config.to_yaml())
    words = [sys.executable, "-P", "-m", "fedbench"]
    compare = [*words, "compare", str(file), "--seeds", "2", "--jobs", "2", "--quiet"]
    process = subprocess.Popen([*compare, "--out", str(tmp_path / "out")], stdin=subprocess.DEVNULL)
    assert process.wait() == 0
    together = study.notes()
    (parent,) = {parent for parent, _ in together.values()}
    assert parent != process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(parent, 0)
    assert study.loads() == 1

    alone = tmp_path / "alone"
    run = [*words, "run", str(file), "--executor", "inline", "--quiet", "--out", str(alone)]
    subprocess.run(run, check=True, stdin=subprocess.DEVNULL)
    _, seen = study.notes()[alone]
    assert len(together) == 2
    for _, found in together.values():
        assert {**found, "leads its group": None} == {**seen, "leads its group": None}
    whole = json.loads((alone / "result.json").read_text())["weights_sha256"]
    kept = [json.loads((path / "result.json").read_text()) for path in together]
    assert whole in [one["weights_sha256"] for one in kept]


@pytest.mark.long
def test_the_runs_of_a_command_end_with_it(study: Study, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(study.job(act="wait").config.to_yaml())
    words = ["compare", str(file), "--seeds", "2", "--jobs", "2", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fedbench", *words, "--out", str(tmp_path / "out")]
    )
    wait_until(lambda: len(list(tmp_path.glob("*-*"))) == 2)
    pids = {int(part) for file in tmp_path.glob("*-*") for part in file.name.split("-")}
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(works, pids)))


def works(pid: int) -> bool:
    """Return whether a process has not ended; an ended one may wait for its new parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
