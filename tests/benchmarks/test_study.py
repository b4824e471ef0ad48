"""The benchmark of studies: a real short study, and what its page says about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="runs are forked on Linux only")
def test_a_study_is_measured(tmp_path: Path, load: Callable[[str], ModuleType]) -> None:
    words = ["--methods", "fedavg", "--seeds", "2", "--rounds", "1", "--memory", "0"]
    words += ["--workload", "grid", "--against", "", "--json", "out.json"]
    command = [sys.executable, str(BENCHMARKS / "study.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    (turn,) = result["turns"]
    assert list(turn) == ["warm"]
    found = turn["warm"]
    assert found["runs"] == len(found["beside"]) == len(set(found["digests"].values())) == 2
    ideal = found["rounds"] / len(os.sched_getaffinity(0))
    assert found["execute/ideal"] == pytest.approx(found["execute"] / ideal)
    assert found["execute"] < found["seconds"] == pytest.approx(2 * found["per_run"])
    assert 0 < min(found["beside"]) < found["execute"]
    assert found["cpu"] > 0
    assert found["pss_peak"] > 100e6, "torch alone takes more"


def test_the_page_has_medians_over_turns(load: Callable[[str], ModuleType]) -> None:
    def turn(seconds: float) -> dict[str, Any]:
        common = {"runs": 4, "cpu": 2.0, "pss_peak": 3e8}
        warm = {**common, "per_run": seconds, "execute/ideal": 1.25, "beside": [0.5, 0.7]}
        flower = {**common, "per_run": 9.0, "versions": {"torch": "2.0", "flwr": "1.0"}}
        return {"warm": warm, "flower": flower}

    machine = {"cores": 2, "memory": None, "processor": "P", "system": "S", "python": "3"}
    result = {"command": ["study.py"], "machine": machine, "commit": "c", "date": "2026"}
    result |= {"turns": [turn(1.0), turn(3.0), turn(2.0)], "workload": "grid"}
    result |= {"memory": {"warm": [3e8, 6e8]}, "memory_runs": 4}
    page = load("page").studies(result)
    assert "| warm | 4 | 2.00 | 2.00 | 1.25 | 0.60 | 300 |" in page
    assert "| flower (flwr 1.0) | 4 | 9.00 | 2.00 | - | - | 300 |" in page
    assert "n = 3" in page
    assert "at most 300 MB with one run at a time, 600 MB with 4 at a time" in page
