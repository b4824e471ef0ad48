"""The cores that a process may use, not those of the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedbench.device import cores


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 cores, of which this process may use 16."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


def groups(root: Path, of_process: str, files: Mapping[str, str]) -> Path:
    """Write which control groups a process is in, and files of the groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(of_process)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_affinity_counts_where_the_system_has_one(monkeypatch, tmp_path):
    assert cores(tmp_path) == 16
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores(tmp_path) == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),  # rounded up
        ("10000 100000\n", 1),
        ("max 100000\n", 16),
        ("6400000 100000\n", 16),
        ("", 16),
        ("damaged\n", 16),
    ],
)
def test_a_quota_of_cgroup_v2_is_rounded_up(tmp_path, text, allowed):
    assert cores(groups(tmp_path, "0::/\n", {"cpu.max": text})) == allowed


def test_the_smallest_quota_on_the_way_to_the_top_counts(tmp_path):
    files = {
        "cpu.max": "max 100000",
        "slice/cpu.max": "300000 100000",
        "slice/job/cpu.max": "800000 100000",
    }
    assert cores(groups(tmp_path, "0::/slice/job\n", files)) == 3


@pytest.mark.parametrize(("quota", "allowed"), [("350000\n", 4), ("-1\n", 16)])
def test_a_quota_of_cgroup_v1(tmp_path, quota, allowed):
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": quota,
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    process = "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n3:cpuset:/docker/1\n"
    # a container sees its own group at the top, whatever its path outside is
    assert cores(groups(tmp_path, process, files)) == allowed


def test_groups_outside_the_namespace_are_not_followed(tmp_path):
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/cpu.max").write_text("100000 100000")
    assert cores(groups(tmp_path, "0::/../..\n", {"cpu.max": "max 100000"})) == 16


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"])
def test_what_slurm_allocated(monkeypatch, tmp_path, name):
    for text, allowed in (("4", 4), ("32", 16), ("", 16), ("4(x2)", 16)):
        monkeypatch.setenv(name, text)
        assert cores(tmp_path) == allowed
