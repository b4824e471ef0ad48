"""The files for other programs: every number is there once, and the same as in the runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.errors import ConfigError
from fedbench.report import write
from fedbench.report.exports import rounds_csv, summary_json
from fedbench.study.analysis import Analysis


def rows_of(analysis: Analysis) -> list[dict[str, str]]:
    return list(csv.DictReader(rounds_csv(analysis).splitlines()))


def test_csv_has_a_row_for_every_number(by_hand: Analysis) -> None:
    rows = rows_of(by_hand)
    # accuracy and loss: 2 domains and their mean; 2 x 10 classes; 1 loss term, 2 bytes, seconds
    assert len(rows) == 2 * 3 * 2 * (3 + 3 + 20 + 1 + 2 + 1)
    assert list(rows[0]) == [
        *("setting", "variant", "seed", "round", "inference", "metric", "split", "domain"),
        *("client", "class", "value"),
    ]
    found = {
        (r["variant"], r["seed"], r["domain"]): float(r["value"])
        for r in rows
        if r["round"] == "2" and r["metric"] == "accuracy"
    }
    assert found["y", "2", "a"] == 0.76
    assert found["y", "2", "mean"] == pytest.approx(0.70)
    assert len(found) == 2 * 3 * 3


def test_csv_has_bytes_seconds_and_loss_terms(by_hand: Analysis) -> None:
    first = [
        r for r in rows_of(by_hand) if (r["variant"], r["seed"], r["round"]) == ("x", "0", "1")
    ]
    plain = {r["metric"]: r["value"] for r in first if not r["inference"]}
    assert set(plain) == {"loss.cross_entropy", "bytes_up.weights", "bytes_down.weights", "seconds"}
    assert plain["bytes_up.weights"] == "40000000"
    classes = [r["class"] for r in first if r["metric"] == "class_accuracy" and r["domain"] == "b"]
    assert classes == list("0123456789")


def test_csv_has_the_rounds_of_failed_runs(big: Analysis) -> None:
    rows = rows_of(big)
    assert {r["round"] for r in rows if (r["variant"], r["seed"]) == ("fpl", "5")} == {
        str(n) for n in range(1, 41)
    }


def test_csv_keeps_any_name_whole(runs: Any, analysed: Callable[..., Analysis]) -> None:
    name = 'a,"b"'
    runs.grid((name,), seeds=1, rounds=1)
    assert {r["variant"] for r in rows_of(analysed())} == {name}


def test_json_has_the_whole_analysis(by_hand: Analysis) -> None:
    data = json.loads(summary_json(by_hand))
    (setting,) = data["settings"]
    mean = setting["variants"]["y"]["columns"]["mean"]
    assert mean["values"] == pytest.approx({"0": 0.48, "1": 0.57, "2": 0.70})
    assert mean["summary"]["mean"] == pytest.approx(0.58333, abs=1e-5)
    assert mean["paired"]["difference"] == pytest.approx(1 / 30)
    assert mean["adjusted_p"] == pytest.approx(0.0634, abs=1e-4)
    assert mean["significant"] is False
    assert setting["variants"]["y"]["wins_ties_losses"] == [6, 0, 0]
    assert setting["rule"] == "last round"
    assert [run["seed"] for run in setting["runs"]] == [0, 1, 2, 0, 1, 2]
    assert data["protocol"].startswith("paired: within one seed")


def test_json_is_valid_when_a_run_diverged(runs: Any, analysed: Callable[..., Analysis]) -> None:
    path = runs.add("a", 0, rounds=1)
    result = json.loads((path / "result.json").read_text())
    result["seconds"] = float("nan")
    (path / "result.json").write_text(json.dumps(result))
    data = json.loads(summary_json(analysed()), parse_constant=pytest.fail)
    assert data["settings"][0]["runs"][0]["result"]["seconds"] is None


def test_write_names_what_it_wrote(report: Path) -> None:
    names = {str(p.relative_to(report)) for p in report.rglob("*") if p.is_file()}
    figures = {n for n in names if n.startswith("figures/")}
    assert names - figures == {
        *("report.html", "table.md", "table.tex", "runs.csv", "rounds.csv", "summary.json")
    }
    stems = {Path(n).stem for n in figures}
    assert stems == {
        *("rounds", "bytes", "seconds", "domains", "differences", "classes", "partition"),
        *("diagnostics", "losses", "ranks", "scores"),
    }
    assert figures == {f"figures/{s}.{kind}" for s in stems for kind in ("png", "svg")}


def test_several_settings_get_figures_of_their_own(
    runs: Any, analysed: Callable[..., Analysis], tmp_path: Path
) -> None:
    for rounds in (1, 2):
        runs.grid(("a",), seeds=1, rounds=rounds, domains=("only",), classes=("0",))
    paths = write(analysed(), tmp_path / "out").paths
    names = {p.name for p in paths if p.suffix == ".svg"}
    assert {"1-tiny_rounds=1-rounds.svg", "2-tiny_rounds=2-rounds.svg"} <= names
    assert all(p.is_file() for p in paths)


def test_a_folder_that_cannot_be_written_is_an_error(by_hand: Analysis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file cannot be written: "):
        write(by_hand, tmp_path / "file", figures=False)
