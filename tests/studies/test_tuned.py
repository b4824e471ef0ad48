"""The table of many tuned methods: from lines that are made up, and as the page has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "results"

TRIALS = """method,trial,end,rounds,validation,test,rank,chosen,error,sgd.lr,fedprox.mu
fedprox,0,complete,30,0.5,0.5,2,0,,0.1,0.01
fedprox,1,complete,30,0.6,0.6,1,1,,0.2,1.0
fedprox,2,failed,30,,,,0,not finite,0.9,1.0
fedavg,0,complete,30,0.7,0.7,1,1,,0.1,
fedavg,1,complete,30,0.6,0.6,2,0,,0.3,
bad,0,failed,30,,,,1,not finite,0.1,
"""


@pytest.fixture
def rows(tuned):
    def row(method, seed, accuracy, clients, status="finished"):
        return tuned.Row(
            method=method, data="a", seed=seed, status=status, rounds=30, model="global",
            accuracy=accuracy, worst=accuracy, clients=clients, worst_tenth=clients,
            reached=accuracy is not None, rounds_to_target=20.0, bytes_to_target=2e6,
            seconds_to_target=9.0, bytes_per_round=1e5, seconds=60.0, client_state=0,
            server_state=0,
        )  # fmt: skip

    prox = [row("fedprox:sgd.lr=0.2:fedprox.mu=1.0", s, 0.6 + s / 50, 0.9) for s in (1, 2)]
    avg = [row("fedavg", s, 0.6, 0.9 - s / 50) for s in (1, 2)]
    bad = [row("bad", s, None, None, "failed") for s in (1, 2)]
    return [*prox, *avg, *bad]


@pytest.fixture
def found(tuned, tmp_path):
    (tmp_path / "trials.csv").write_text(TRIALS)
    return tuned.searched(tmp_path / "trials.csv")


def cells(table):
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_lines_say_what_was_found_and_how_good_it_is(tuned, rows, found):
    accuracies, costs = tuned.tables(rows, found, "fedavg", "accuracy")
    prox, avg, bad = cells(accuracies)
    at_end = "+3.00 (-9.71 to +15.71)"  # 2 and 4: t(1) = 12.706, standard error 1
    assert prox == [
        "`fedprox`", "sgd.lr=0.2, fedprox.mu=1.0", "1 of 3", "50.00", "60.00",
        "63.00 ± 1.41", "1.0", "90.00 ± 0.00", "1.0", at_end,
    ]  # fmt: skip
    assert avg[:5] == ["`fedavg`", "default", "0 of 2", "70.00", "70.00"]
    assert avg[-1] == ""
    assert bad[2:] == ["1 of 1", "failed", "failed", "failed", "", "", "", ""]
    assert [line[:4] for line in cells(costs)] == [
        ["`fedprox`", "2 of 2", "20", "2.00 MB"],
        ["`fedavg`", "2 of 2", "20", "2.00 MB"],
    ]


def test_methods_can_be_compared_by_the_clients_data(tuned, rows, found):
    accuracies, _ = tuned.tables(rows, found, "fedavg", "clients")
    assert cells(accuracies)[0][-3:] == ["90.00 ± 0.00", "1.0", "+3.00 (-9.71 to +15.71)"]
    assert [len(line) for line in cells(accuracies)] == [8, 8, 8]


def test_a_method_with_settings_of_its_own_is_not_taken_for_another(tuned, rows):
    methods = {"fedprox": None, "fedprox:sgd.lr=0.2": None, "fedavg": None}
    other = replace(rows[0], method="fedprox:fedprox.mu=1.0")
    named = tuned.by_method([rows[0], other], methods)
    assert {name: len(found) for name, found in named.items()} == {
        "fedprox:sgd.lr=0.2": 1,
        "fedprox": 1,
    }


def kept(tuned, name, column):
    """Return both tables of the files of the docs."""
    found = tuned.searched(RESULTS / f"{name}-trials.csv")
    return tuned.tables(tuned.read(RESULTS / f"{name}.csv"), found, "fedavg", column)


def test_the_page_has_the_tables_of_the_kept_searches(tuned):
    page = (RESULTS / "zoo.md").read_text()
    assert kept(tuned, "zoo-fashion-own", "clients")[0] in page
    assert all(table in page for table in kept(tuned, "zoo-fashion-tuned", "accuracy"))


def test_a_reference_that_was_not_tuned_is_refused(tuned, tmp_path, capsys):
    (tmp_path / "trials.csv").write_text(TRIALS)
    words = ["rows.csv", str(tmp_path / "trials.csv"), "--reference", "fedavgg"]
    with pytest.raises(SystemExit):
        tuned.main(words)
    assert "no method 'fedavgg' (did you mean 'fedavg'?)" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["fashion", "digits"])
def test_the_page_of_fedhpro_has_what_the_search_found(tuned, data):
    page = (RESULTS / "fedhpro-study.md").read_text()
    for method, found in tuned.searched(RESULTS / f"tuned-{data}-trials.csv").items():
        scores = f"| {tuned.percent(found.default)} | {tuned.percent(found.best)} |"
        assert any(
            line.startswith(f"| `{method}` |") and scores in line for line in page.splitlines()
        ), (method, scores)
