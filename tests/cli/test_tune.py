"""``fedbench tune`` as it is typed; what it searches and computes is tested in tests/study."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pytest

from fedbench.report.draw import Pictures
from fedbench.store.contents import Interrupted
from fedbench.study.execute import PATIENCE, Progress

PLAN = """\
fedavg: sgd.lr 0.001 to 0.1, log
fedprox: sgd.lr 0.001 to 0.1, log; fedprox.mu 0.5, 1
each method: at most 5 trials of 20 rounds on seed 0, proposed by tpe in batches of 4; the first \
is its default
searched for: accuracy on 10 % of each client's examples, which nobody trains on \
(--set clients.validation=0.2 would hold out more)
compared afterwards: the best of each on seeds 1 to 5, on test data
at most 10 runs of the search and 10 of the comparison
"""


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(fedbench, tmp_path: Path) -> None:
    words = ["--trials", "5", "--rounds", "20", "--set-space", "fedprox.mu=choice:0.5,1"]
    done = fedbench("tune", "fedavg", "fedprox", "--dry-run", *words)
    assert done.stdout == PLAN
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_the_options_and_the_command_line_overrides_it(fedbench, tmp_path: Path) -> None:
    lines = "methods: [fedavg, fedprox]", "rounds: 20", "trials: 9", "prune: true"
    (tmp_path / "tuned.yaml").write_text("\n".join((*lines, "set_space: ['sgd.lr=log:0.1:1']")))
    done = fedbench("tune", "--config", "tuned.yaml", "--trials", "5", "--dry-run")
    given = ["--rounds", "20", "--trials", "5", "--prune", "--set-space", "sgd.lr=log:0.1:1"]
    assert done.stdout == fedbench("tune", "fedavg", "fedprox", *given, "--dry-run").stdout
    assert "as many rounds as 5 trials of 20 rounds" in done.stdout


def test_a_wrong_key_of_the_file_is_named_with_its_line(fedbench, tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text("methods: [fedavg]\ntrails: 3\n")
    done = fedbench("tune", "--config", "tuned.yaml", "--dry-run")
    assert done.stderr == ("Error: tuned.yaml:2: trails: unknown option (did you mean 'trials'?)\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["fedavg", "--set-space", "sgd.lr=0.1"], "--set-space sgd.lr=0.1: '0.1' is not a space"),
        (["fedavg", "--seeds", "x"], "'x': write a number such as 5"),
        (["fedavg", "--search-seeds", "1,2", "--seeds", "2,3"], "seed 2 is one of the search"),
        (["fedavg", "--space", "none.yaml"], "none.yaml: no such file"),
        (["fedavg", "--shared", "sgd.momentum"], "--shared sgd.momentum: it is not searched"),
        (["fedavh"], "did you mean 'fedavg'?"),
        ([], "name the methods to tune, or give them in a file with --config"),
    ],
    ids=str,
)
def test_what_cannot_be_tuned_is_one_clear_line(fedbench, words, error) -> None:
    done = fedbench("tune", *words, "--dry-run")
    assert done.exit_code != 0
    assert error in done.stderr
    assert "Traceback" not in done.output


def test_without_optuna_the_extra_is_named(fedbench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("sampling", "search", "tuning_plan", "tuning_runs", "tuning"):
        monkeypatch.delitem(sys.modules, f"fedbench.study.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = fedbench("tune", "fedavg", "--dry-run")
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: `fedbench tune` needs Optuna; install it: pip install 'fedbench-toolkit[tune]'\n"
    )


@pytest.mark.parametrize(
    ("times", "status", "line"),
    [(1, 75, "the same command resumes it"), (PATIENCE, 1, "then add --retry")],
)
def test_runs_that_the_machine_ended_are_listed(
    fedbench, few, times, status, line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(jobs, **more):
        end = Interrupted(times, "ended by SIGKILL")
        return Progress(len(jobs), interrupted={jobs[0].path: end})

    monkeypatch.setattr("fedbench.study.comparison.execute", execute)
    done = fedbench("tune", "fedavg", "--trials", "2", "--trust-old", *few[:2], *few[4:])
    assert done.exit_code == status
    assert "ended by SIGKILL" in done.stdout
    assert done.stdout.strip().endswith(line)


def test_an_interrupt_says_how_to_continue(fedbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(jobs, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedbench.study.comparison.execute", execute)
    done = fedbench("tune", "fedavg", "--out", "here")
    assert done.exit_code == 130
    assert "Interrupted; finished runs are kept in here. The same command resumes." in done.stderr


@pytest.mark.long
def test_a_tuning_from_start_to_end(
    fedbench, few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedbench.report.draw.pictures", lambda figures: Pictures({}, {}))
    words = ["--trials", "2", "--seeds", "1", *few[:2], *few[4:]]
    done = fedbench("tune", "fedavg", *words)
    assert done.exit_code == 0, done.output
    for line in (
        "2/2 runs (0 reused, 0 failed)",
        "search on validation data",
        "1/1 runs (0 reused, 0 failed)",
        "from the search to test data",
    ):
        assert line in done.stdout
    assert len(list((tmp_path / "tuning/search/runs").glob("*/result.json"))) == 2
    assert len(list((tmp_path / "tuning/runs").glob("*/result.json"))) == 1
    assert {"report.html", "trials.csv", "search.json"} <= {
        path.name for path in (tmp_path / "tuning").iterdir()
    }


@pytest.mark.long
def test_a_trial_whose_process_fails_is_spent_and_has_the_worst_rank(
    fedbench, few, tmp_path: Path
) -> None:
    words = ["--trials", "3", "--seeds", "1", "--jobs", "2", *few[:2], *few[4:]]
    done = fedbench("tune", "fedavg", "--set-space", "sgd.lr=choice:0.1,1e30,0.01", *words)
    assert done.exit_code == 0, done.output
    assert re.search(r"^fedavg \| +3, 1 failed \| +3 \|", done.stdout, re.MULTILINE)
    with (tmp_path / "tuning/trials.csv").open() as file:
        rows = {row["sgd.lr"]: row for row in csv.DictReader(file)}
    failed = rows.pop("1e+30")
    assert (failed["end"], failed["validation"], failed["rank"]) == ("failed", "", "")
    assert re.match(r"seed 0: .* is (nan|inf)", failed["error"])
    assert {row["rank"] for row in rows.values()} <= {"1", "2"}
