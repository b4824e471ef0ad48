"""Everything shows a metric in the unit that it states, whatever its name is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from torch import Tensor

from fedbench import Run, Unit, hookimpl
from fedbench.cli import printing
from fedbench.interface.progress import progress
from fedbench.plugins.registry import Registry
from fedbench.report import figures, write
from fedbench.report.content import table
from fedbench.report.exports import summary_json
from fedbench.report.tables import latex, markdown
from fedbench.report.terminal import print_analysis
from fedbench.study.analysis import Analysis, analyse
from fedbench.study.records import read


@dataclass(frozen=True, eq=False)
class TopTwo:
    """The share of examples whose label is among the two highest scores."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[Unit] = "percent"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        return float((scores.topk(2).indices == labels[:, None]).any(1).double().mean())


@dataclass(frozen=True, eq=False)
class Right(TopTwo):
    """How many examples are right, in hundreds."""

    unit: ClassVar[Unit] = "plain"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        return float((scores.argmax(1) == labels).sum()) / 100


@dataclass(frozen=True, eq=False)
class ByClass(TopTwo):
    """How many examples of each class there are."""

    unit: ClassVar[Unit] = "plain"

    def __call__(self, scores: Tensor, labels: Tensor) -> list[float]:  # type: ignore[override]
        return [float(n) for n in labels.bincount(minlength=scores.shape[1])]


METRICS: dict[str, type] = {"top5": TopTwo, "my_accuracy": Right, "class_accuracy_2": ByClass}


@pytest.fixture
def kept(
    registry: Registry, run_tiny: Callable[..., Run], tmp_path: Path
) -> Callable[..., tuple[Run, Analysis]]:
    """Runs of two methods and two seeds that report a metric; the last run, and all analysed."""
    registry.add(SimpleNamespace(register_metrics=hookimpl(lambda: METRICS)), "third-party")

    def runs(metric: str) -> tuple[Run, Analysis]:
        paths = [tmp_path / f"{method}-{n}" for method in ("fedavg", "fedprox") for n in (0, 1)]
        for path in paths:
            method, seed = path.name.split("-")
            run = run_tiny(
                method,
                path,
                seed=int(seed),
                metrics={name: {} for name in METRICS},
                accuracy={"metric": metric, "rule": "last"},
            )
        return run, analyse(registry, [read(registry, path) for path in paths])

    return runs


SHOWN = pytest.mark.parametrize(("metric", "percent"), [("top5", True), ("my_accuracy", False)])


def shown(value: float, percent: bool) -> str:
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"


@SHOWN
def test_progress_and_result(
    kept: Any, registry: Registry, capsys: pytest.CaptureFixture[str], metric: str, percent: bool
) -> None:
    run, _ = kept(metric)
    result = run.history[-1]
    progress(registry, run.config, [], quiet=False).round(result)
    scores = result.scores["classifier"][metric]
    line = capsys.readouterr().out
    assert line.startswith(f"round 2/2  mean {shown(scores.mean, percent)}  ink ")
    assert f"  ink {shown(scores.domains['ink'], percent)}  " in line
    printing.print_run(registry, run.directory.path)
    rounds, _, last = capsys.readouterr().out.partition("fedprox on tiny, seed 1")
    assert bool(re.search(rf"{metric}, last round +%", last)) is percent
    assert re.search(rf"mean over domains +{shown(scores.mean, percent)}\b", last)
    for name in ("top5", "my_accuracy"):  # each in its own unit
        mean = shown(result.scores["classifier"][name].mean, name == "top5")
        rows = rounds.partition(f"{name}, classifier inference")[2]
        assert re.search(rf"\b2 +{mean}\b", rows)


@SHOWN
def test_tables(kept: Any, capsys: pytest.CaptureFixture[str], metric: str, percent: bool) -> None:
    _, analysis = kept(metric)
    group = analysis.groups[0]
    mean = shown(group.cells["fedavg"]["mean"].summary.mean, percent)
    content = table(analysis, group)
    assert content.rows[0].entries[0].mean == mean
    assert content.unit == ("%" if percent else metric)
    assert content.versus[0] == f"difference ({'points' if percent else metric})"
    assert content.notes[0].startswith(f"{metric}{' in percent' if percent else ''}, last round;")
    print_analysis(analysis)
    for text in (capsys.readouterr().out, markdown(analysis), latex(analysis)):
        assert f"{mean} " in text
    assert json.loads(summary_json(analysis))["settings"][0]["unit"] == group.unit


@SHOWN
def test_the_page(kept: Any, tmp_path: Path, metric: str, percent: bool) -> None:
    _, analysis = kept(metric)
    mean = shown(analysis.groups[0].cells["fedavg"]["mean"].summary.mean, percent)
    page = write(analysis, tmp_path / "report", figures=False).paths[0].read_text()
    assert re.search(rf'<td class="num( best)?">{mean}<span', page)
    note = "Top5 in percent, last round;" if percent else "My_accuracy, last round;"
    assert note in page.replace("<wbr>", "")


@SHOWN
def test_figures(kept: Any, metric: str, percent: bool) -> None:
    _, analysis = kept(metric)
    found = {figure.name: figure for figure in figures.figures(analysis.groups[0])}

    def drawn(name: str) -> str:
        (spec,) = [panel.spec for panel in found[name].panels if panel.wide or name == "scores"]
        return json.dumps(spec)

    assert ('"~%"' in drawn("rounds"), '".4~g"' in drawn("rounds")) == (percent, not percent)
    unit = "percentage points" if percent else metric
    assert f"difference, {unit}" in drawn("differences")
    assert ('"~%"' in drawn("scores")) is not percent  # the other metric, in its own unit
    assert "Percent" not in found["classes"].caption
    assert "datum.m, '.2~g'" in json.dumps(found["classes"].panels[0].spec)
