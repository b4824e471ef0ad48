"""``fedbench verify`` and ``--with faults`` from the command line."""

from __future__ import annotations

import json
import shutil

import pytest

from fedbench.store.digests import DIGITS


@pytest.fixture
def kept(fedbench, few, tmp_path):
    """A finished run of the digits with faults, in few examples."""
    path = tmp_path / "kept"
    faults = ["--with", "faults", "--set", "faults.drop=0.3", "--set", "failures.policy=skip"]
    words = ["run", "fedavg", *few, *faults, "--executor", "inline", "--quiet", "--out", str(path)]
    done = fedbench(*words)
    assert done.exit_code == 0, done.stderr
    return path


def test_a_run_with_faults_agrees_and_its_result_counts_them(fedbench, kept):
    result = json.loads((kept / "result.json").read_text())
    assert result["failures"]["dropped"] == result["failures"]["lost"] > 0
    assert f"clients lost in {result['rounds']} rounds" in fedbench("show", str(kept)).stdout
    done = fedbench("verify", str(kept), "--quiet", "--workers", "2", "--executor", "pool")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"agrees: {result['rounds']} rounds of {kept}, bit for bit\n"


def test_one_round(fedbench, kept):
    done = fedbench("verify", str(kept), "--quiet", "--rounds", "1-1")
    assert done.exit_code == 0
    assert done.stdout == f"agrees: rounds 1-1 of {kept}, bit for bit\n"
    done = fedbench("verify", str(kept), "--rounds", "one")
    assert done.exit_code == 2
    assert "--rounds one: write A-B, for example 1-3" in done.stderr


def test_a_difference_has_status_one(fedbench, kept):
    lines = (kept / "digests.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    name, client = first["names"][0], next(iter(first["clients"]))
    packed = first["clients"][client]
    first["clients"][client] = "0" * DIGITS + packed[DIGITS:]
    (kept / "digests.jsonl").write_text("\n".join([json.dumps(first), *lines[1:], ""]))
    done = fedbench("verify", str(kept), "--quiet")
    assert done.exit_code == 1
    assert done.stdout == (
        f"differs: round 1: client {client}, upload {name}: {'0' * DIGITS} then, "
        f"{packed[:DIGITS]} now\n"
    )


def test_environments_that_differ_are_told_first(fedbench, kept):
    data = json.loads((kept / "environment.json").read_text())
    data["versions"]["numpy"] = "0.1"
    (kept / "environment.json").write_text(json.dumps(data))
    lines = fedbench("verify", str(kept), "--quiet").stdout.splitlines()
    assert lines[0].startswith("environment differs: numpy: 0.1 then, ")
    assert lines[-1].startswith("agrees: ")


def test_what_cant_be_verified_has_status_two(fedbench, kept, tmp_path):
    done = fedbench("verify", str(tmp_path))
    assert done.exit_code == 2
    expected = f"Error: cannot verify {tmp_path}: {tmp_path} holds no run (no config.yaml)\n"
    assert done.stderr == expected
    other = tmp_path / "other"
    shutil.copytree(kept, other)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("  faults:", "  faultz:"))
    done = fedbench("verify", str(other))
    assert done.exit_code == 2
    assert "no plugin 'faultz' (did you mean 'faults'?)" in done.stderr


def test_an_added_plugin_that_is_not_there(fedbench, few):
    done = fedbench("run", "fedavg", *few, "--with", "faultz")
    assert done.exit_code == 1
    assert "--with faultz: no plugin 'faultz' (did you mean 'faults'?)" in done.stderr


def test_from_a_kept_checkpoint(fedbench, few, tmp_path):
    path = tmp_path / "kept"
    keep = ["--rounds", "3", "--checkpoint-rounds", "1", "--keep-checkpoints"]
    done = fedbench("run", "fedavg", *few, *keep, "--quiet", "--out", str(path))
    assert done.exit_code == 0, done.stderr
    done = fedbench("verify", str(path), "--quiet", "--rounds", "3-3")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (
        f"from the checkpoint of round 2\nagrees: rounds 3-3 of {path}, bit for bit\n"
    )
    (path / "checkpoints" / "round-000002" / "state-2.safetensors").write_bytes(b"")
    done = fedbench("verify", str(path), "--quiet", "--rounds", "3-3")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "state-2.safetensors: damaged: its SHA-256 differs from the recorded one" in done.stderr
    assert len(done.stderr.splitlines()) == 1
