"""`fedbench.compare` and `load_comparison`: what the command finds, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fedbench
from fedbench import Comparison
from fedbench.cli import main
from fedbench.study.analysis import MEAN

ONE: Mapping[str, Any] = {
    "data": "digits",
    "rounds": 1,
    "set": {
        "domains.examples": 20,
        "sgd.epochs": 1,
        "model.width": 2,
        "model.feature_size": 8,
        "executor": "inline",
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Return a comparison of two methods over two seeds, which no test changes."""
    folder = tmp_path_factory.mktemp("comparison")
    methods = ["fedavg", "fedprox:fedprox.mu=1.0"]
    return fedbench.compare(methods, seeds=2, out=folder, quiet=True, **ONE)


@pytest.fixture
def folder(found: Comparison) -> Path:
    return found.runs[0].directory.parent.parent


def test_it_has_runs_numbers_tables_and_a_report(found: Comparison, folder: Path) -> None:
    assert [(run.record.variant, run.config.seed) for run in found.runs] == [
        *(("fedavg", 0), ("fedprox:fedprox.mu=1.0", 0)),
        *(("fedavg", 1), ("fedprox:fedprox.mu=1.0", 1)),
    ]
    assert found.analysis.reference == "fedprox:fedprox.mu=1.0"
    assert (folder / "report.html").is_file()
    assert set(found.charts) >= {"rounds", "domains", "differences"}
    assert "compared with fedprox:fedprox.mu=1.0" in str(found.table)
    assert "<td" in found._repr_html_()


def test_the_command_reuses_its_runs_and_finds_the_same(found: Comparison, folder: Path) -> None:
    sets = [word for key, value in ONE["set"].items() for word in ("--set", f"{key}={value}")]
    words = ["compare", "fedavg", "fedprox:fedprox.mu=1.0", "--data", "digits", "--rounds", "1"]
    done = CliRunner().invoke(main, [*words, "--seeds", "2", *sets, "--out", str(folder)])
    assert done.exit_code == 0, done.output
    assert "4/4 runs (4 reused, 0 failed)" in done.stdout
    assert str(found.table) in done.stdout


def test_existing_runs_are_loaded_with_another_reference(found: Comparison, folder: Path) -> None:
    again = fedbench.load_comparison(folder, reference="fedavg")
    assert again.analysis.reference == "fedavg"
    (group,) = again.analysis.groups
    (before,) = found.analysis.groups
    one, two = group.cells["fedprox:fedprox.mu=1.0"][MEAN], before.cells["fedavg"][MEAN]
    assert one.paired
    assert two.paired
    assert one.paired.difference == pytest.approx(-(two.paired.difference or 0))


def test_data_frames_have_a_row_per_round_and_a_summary(found: Comparison) -> None:
    pytest.importorskip("pandas")
    rounds = found.to_pandas()
    assert list(rounds.columns[:5]) == ["setting", "variant", "seed", "round", "mean"]
    assert len(rounds) == 4
    summary = found.table.to_pandas().set_index(["variant", "column"])
    for variant, mean in rounds.groupby("variant")["mean"].mean().items():
        assert summary.loc[(variant, MEAN), "mean"] == pytest.approx(mean)
    assert summary.loc[("fedprox:fedprox.mu=1.0", MEAN)].isna()["difference"]


def test_tables_escape_what_comes_from_elsewhere(
    found: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = found.analysis.groups
    monkeypatch.setitem(vars(group), "label", "<img src=x onerror=alert(1)>")
    html = found._repr_html_()
    assert "<img" not in html
    assert "&lt;img" in html


def test_without_methods_or_a_grid_it_says_what_is_missing() -> None:
    with pytest.raises(fedbench.ConfigError, match="methods"):
        fedbench.compare()
