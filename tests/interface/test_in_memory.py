"""Classes in memory as plugins: registered for one call, marked, kept as source, never reused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from pydantic import Field

import fedbench
from fedbench import ConfigError, PluginError, hookimpl
from fedbench.cli import main


@dataclass(frozen=True, eq=False)
class Flat:
    """Pull the predictions towards the uniform distribution."""

    weight: Annotated[float, Field(ge=0)] = 0.1

    @hookimpl
    def local_loss(self, output: Any) -> dict[str, torch.Tensor]:
        return {"flat": -self.weight * torch.log_softmax(output.logits, 1).mean()}


def test_a_class_runs_with_its_options_for_one_call(few: dict[str, Any]) -> None:
    plain = fedbench.run("fedavg", rounds=1, quiet=True, **few)
    few["set"]["flat.weight"] = 0.3
    found = fedbench.run("fedavg", rounds=1, quiet=True, plugins={"flat": Flat}, **few)
    assert found.config.plugins["flat"] == {"weight": 0.3}
    assert "loss.flat" in found.rounds[0].metrics
    assert found.result.weights_sha256 != plain.result.weights_sha256
    with pytest.raises(ConfigError, match="'flat'"):
        fedbench.run("fedavg", rounds=1, quiet=True, **few)


def test_an_instance_brings_its_options(few: dict[str, Any]) -> None:
    more: dict[str, Any] = {"rounds": 1, "quiet": True, "executor": "pool", "workers": 2}
    few.pop("executor")
    given = fedbench.run("fedavg", plugins={"flat": Flat(weight=0.3)}, **more, **few)
    few["set"]["flat.weight"] = 0.3
    named = fedbench.run("fedavg", plugins={"flat": Flat}, **more, **few)
    assert given.config.hash == named.config.hash
    assert given.result.weights_sha256 == named.result.weights_sha256


def test_zero_weight_is_the_method_without_it(few: dict[str, Any]) -> None:
    plain = fedbench.run("fedavg", rounds=1, quiet=True, **few)
    found = fedbench.run("fedavg", rounds=1, quiet=True, plugins={"flat": Flat(weight=0.0)}, **few)
    assert found.accuracy.mean == plain.accuracy.mean


def test_such_a_run_says_that_its_config_cannot_repeat_it(few: dict[str, Any]) -> None:
    found = fedbench.run("fedavg", rounds=1, quiet=True, plugins={"flat": Flat}, **few)
    assert not found.reproducible
    assert found.config.in_memory == ("flat",)
    assert list(found.result.in_memory) == ["flat"]
    assert "in_memory: flat" in (found.directory / "config.yaml").read_text()
    said = "not repeatable from its config alone: flat was a class in memory"
    assert said in found._repr_html_()
    assert said in CliRunner().invoke(main, ["show", str(found.directory)]).output
    source = (found.directory / "in_memory" / "flat.py").read_text()
    assert source == Path(__file__).read_text()


@pytest.mark.parametrize("command", ["verify", "report", "run"])
def test_commands_explain_what_they_lack(few: dict[str, Any], command: str) -> None:
    fedbench.run("fedavg", rounds=1, quiet=True, out="mine", plugins={"flat": Flat}, **few)
    target = "mine/config.yaml" if command == "run" else "mine"
    done = CliRunner().invoke(main, [command, target])
    assert done.exit_code != 0
    assert "no plugin 'flat'" in done.output
    assert "the run used a class in memory, so its config alone cannot repeat it" in done.output
    again = fedbench.load("mine", plugins={"flat": Flat})
    assert again.accuracy.mean is not None


def test_a_report_leaves_such_runs_out_and_says_so(few: dict[str, Any]) -> None:
    fedbench.run("fedavg", rounds=1, quiet=True, out="runs/plain", **few)
    fedbench.run("fedavg", rounds=1, quiet=True, out="runs/mine", plugins={"flat": Flat}, **few)
    done = CliRunner().invoke(main, ["report", "runs"])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if "runs/mine is left out" in line]
    assert "no plugin 'flat'" in line
    assert "give the class in Python" in line
    assert "fedavg:+flat" not in done.output
    both = fedbench.load_comparison("runs", plugins={"flat": Flat})
    assert both.analysis.groups[0].variants == ("fedavg:+flat", "fedavg")


def test_the_mark_ends_when_no_plugin_is_in_memory(few: dict[str, Any]) -> None:
    found = fedbench.run("fedavg", rounds=1, quiet=True, plugins={"flat": Flat}, **few)
    data = found.config.to_dict()
    data["plugins"].pop("flat")
    Path("mine.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    assert fedbench.run("mine.yaml", out="plain", quiet=True).reproducible


def test_names_and_classes_are_checked(few: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'sgd' is an installed plugin; choose another name"):
        fedbench.run("fedavg", plugins={"sgd": Flat}, **few)
    with pytest.raises(PluginError, match="must be a dataclass"):
        fedbench.run("fedavg", plugins={"text": "Flat"}, **few)
    with pytest.raises(ConfigError, match="'flat' must be a class"):
        fedbench.compare("fedavg:+flat", plugins={"flat": Flat()})  # type: ignore[dict-item]
    assert not Path("runs").exists()


@pytest.mark.long
def test_a_comparison_takes_classes_by_name_and_repeats_their_runs(
    grid: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["fedavg:+flat", "fedavg"]
    first = fedbench.compare(methods, plugins={"flat": Flat}, **grid)
    out = capsys.readouterr().out
    assert "4/4 runs (0 reused, 0 failed)" in out
    assert {run.record.variant for run in first.runs} == {"fedavg:+flat", "fedavg"}
    assert [run.reproducible for run in first.runs].count(False) == 2
    assert "WARNING: fedavg:+flat is not repeatable" in str(first.table)
    again = fedbench.compare(methods, plugins={"flat": Flat}, **grid)
    out = capsys.readouterr().out
    assert "2 runs are repeated because of a change since then: flat: in memory" in out
    assert "4/4 runs (2 reused, 0 failed)" in out
    digests = [[run.result.metrics_sha256 for run in one.runs] for one in (first, again)]
    assert digests[0] == digests[1]


def test_a_run_that_fails_is_in_the_table_with_its_reason(grid: dict[str, Any]) -> None:
    @dataclass(frozen=True, eq=False)
    class Broken:
        @hookimpl
        def local_loss(self, output: Any) -> dict[str, torch.Tensor]:
            raise ArithmeticError("no such number")

    methods = ["fedavg:+broken", "fedavg"]
    found = fedbench.compare(methods, plugins={"broken": Broken}, quiet=True, **grid)
    failed = [run.record for run in found.runs if not run.finished]
    assert [record.status for record in failed] == ["failed", "failed"]
    assert all("no such number" in (record.error or "") for record in failed)
    assert "2 failed" in str(found.table) or "failed: fedavg:+broken" in str(found.table)
