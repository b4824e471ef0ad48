"""`fedbench.tune`: what the command finds, as an object; with runs in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from click.testing import CliRunner
from fedbench_datasets import digits

import fedbench
from fedbench import ConfigError, FedbenchError, Search, TuningResult, hookimpl
from fedbench.cli import main
from fedbench.errors import TemporaryError
from fedbench.report.draw import Pictures
from fedbench.store.contents import Interrupted
from fedbench.study import comparison
from fedbench.study.execute import Progress
from fedbench.study.grid import Job
from fedbench.study.here import execute_here

FEW: Mapping[str, Any] = {
    "domains.examples": 20,
    "sgd.epochs": 1,
    "model.width": 2,
    "model.feature_size": 8,
    "executor": "inline",
}
GIVEN: Mapping[str, Any] = {"data": "digits", "rounds": 1, "trials": 2, "seeds": 1, "set": FEW}
WORDS = [
    *("fedavg", "fedprox", "--data", "digits", "--rounds", "1", "--trials", "2", "--seeds", "1"),
    *(word for key, value in FEW.items() for word in ("--set", f"{key}={value}")),
]

Execute = Callable[..., Progress]


def execute(jobs: Sequence[Job], *, words: Sequence[str], **more: Any) -> Progress:
    """Carry out runs here, as `fedbench.study.execute.execute` does in other processes."""
    until = int(words[words.index("--until") + 1]) if "--until" in words else None
    flags = {name: more[name] for name in ("retry", "show", "changes")}
    return execute_here(fedbench.discover(), jobs, until=until, **flags)


@pytest.fixture(scope="module", autouse=True)
def _in_this_process(digits_once: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "load", digits_once)
        patch.setattr(comparison, "execute", execute)
        patch.setattr("fedbench.report.draw.pictures", lambda figures: Pictures({}, {}))
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _in_this_process: None) -> TuningResult:
    """Return a tuning of two methods, which no test changes."""
    folder = tmp_path_factory.mktemp("tuning")
    return fedbench.tune(["fedavg", "fedprox"], out=folder, quiet=True, **GIVEN)


def runs_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("**/runs/*")}


def test_it_has_trials_best_values_budget_and_the_comparison(found: TuningResult) -> None:
    assert list(found.methods) == ["fedavg", "fedprox"]
    for method, one in found.methods.items():
        assert len(one.trials) == 2
        assert one.spent == found.budget == 2
        assert found.best[method] == one.best.values
        assert one.best.score == max(trial.score or 0.0 for trial in one.trials)
        assert one.default_rank in (1, 2)
    assert [(run.config.method, run.config.seed) for run in found.comparison.runs] == [
        *(("fedavg", 1), ("fedprox", 1)),
    ]
    assert {"report.html", "trials.csv"} <= {path.name for path in found.directory.iterdir()}


def test_the_command_with_the_same_arguments_has_the_same_trials(found: TuningResult) -> None:
    folder = found.directory
    before, trials = runs_in(folder), (folder / "trials.csv").read_bytes()
    done = CliRunner().invoke(main, ["tune", *WORDS, "--out", str(folder)])
    assert done.exit_code == 0, done.output
    assert runs_in(folder) == before
    assert (folder / "trials.csv").read_bytes() == trials
    for line in str(found).splitlines():
        assert line in done.stdout


def test_tables_charts_and_data_frames(found: TuningResult) -> None:
    for text in (str(found), found._repr_html_()):
        assert "search on validation data" in text
        assert "compared with" in text
    assert set(found.charts) > {"search", "search-options", "rounds", "differences"}
    assert found.chart().title == "Trials in order"
    with pytest.raises(ConfigError, match=r"no chart 'serch' .*'search'"):
        found.chart("serch")
    pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert list(frame["method"]) == ["fedavg", "fedavg", "fedprox", "fedprox"]
    assert frame["chosen"].sum() == 2
    assert frame["fedprox.mu"].isna().tolist() == [True, True, False, False]


def test_an_interrupted_search_resumes(
    found: TuningResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(jobs: Sequence[Job], **more: Any) -> Progress:
        execute(jobs[:1], **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "execute", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            fedbench.tune("fedavg", out=tmp_path, quiet=True, **GIVEN)
    assert caught.value.__notes__ == [
        f"Interrupted; finished runs are kept in {tmp_path}. The same command resumes."
    ]
    (kept,) = tmp_path.glob("search/runs/*/result.json")
    written = kept.stat().st_mtime_ns
    again = fedbench.tune("fedavg", out=tmp_path, quiet=True, **GIVEN)
    assert kept.stat().st_mtime_ns == written
    assert again.methods["fedavg"].trials == found.methods["fedavg"].trials


def test_a_file_says_what_is_tuned(tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text("methods: [fedprox]\ntrials: 7\nrounds: 3\n")
    planned = fedbench.tune(config=tmp_path / "tuned.yaml", trials=5, out=tmp_path, dry_run=True)
    assert "at most 5 trials of 3 rounds" in str(planned)


def test_a_dry_run_says_what_would_be_run(tmp_path: Path) -> None:
    spaces = {"sgd.lr": [0.1, 0.2], "fedprox:fedprox.mu": "log:0.1:1"}
    planned = fedbench.tune("fedprox", set_space=spaces, out=tmp_path, dry_run=True, **GIVEN)
    assert str(planned).startswith("fedprox: sgd.lr 0.1, 0.2; fedprox.mu 0.1 to 1, log\n")
    assert "at most 2 trials of 1 rounds on seed 0" in planned._repr_html_()
    with pytest.raises(FedbenchError, match="nothing was run"):
        planned.best  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_what_the_machine_ended_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(jobs: Sequence[Job], **more: Any) -> Progress:
        return Progress(len(jobs), interrupted={jobs[0].path: Interrupted(1, "ended by SIGKILL")})

    monkeypatch.setattr(comparison, "execute", ended)
    with pytest.raises(TemporaryError, match="ended by SIGKILL; the same command resumes it"):
        fedbench.tune("fedavg", out=tmp_path, quiet=True, **GIVEN)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"methods": "fedavh"}, "did you mean 'fedavg'"),
        ({"methods": []}, r"fedbench\.tune\.methods"),
        ({"sampler": "tpee"}, r"fedbench\.tune\.sampler: input should be 'tpe'"),
        ({"set_space": {"sgd.momentun": "log:0.1:1"}}, "did you mean 'momentum'"),
        ({"space": "none.yaml"}, r"none\.yaml: no such file"),
    ],
    ids=str,
)
def test_what_cannot_be_tuned_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        fedbench.tune(**{"methods": "fedavg", **given})


@dataclass(frozen=True, eq=False)
class Flat:
    """Pull the predictions towards the uniform distribution."""

    weight: Annotated[float, Search(choices=(0.1, 1.0))] = 0.1

    @hookimpl
    def local_loss(self, output: Any) -> dict[str, torch.Tensor]:
        return {"flat": -self.weight * torch.log_softmax(output.logits, 1).mean()}


@pytest.mark.long
def test_classes_in_memory_are_tuned_and_their_runs_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "execute", None)
    given = {**GIVEN, "plugins": {"flat": Flat}, "out": tmp_path, "trials": 1}
    tune = partial(fedbench.tune, "fedavg:+flat", **given)
    first = tune()
    (one,) = first.methods.values()
    assert str(one.spaces["flat.weight"]) == "0.1, 1.0"
    assert "WARNING: fedavg:+flat" in str(first)
    capsys.readouterr()
    again = tune()
    out = capsys.readouterr().out
    assert "1 run is repeated because of a change since then: flat: in memory" in out
    assert "1/1 runs (0 reused, 0 failed)" in out
    assert again.methods["fedavg:+flat"].trials == one.trials
    tune(trust_old=True)
    assert "1/1 runs (1 reused, 0 failed)" in capsys.readouterr().out


@pytest.mark.long
def test_a_pruning_search_with_classes_in_memory_continues_its_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "execute", None)
    given: dict[str, Any] = {**GIVEN, "rounds": 2, "seeds": 1, "trials": 1, "quiet": True}
    found = fedbench.tune("fedavg:+flat", plugins={"flat": Flat}, prune=True, out=tmp_path, **given)
    assert list(found.methods["fedavg:+flat"].trials[0].curve) == [1, 2]
    assert not (tmp_path / "search" / "replaced").exists()
