"""``fedbench reproduce`` as it is typed; the rules are tested in tests/study/test_verdicts.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedbench import reproduce as fedbench_reproduce
from fedbench.cli.hooks import EXAMPLES
from fedbench.interface import reproductions as carried
from fedbench.store import fingerprint
from fedbench.store.directory import RunDirectory
from fedbench.study.censoring import Amount
from fedbench.study.verdicts import Verdict, pair, value

TABLE = (EXAMPLES / "digits-table-1.yaml").read_text()


@pytest.fixture
def table(install) -> Path:
    """Install a package with the example's reproduction, but read from a paper; return the file."""
    source = (EXAMPLES / "register_reproductions.py").read_text()
    file = install("example", source) / "digits-table-1.yaml"
    file.write_text(TABLE.replace("memory: true", "memory: false"))
    return file


@pytest.fixture
def measured(table, monkeypatch: pytest.MonkeyPatch):
    """Let the runs of the example have measured these accuracies."""

    def set_to(**by_method):
        def carry_out(registry, found, parts, how, out, quiet):
            amounts = {m: dict(enumerate(map(Amount, v))) for m, v in by_method.items()}
            (part,) = parts
            values = tuple(
                value(m, part.cell.published[m], found.rule, a) for m, a in amounts.items()
            )
            pairs = (pair("fedprox", "fedavg", amounts["fedprox"], amounts["fedavg"], True),)
            verdict = Verdict(part.name, part.cell, False, values, pairs)
            return carried.Reproduced(found, [], [verdict])

        monkeypatch.setattr(carried, "carry_out", carry_out)

    return set_to


def test_all_are_listed_with_their_cost(fedbench, table) -> None:
    text = " ".join(fedbench("reproduce").stdout.split())
    assert "digits-table-1 1 4 16.0 s An example: FedAvg and FedProx" in text


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(
    fedbench, table, tmp_path: Path
) -> None:
    done = fedbench("reproduce", "digits-table-1", "--seeds", "3", "--dry-run")
    assert done.stdout == (
        "domains (one domain for each client): 6 runs, 12 rounds, 144,000 example passes, about "
        "24.0 s\nin all: 6 runs, 12 rounds, 144,000 example passes, about 24.0 s, on 1 core of an "
        "Intel Xeon\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_one_method_is_judged_alone(fedbench, table) -> None:
    words = ("reproduce", "digits-table-1", "--method", "fedavg", "--dry-run")
    assert "domains (one domain for each client): 2 runs, 4 rounds," in fedbench(*words).stdout
    found = fedbench_reproduce("digits-table-1", method="fedavg", dry_run=True)
    assert "domains (one domain for each client): 2 runs, 4 rounds," in str(found)


@pytest.mark.parametrize(
    ("fedavg", "fedprox", "status", "sentence"),
    [
        ([0.29, 0.30], [0.31, 0.3201], 0, "digits-table-1: reproduced, 1 cell"),
        ([0.39, 0.40], [0.31, 0.32], 3, "digits-table-1: not reproduced, 1 cell"),
        ([0.29, 0.30], [0.31, 0.29], 4, "digits-table-1: undecided, 1 cell"),
    ],
)
def test_the_exit_status_is_the_verdict(
    fedbench, measured, tmp_path: Path, fedavg, fedprox, status, sentence
) -> None:
    measured(fedavg=fedavg, fedprox=fedprox)
    done = fedbench("reproduce", "digits-table-1")
    assert done.exit_code == status
    assert sentence in done.stdout
    kept = json.loads((tmp_path / "reproduction" / "digits-table-1.json").read_text())
    assert kept["verdict"] in sentence
    first = kept["cells"]["domains"]["values"][0]
    assert first["seeds"] == {str(n): {"value": v, "exact": True} for n, v in enumerate(fedavg)}
    text = (tmp_path / "reproduction" / "digits-table-1.md").read_text()
    assert "| fedavg | 30.00 | 28.00 to 32.00 |" in text
    assert "- nobody published these values" in text


@pytest.mark.parametrize(
    ("fedavg", "outcome"), [([0.29, 0.30], "reproduced"), ([0.39, 0.40], "not reproduced")]
)
def test_values_from_memory_prove_nothing(fedbench, table, measured, fedavg, outcome) -> None:
    table.write_text(TABLE)
    measured(fedavg=fedavg, fedprox=[0.31, 0.3201])
    done = fedbench("reproduce", "digits-table-1")
    assert done.exit_code == 4
    assert f"undecided, 1 cell: {outcome} by values from memory, which" in done.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["digits-table-2"], "no reproduction 'digits-table-2' (did you mean 'digits-table-1'?)"),
        (["digits-table-1", "--cell", "domain"], "no cell 'domain' (did you mean 'domains'?)"),
        (["digits-table-1", "--method", "fedprx"], "no method 'fedprx' in these cells (did you"),
        (["digits-table-1", "--seeds", "x"], "'x': write a number such as 5"),
    ],
)
def test_what_cannot_be_reproduced_is_one_clear_line(fedbench, table, words, error) -> None:
    done = fedbench("reproduce", *words, "--dry-run")
    assert done.exit_code != 0
    assert error in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.long
def test_runs_are_carried_out_judged_and_reused(fedbench, table, tmp_path: Path) -> None:
    words = ("reproduce", "digits-table-1", "--seeds", "1", "--jobs", "2", "--quiet")
    done = fedbench(*words)
    assert done.exit_code in (3, 4), done.output
    assert len(list((tmp_path / "reproduction" / "runs").glob("digits-fed*-s0-*"))) == 2
    again = fedbench(*words)
    assert "domains (one domain for each client): nothing left to run" in again.stdout
    assert again.exit_code == done.exit_code
    run = RunDirectory(next((tmp_path / "reproduction" / "runs").glob("digits-fedavg-*")))
    run.write_depends({**run.read_environment().depends, fingerprint.CORE: "another"})
    assert "(one domain for each client): 1 run" in fedbench(*words[:-1], "--dry-run").stdout
