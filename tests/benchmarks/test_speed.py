"""The speed benchmark: its short form, its arithmetic, and its contestants' equal models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedbench.plugins.discovery import discover

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def python(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=folder, timeout=300
    )


@pytest.mark.long
@pytest.mark.parametrize("workload", ["w1", "w2"])
def test_short_form_writes_every_number(workload, tmp_path):
    done = python(
        *(str(BENCHMARKS / "speed.py"), "--short", "--workload", workload, "--json", "out.json"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["workload"]["name"] == f"{workload}-short"
    assert result["failed"] == result["not_installed"] == {}
    assert list(result["contestants"]) == ["plain", "fedbench fedavg"]
    for name, contestant in result["contestants"].items():
        assert contestant["versions"]["torch"] == torch.__version__.split("+")[0], name
        (run,) = contestant["runs"]
        first, second = run["rounds"]
        assert 0 < first < second <= run["end"]
        assert run["per_round"] == [pytest.approx(second - first)]
        if sys.platform.startswith("linux"):
            assert run["pss_samples"] >= 1
            assert run["pss_peak"] > 100e6, "torch alone takes more"
    rows = result["summary"]
    assert rows["plain"]["seconds_per_round/plain"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    ours, base = (rows[n]["seconds_per_round"] for n in ("fedbench fedavg", "plain"))
    assert rows["fedbench fedavg"]["seconds_per_round/plain"]["median"] == pytest.approx(
        ours / base
    )
    assert result["machine"]["cores"] >= 1
    assert "fedbench fedavg" in done.stdout.splitlines()[-1]


def test_ratios_are_taken_run_by_run(load):
    def entry(*runs):
        return {
            "runs": [
                {"run": n, "rounds": [first, first + 1], "per_round": [each], "pss_peak": None}
                for n, first, each in runs
            ]
        }

    table = {
        "plain": entry((1, 10.0, 2.0), (2, 30.0, 6.0), (3, 20.0, 4.0)),
        "flower": entry((1, 20.0, 2.0), (3, 20.0, 4.0)),
        "fedbench fedavg": entry((1, 5.0, 1.0), (2, 15.0, 6.0), (3, 30.0, 8.0)),
    }
    row = load("speed").summary(table)["fedbench fedavg"]
    assert row["seconds_per_round"] == 6.0
    assert row["seconds_per_round/plain"] == {"median": 1.0, "min": 0.5, "max": 2.0}
    assert row["first_round/flower"] == {"median": 0.875, "min": 0.25, "max": 1.5}
    assert row["pss_peak"] is None
    assert "pss_peak/plain" not in row


@pytest.mark.parametrize("workload", ["w1", "w2"])
def test_the_plain_loop_and_fedbench_train_equal_models(workload, load):
    size = load("workloads").WORKLOADS[workload]
    choice = load("contestants").config(size)["model"]
    options = {k: v for k, v in choice.items() if k != "name"}
    ours = discover().get("model", choice["name"]).value(**options).build(size.shape, size.classes)
    theirs = load("common").build(size)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, *size.shape)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_augmented_images_are_windows_of_the_padded_ones(load):
    torch.manual_seed(0)
    x = torch.rand(6, 3, 8, 8)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    for image, source in zip(load("common").augment(x), padded, strict=True):
        windows = source.unfold(1, 8, 1).unfold(2, 8, 1)  # (3, 9, 9, 8, 8)
        either = (windows, windows.flip(4))
        assert any(bool((w == image[:, None, None]).all(-1).all(-1).all(0).any()) for w in either)


MEASURE = """
import json, sys
sys.path.insert(0, {benchmarks!r})
import measure
measure.adopt_orphans()
try:
    found = measure.run([sys.executable, "-c", {code!r}], rounds=2)
    print(json.dumps([found.rounds, found.pss_peak, measure.descendants()]))
except measure.Failed as error:
    print(json.dumps(str(error)))
"""


def measured(code: str, folder: Path) -> object:
    done = python("-c", MEASURE.format(benchmarks=str(BENCHMARKS), code=code), folder=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_of_a_whole_tree_counts_once_and_orphans_are_ended(tmp_path):
    # A process fills 200 MB and shares them with a grandchild, which then loses its parent.
    code = """
import os, sys, time
block = bytearray(200_000_000)
block[::4096] = b"x" * len(block[::4096])
seen, tell = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        sum(block[::4096])
        os.write(tell, b"1")
        time.sleep(1000)
    os._exit(0)
os.wait()
os.read(seen, 1)
print('{"round": 1}', flush=True)
time.sleep(0.7)
print("round 2/2  mean 1.00", flush=True)
"""
    rounds, peak, left = measured(code, tmp_path)
    assert 0 < rounds[0] < rounds[1]
    assert 200e6 < peak < 350e6
    assert left == []


def test_a_contestant_that_fails_is_reported_with_the_end_of_its_output(tmp_path):
    code = "print('{\"round\": 1}', flush=True); raise SystemExit('no more memory')"
    text = measured(code, tmp_path)
    assert text.startswith("exit status 1, 1 of 2 rounds")
    assert "no more memory" in text


@pytest.mark.long
def test_a_peer_that_cannot_be_installed_is_reported_and_left_out(load, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    environments = load("environments")
    peer = environments.Environment(("no-such-peer==1",), ("no-such-peer",))
    with pytest.raises(environments.NotInstalled, match="no-such-peer==1"):
        peer.make("peer", tmp_path, own_torch=False)
    assert not (tmp_path / "peer" / "complete").exists(), "a later call must try again"
