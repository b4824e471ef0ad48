"""The growth benchmark: a real short run, its computed numbers, its plots and its page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.long
def test_short_form_writes_every_number(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, str(BENCHMARKS / "growth.py"), "--short", "--only", "clients"),
            *("--json", "out.json"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert [point["clients"] for point in result["points"]] == [2, 4]
    for point in result["points"]:
        (run,) = point["runs"]
        assert point["seconds"] == run["per_round"][0] == run["rounds"][1] - run["rounds"][0]
        assert point["first_round"] == run["rounds"][0]
    if sys.platform.startswith("linux"):
        low, high = (point["megabytes"] for point in result["points"])
        assert result["memory"] == {"from": 2, "to": 4, "memory_factor": high / low}
    assert result["overhead"] == []


@pytest.fixture
def measured(load):
    """Return points of all experiments, with times and memory from a formula."""
    growth, measure = load("growth"), load("measure")
    found = []
    for point in growth.points(short=False):
        once, each = 0.5 + 0.01 * point.megabytes, 0.002 + 0.0001 * point.megabytes
        work = 0.0005 + 0.0005 * point.examples
        seconds = once + point.clients * (each + work / max(1, min(point.workers, 2)))
        memory = 400 + 50 * point.workers + 3 * point.megabytes + 1e-4 * point.registered
        times = [10 + 1e-5 * point.registered + seconds * n for n in range(3)]
        found.append(growth.Found(point, [measure.Measured(times, 99.0, int(1e6 * memory), 5)]))
    return found


def test_overhead_is_the_slope_between_few_and_many_clients(load, measured):
    rows = {(row["parameters"], row["executor"]): row for row in load("growth").overhead(measured)}
    assert len(rows) == 12
    small = rows[100_000, "inline"]
    assert small["ms_per_client"] == pytest.approx(2 + 0.1 * 0.4 + 0.5)
    assert small["target_ms"] == pytest.approx(4 - 4.5 * 24 / 95.1)
    assert small["met"]
    large = rows[25_000_000, "pool, 2"]
    assert large["ms_per_client"] == pytest.approx(2 + 0.1 * 100 + 0.25)
    assert large["target_ms"] == pytest.approx(28)
    assert large["met"]


def test_the_fit_finds_the_formula_behind_the_numbers(load, measured, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    fit = load("growth").summary(measured)["fit"]
    seconds = fit["seconds a round"]["factors"]
    assert seconds["clients"] == pytest.approx(0.002, rel=1e-3)
    assert seconds["clients MB"] == pytest.approx(0.0001, rel=1e-3)
    assert seconds["clients / workers"] == pytest.approx(0.0005, rel=1e-2)
    assert seconds["clients examples / workers"] == pytest.approx(0.0005, rel=1e-3)
    assert fit["seconds a round"]["largest_error"] < 1e-3
    million = fit["seconds to the first round"]["extrapolated"]
    assert [guess["what"] for guess in million] == ["a million registered clients"]
    assert million[0]["value"] == pytest.approx(10 + 1e-5 * 1_000_000, rel=1e-3)


def test_plots_and_page_show_the_numbers(load, measured, tmp_path):
    result = {
        "runs": 1,
        "short": False,
        "command": ["growth.py"],
        "date": "2026-11-23",
        "commit": "0123456789abcdef",
        "machine": load("speed").machine(),
        **load("growth").summary(measured),
    }
    (tmp_path / "growth.json").write_text(json.dumps(result))
    page = load("page")
    page.main(["--growth", str(tmp_path / "growth.json"), "--out", str(tmp_path / "speed.md")])
    text = (tmp_path / "speed.md").read_text()
    assert "| 0.4 MB, inline | 2.54 | 2.86 |" in text
    assert "*extrapolated, not measured*: a million registered clients" in text
    for name in ("clients", "registered", "overhead", "workers"):
        assert f"](speed/{name}.svg)" in text
        assert (tmp_path / "speed" / f"{name}.svg").read_text().startswith("<svg")
        assert (tmp_path / "speed" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
