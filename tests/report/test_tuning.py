"""The report's part on a search, against trials written by hand."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from fedbench import Search
from fedbench.report import write
from fedbench.report.draw import pictures
from fedbench.report.tuning import found, gaps, importance, part, trials, trials_csv
from fedbench.study.analysis import Analysis
from fedbench.study.search import Budget
from fedbench.study.spaces import Space
from fedbench.study.trials import Trial
from fedbench.study.tuning import Tuned
from fedbench.study.tuning_plan import Plan, Wanted

LR = Space(Search(low=0.001, high=1.0, scale="log"))
MU = Space(Search(choices=(0.01, None)))


@pytest.fixture
def plan(registry, tiny_config) -> Plan:
    configs = {name: tiny_config(registry, name) for name in ("fedavg", "fedprox")}
    return Plan(
        wanted=Wanted(methods=["fedavg", "fedprox"], trials=4),
        share=0.1,
        given=False,
        search_seeds=(0,),
        seeds=(1, 2),
        budget=Budget(4, 10),
        configs=configs,
        spaces={"fedavg": {"sgd.lr": LR}, "fedprox": {"sgd.lr": LR, "fedprox.mu": MU}},
        higher_is_better=True,
        unit="percent",
    )


@pytest.fixture
def tuned() -> list[Tuned]:
    """Two searches; fedprox has a pruned and a failed trial, and less to try than it may."""
    one = [Trial(n, {"sgd.lr": lr}, 10, s) for n, (lr, s) in enumerate([(0.01, 0.5), (1e-05, 0.4)])]
    one += [Trial(2, {"sgd.lr": 0.1}, 10, 0.6), Trial(3, {"sgd.lr": 0.2}, 10, 0.5)]
    two = [
        Trial(0, {"sgd.lr": 0.01, "fedprox.mu": None}, 10, 0.55),
        Trial(1, {"sgd.lr": 0.5, "fedprox.mu": 0.01}, 10, error="seed 0: loss is nan\nin round 1"),
        Trial(2, {"sgd.lr": 0.02, "fedprox.mu": 0.01}, 5, curve={5: 0.2}),
    ]
    fresh = {"validation": {1: 0.58, 2: 0.56}, "test": {1: 0.5, 2: 0.54}}
    tests = ({0: 0.45, 1: 0.4, 2: 0.52, 3: 0.47}, {0: 0.5})
    shares = ({}, {"sgd.lr": 0.75, "fedprox.mu": 0.25})
    return [
        Tuned("fedavg", "fedavg:sgd.lr=0.1", {"sgd.lr": LR}, {}, one, one[2], 2, shares[0],
              tests[0], 1200, fresh),
        Tuned("fedprox", "fedprox:sgd.lr=0.01", {"sgd.lr": LR, "fedprox.mu": MU}, {}, two, two[0],
              1, shares[1], tests[1], 1200),
    ]  # fmt: skip


def test_a_search_is_summed_up_by_budget_default_and_best(plan, tuned) -> None:
    table = found(plan, tuned)
    assert table.head == ("method", "trials", "rounds", "default", "its rank", "best", "values")
    assert table.rows == (
        ("fedavg", "4", "40", "50.00", "2 of 4", "60.00", "sgd.lr=0.1"),
        (
            *("fedprox", "3, 1 pruned, 1 failed", "25", "55.00", "1 of 3", "55.00"),
            "sgd.lr=0.01, fedprox.mu=null",
        ),
    )
    assert table.notes == (
        "accuracy (%) on 1,200 validation examples, seed 0; every method may spend 40 rounds, and "
        "a failed trial counts in full",
        "fedprox spent less: there was nothing left to try in its space",
    )


def test_the_gap_is_from_the_search_to_fresh_seeds_and_test_data(plan, tuned) -> None:
    table = gaps(plan, tuned)
    assert table.rows == (
        ("fedavg", "60.00", "57.00", "-3.00", "52.00"),
        ("fedprox", "55.00", "-", "-", "-"),
    )


def test_importance_is_shown_where_there_is_some(plan, tuned) -> None:
    table = importance(tuned)
    assert table
    assert table.rows == (("fedprox", "sgd.lr", "0.75"), ("fedprox", "fedprox.mu", "0.25"))
    assert importance(tuned[:1]) is None


def test_all_trials_are_listed_with_how_they_ended(plan, tuned) -> None:
    assert trials(plan, tuned[1]).rows == (
        ("default (best)", "sgd.lr=0.01, fedprox.mu=null", "55.00", "1", "50.00", "10", "complete"),
        (
            *("1", "sgd.lr=0.5, fedprox.mu=0.01", "-", "-", "-", "10"),
            "seed 0: loss is nan in round 1",
        ),
        ("2", "sgd.lr=0.02, fedprox.mu=0.01", "-", "-", "-", "5", "pruned"),
    )
    ranks = [row[3] for row in trials(plan, tuned[0]).rows]
    assert ranks == ["2", "4", "1", "2"]


def test_the_files_have_every_trial(plan, tuned) -> None:
    rows = list(csv.DictReader(trials_csv(plan, tuned).splitlines()))
    assert len(rows) == 7
    assert rows[1]["sgd.lr"] == "1e-05"
    assert rows[1]["fedprox.mu"] == ""
    assert rows[4]["fedprox.mu"] == "null"
    assert [row["chosen"] for row in rows] == ["0", "0", "1", "0", "1", "0", "0"]
    assert (rows[6]["end"], rows[6]["rounds"], rows[6]["validation"]) == ("pruned", "5", "")
    data = json.loads(part(plan, tuned).files["search.json"])
    assert data["protocol"]["search_seeds"] == [0]
    assert data["protocol"]["budget_in_rounds"] == 40
    fedavg, fedprox = data["methods"]
    assert fedavg["fresh"]["test"] == {"1": 0.5, "2": 0.54}
    assert [trial["end"] for trial in fedprox["trials"]] == ["complete", "failed", "pruned"]
    assert fedprox["trials"][2]["curve"] == {"5": 0.2}


def test_charts_show_each_complete_trial_once(plan, tuned) -> None:
    figures = {figure.name: figure for figure in part(plan, tuned).figures}
    rows = figures["search"].data["search"]
    assert [(row["v"], row["t"], row["top"]) for row in rows] == [
        ("fedavg", 0, 0.5),
        ("fedavg", 1, 0.5),
        ("fedavg", 2, 0.6),
        ("fedavg", 3, 0.6),
        ("fedprox", 0, 0.55),
    ]
    assert [row["t"] for row in rows if row["chosen"]] == [2, 0]
    options = figures["search-options"]
    assert [panel.title for panel in options.panels] == ["sgd.lr", "fedprox.mu"]
    (lr, mu) = (panel.spec["layer"][0]["encoding"]["x"] for panel in options.panels)
    assert (lr["type"], lr["scale"]["type"]) == ("quantitative", "log")
    assert lr["scale"]["domain"] == [1e-5, 1.0], "the space, and a default below it"
    assert (mu["type"], mu["sort"]) == ("nominal", ["0.01", "null"])
    assert len(figures["search-test"].data["search-test"]) == 5


def test_charts_can_be_drawn(plan, tuned) -> None:
    drawn = pictures({figure.name: figure for figure in part(plan, tuned).figures})
    assert drawn.missing == {}
    for name, data in drawn.files.items():
        if name.endswith(".svg"):
            assert ET.fromstring(data).tag.endswith("svg")
            assert b"fedavg" in data


def test_the_page_has_the_part_and_the_folder_its_files(
    plan, tuned, by_hand: Analysis, tmp_path: Path
) -> None:
    written = write(by_hand, tmp_path, figures=False, part=part(plan, tuned))
    assert {"report.html", "trials.csv", "search.json"} <= {path.name for path in written.paths}
    page = (tmp_path / "report.html").read_text()
    assert '<section class="group" id="search"' in page
    assert '<a href="#search">Search</a>' in page
    assert "<summary>Trials of fedprox</summary>" in page
    assert "sgd.lr=1e-05" in page.replace("<wbr>", "")
    assert '"search-search-0"' in page
    assert "−3.00" in page
    assert 'id="search"' not in (write(by_hand, tmp_path, figures=False).paths[0]).read_text()
