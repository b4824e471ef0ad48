"""The kit itself: correct plugins pass, rules describe themselves, the documentation matches."""

from __future__ import annotations

import importlib
import subprocess
import sys
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor

from fedbench import ConfigError, Recipe, ServerUpdate, Unit, hookimpl, testing
from fedbench.executors.inline import Inline

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"


@dataclass(frozen=True, eq=False)
class Right:
    """Keep the features small (Author et al., 2020)."""

    weight: Annotated[float, Field(ge=0, description="factor of the term")] = 0.1

    @hookimpl
    def init_server(self) -> Any:
        return {"mine.turns": torch.zeros(())}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: Any) -> Any:
        trained = yield
        ctx.state["mine.turns"] = ctx.state.get("mine.turns", torch.zeros(())) + 1
        ctx.upload("mine.turns", ctx.state["mine.turns"])
        return trained

    @hookimpl
    def local_loss(self, output: Any) -> Any:
        return {"mine": self.weight * output.features.square().mean()}

    @hookimpl
    def server_update(self, state: Any, reports: Any) -> ServerUpdate:
        turns = sum(report.uploads.tensor("mine.turns") for report in reports)
        total = state.entries.tensor("mine.turns") + turns
        return ServerUpdate(entries={"mine.turns": total}, metrics={"turns": float(total)})


@dataclass(frozen=True, eq=False)
class Halves:
    """Give two clients the even and the odd examples."""

    @hookimpl
    def partition(self, data: Any) -> Any:
        index = torch.arange(len(data.train))
        return [index[::2], index[1::2]]


@dataclass(frozen=True, eq=False)
class Data(testing.TinyData):
    """Tiny patterns, as in the kit's data."""

    source: ClassVar[str] = "drawn"
    licence: ClassVar[str] = "CC0"


@dataclass(frozen=True, eq=False)
class Error:
    """The fraction of wrong predictions."""

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[Unit] = "percent"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        return float((scores.argmax(1) != labels).double().mean())


METHOD = Recipe(
    {"exchange": {}, "mean": {}, "cross_entropy": {}, "fedprox": {}}, "mine", "Author et al., 2020"
)
RIGHT = {
    "method": METHOD,
    "plugin": Right,
    "partition": Halves,
    "dataset": Data,
    "model": testing.TinyModel,
    "metric": Error,
    "executor": Inline,
}


@pytest.mark.parametrize("kind", testing.KINDS)
def test_a_correct_one_passes_every_rule(kind: str, registry_with: Callable[..., Any]) -> None:
    registry = registry_with(**{kind: RIGHT[kind]})
    rules = testing.rules(kind, "mine", registry)
    assert len({str(rule) for rule in rules}) == len(rules) >= 5
    for rule in rules:
        rule.check()


def test_a_plugin_that_divides_the_data_gets_the_rules_for_it() -> None:
    names = [str(rule) for rule in testing.rules("plugin", "iid")]
    assert {"partition", "too-little-data"} <= set(names)
    assert not {"one-client", "one-class", "last-batch-of-one"} & set(names)
    with pytest.raises(ConfigError, match="'sgd' does not implement the hook 'partition'"):
        testing.rules("partition", "sgd")


def test_unknown_things_are_named() -> None:
    with pytest.raises(ValueError, match=r"kind is one of method, plugin, .*, not 'methods'"):
        testing.rules("methods", "fedavg")
    with pytest.raises(ConfigError, match=r"no method 'fedagv' \(did you mean 'fedavg'\?\)"):
        testing.rules("method", "fedagv")


@dataclass(frozen=True, eq=False)
class Optional:
    """Needs a package that does not exist."""

    def __post_init__(self) -> None:
        raise ValueError("needs sonar: pip install sonar")

    @hookimpl
    def round_end(self) -> None:
        pass


def test_a_missing_package_or_file_is_a_skip_with_its_reason(
    registry_with: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (smoke,) = [
        rule
        for rule in testing.rules("plugin", "mine", registry_with(plugin=Optional))
        if rule.name == "smoke-round"
    ]
    with pytest.raises(unittest.SkipTest, match="pip install sonar"):
        smoke.check()
    monkeypatch.setenv("FEDBENCH_DATA", str(tmp_path))
    rules = {str(rule): rule for rule in testing.rules("dataset", "mnist")}
    rules["missing-files"].check()
    with pytest.raises(unittest.SkipTest, match="train-images"):
        rules["dataset-contents"].check()


def test_options_are_passed_on(registry_with: Callable[..., Any]) -> None:
    registry = registry_with(plugin=Right)
    (rule,) = [
        rule
        for rule in testing.rules("plugin", "mine", registry, options={"weight": -1.0})
        if rule.name == "options"
    ]
    with pytest.raises(testing.RuleBroken, match="weight: input should be greater than or equal"):
        rule.check()


@dataclass(frozen=True, eq=False)
class CalibrationError:
    """Mean difference of confidence and accuracy (Guo et al., ICML 2017, with one bin)."""

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[Unit] = "percent"

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        sure, guess = scores.softmax(dim=1).max(dim=1)
        return float((sure.mean() - (guess == labels).float().mean()).abs())


def test_a_metric_of_confidence_is_judged_by_sure_predictions(
    registry_with: Callable[..., Any],
) -> None:
    for rule in testing.rules("metric", "mine", registry_with(metric=CalibrationError)):
        rule.check()


LAZY = """
from dataclasses import dataclass
from fedbench import hookimpl

@dataclass(frozen=True, eq=False)
class Lazy:
    "Adds a small number."

    @hookimpl
    def local_loss(self, output):
        from .formula import small
        return {"lazy": small(output)}
"""


def test_a_module_that_is_imported_when_it_is_needed_is_no_hidden_state(
    registry_with: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_pkg").mkdir()
    (tmp_path / "lazy_pkg" / "__init__.py").write_text(LAZY)
    formula = "def small(output): return 0.1 * output.features.square().mean()"
    (tmp_path / "lazy_pkg" / "formula.py").write_text(formula)
    monkeypatch.syspath_prepend(tmp_path)
    registry = registry_with(plugin=importlib.import_module("lazy_pkg").Lazy)
    rules = {str(rule): rule for rule in testing.rules("plugin", "mine", registry)}
    rules["no-hidden-state"].check()
    assert "lazy_pkg.formula" in sys.modules


def test_the_kit_does_not_import_a_test_runner() -> None:
    code = "import fedbench.testing, sys; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documentation_lists_every_rule() -> None:
    section = DOCS.read_text().partition("\n## The rules\n")[2]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    wanted = [f"| `{name}` | {kinds} | {text} |" for name, kinds, text in testing.table()]
    assert lines == wanted
