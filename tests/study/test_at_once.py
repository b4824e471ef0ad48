"""How many runs a comparison makes at a time: the allowed cores, one on each GPU, or as asked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.plugins.registry import Registry
from fedbench.study import execute
from fedbench.study.grid import Grid, Job, plan


@pytest.fixture
def most(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Carry out six runs on each device; return the most at a time there, and the runs' flags."""
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()
    flags: list[list[str]] = []

    def one(self: Any, job: Job) -> dict[str, int]:
        device = job.config.device
        with lock:
            running[device] += 1
            most[device] = max(most[device], running[device])
            flags.append(self._words)
        time.sleep(0.05)
        with lock:
            running[device] -= 1
        return {"done": 1}

    monkeypatch.setattr(execute, "cores", lambda: 3)
    monkeypatch.setattr(execute._Execution, "_one", one)

    def run(*devices: str, seeds: int = 6, **more: Any) -> tuple[dict[str, int], list[str]]:
        grid = Grid(methods=["fedavg"], seeds=seeds, options={"device": [*devices]})
        progress = execute.execute(plan(registry, grid, tmp_path), **more)
        assert progress.done == seeds * len(devices)
        return dict(most), flags[0]

    return run


INLINE = ["--executor", "inline"]


def test_on_the_cpu_as_many_as_cores_may_be_used(most):
    assert most("cpu") == ({"cpu": 3}, INLINE)


def test_one_run_takes_all_cores_itself(most):
    assert most("cpu", seeds=1) == ({"cpu": 1}, [])


def test_one_on_each_gpu(most):
    assert most("cuda") == ({"cuda": 1}, [])
    assert most("cuda:0", "cuda:1", "cpu")[0] == {"cuda": 1, "cuda:0": 1, "cuda:1": 1, "cpu": 3}


def test_the_default_gpu_is_the_first_one(most, monkeypatch):
    jobs: list[int] = []
    first = execute._queues

    def queues(*given: Any) -> Any:
        found = first(*given)
        jobs.extend(len(waiting) for waiting, _ in found)
        return found

    monkeypatch.setattr(execute, "_queues", queues)
    most("cuda", "cuda:0")
    assert jobs == [12]


def test_as_many_as_asked_for(most):
    assert most("cuda", workers=2) == ({"cuda": 2}, INLINE)
    assert most("cpu", workers=1)[0]["cpu"] == 1
