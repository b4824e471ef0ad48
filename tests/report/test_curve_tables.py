"""The tables of learning curves: hand-made curves in every form."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from fedbench.errors import ConfigError
from fedbench.report import print_analysis
from fedbench.report.content import TextTable, headline, table
from fedbench.report.curve_tables import amount, curve_tables
from fedbench.report.exports import runs_csv, summary_json
from fedbench.report.html import page
from fedbench.report.series import curves
from fedbench.report.tables import latex, markdown
from fedbench.study.analysis import MEAN, Analysis
from fedbench.study.censoring import Amount

CURVES = {
    "slow": ((0.1, 0.3, 0.4, 0.5), (0.1, 0.2, 0.3, 0.6)),
    "fast": ((0.2, 0.6, 0.5, 0.7), (0.1, 0.6, 0.6, 0.6)),
    "fails": ((0.1, 0.2, 0.2, 0.3), (0.1, 0.1, 0.5, 0.4)),
}
"""Variant -> seed -> accuracy of four rounds, on one domain; the reference is ``slow``.

It ends at 0.55 on average, which its seed 0 never reaches. ``fails`` gets there in no seed.
"""


@pytest.fixture
def curved(runs: Any, analysed: Callable[..., Analysis]) -> Callable[..., Analysis]:
    for variant, seeds in CURVES.items():
        for seed, exact in enumerate(seeds):
            runs.add(variant, seed, exact={"x": exact}, accuracy={"rule": "last"})
    return lambda **given: analysed(reference="slow", **given)


def tables(analysis: Analysis) -> dict[str, TextTable]:
    return {one.name: one for one in curve_tables(analysis.groups[0])}


def printed(analysis: Analysis, **given: Any) -> str:
    out = io.StringIO()
    print_analysis(analysis, Console(file=out, highlight=False, **given))
    return out.getvalue()


def test_the_cost_of_the_references_final_value(curved: Callable[..., Analysis]) -> None:
    found = tables(curved())["target"]
    assert found.title == "to 55.00 % accuracy"
    assert found.notes[0] == "target: final value of slow, mean over 2 seeds"
    cells = {row[0]: row[1:3] for row in found.rows}
    # slow: never in seed 0, round 4 in seed 1; 80 MB are sent in a round
    assert cells == {"slow": ("1 of 2", "> 4"), "fast": ("2 of 2", "2"), "fails": ("0 of 2", "> 4")}
    assert {row[0]: row[3] for row in found.rows}["fast"].startswith("160.0")
    assert any(note.startswith("> is a lower bound") for note in found.notes)


def test_a_given_target_that_all_reach_has_ratios(curved: Callable[..., Analysis]) -> None:
    found = tables(curved(target=0.3))
    assert [row[1:3] for row in found["target"].rows] == [
        ("2 of 2", "2.5"),
        ("2 of 2", "2"),
        ("2 of 2", "3.5"),
    ]
    assert not any(note.startswith(">") for note in found["target"].notes)
    rounds = {row[0]: row[2:] for row in found["target-differences"].rows if row[1] == "rounds"}
    # fast: 2 / 2 and 2 / 3; fails: 4 / 2 and 3 / 3
    assert rounds["fast"][0] == f"{(2 / 3) ** 0.5:.2f}"
    assert rounds["fast"][2:] == ("1/1/0", "-")
    assert rounds["fails"][0] == f"{2**0.5:.2f}"
    assert rounds["fails"][2] == "0/1/1"


def test_area_best_and_forgetting_by_hand(runs: Any, analysed: Callable[..., Analysis]) -> None:
    metrics = {"accuracy": {}, "loss": {}}
    runs.add("fast", 0, exact={"x": (0.2, 0.6, 0.5, 0.7)}, metrics=metrics)
    found = tables(analysed())["curves"]
    # area (0.1 + 0.6 + 0.5 + 0.35) / 3; a single drop of 0.1 in three steps; 0.1 above the peak
    assert found.rows == (("fast", "51.67", "70.00", "4", "3.33", "-10.00"),)
    assert any("accuracy of each domain" in note for note in found.notes)
    assert any("selected on the test data" in note for note in found.notes)


def test_forgetting_follows_the_classes_where_their_values_are_kept(
    curved: Callable[..., Analysis],
) -> None:
    notes = tables(curved())["curves"].notes
    assert any("class_accuracy of each class and domain" in note for note in notes)


def test_a_percentage_is_no_target(curved: Callable[..., Analysis]) -> None:
    with pytest.raises(ConfigError, match=r"target 90: accuracy is a fraction .* 1; write 0\.9$"):
        curved(target=90)


def test_a_failed_run_counts_as_one_that_did_not_get_there(
    curved: Callable[..., Analysis], runs: Any
) -> None:
    runs.add(
        "fast", 2, done=0, rounds=4, error="loss is nan", accuracy={"rule": "last"}, domains=("x",)
    )
    found = tables(curved())["target"]
    assert {row[0]: row[1] for row in found.rows}["fast"] == "2 of 3"
    assert "runs without a result: fast (1 failed)" in found.notes


def test_without_a_target_only_the_curves_are_shown(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    runs.add("slow", 0, exact={"x": (0.1, 0.2)})
    runs.add("fast", 0, rounds=2, done=1, domains=("x",))
    assert [*tables(analysed(reference="fast"))] == ["curves"]


def test_amounts_are_shown_in_their_units() -> None:
    assert amount(Amount(12), "rounds") == "12"
    assert amount(Amount(12.5, exact=False), "rounds") == "> 12.5"
    assert amount(Amount(2_500_000), "bytes") == "2.50 MB"
    assert amount(Amount(75.0, exact=False), "seconds") == "> 1:15"
    assert amount(Amount(math.nan), "seconds") == "-"


def test_every_form_has_the_same_cells(curved: Callable[..., Analysis]) -> None:
    analysis = curved()
    text = markdown(analysis)
    assert "| slow | 1 of 2 | \\> 4 | \\> 320.00 MB |" in text
    assert "To 55.00 % accuracy. Target: final value of slow" in text
    assert r"slow & 1 of 2 & \textgreater{} 4 & \textgreater{} 320.00 MB &" in latex(analysis)
    assert r"\label{tab:target-1}" in latex(analysis)
    assert "> 320.00 MB" in printed(analysis, width=80, force_terminal=True)
    assert printed(analysis, width=10_000).isascii()
    shown = page(analysis, [[]], [], "", "no script")
    assert '<td class="num">&gt; 320.00 MB</td>' in shown
    assert 'href="#s1-numbers"' in shown


def test_the_tables_fit_80_columns(big: Analysis) -> None:
    lines = printed(big, width=80, force_terminal=True, color_system=None).splitlines()
    heads = [line.split() for line in lines if line.startswith("variant")]
    assert ["variant", "reached", "by", "rounds", "bytes", "time"] in heads
    assert [
        "variant",
        "cost",
        "ratio",
        "95",
        "%",
        "interval",
        "wins/ties/losses",
        "p",
        "(Holm)",
    ] in heads
    assert ["variant", "area", "best", "in", "round", "drop", "below", "peak"] in heads


def test_the_files_have_every_run(curved: Callable[..., Analysis], runs: Any) -> None:
    runs.add("fails", 2, done=1, rounds=4, accuracy={"rule": "last"}, domains=("x",))
    analysis = curved()
    rows = list(csv.DictReader(io.StringIO(runs_csv(analysis))))
    assert len(rows) == 7
    by_run = {(row["variant"], int(row["seed"])): row for row in rows}
    fast = by_run["fast", 0]
    assert (fast["status"], fast["reached"], fast["rounds_to_target"]) == ("finished", "1", "2")
    assert (float(fast["best"]), fast["best_round"], fast["accuracy"]) == (0.7, "4", "0.7")
    lacking = by_run["fails", 2]
    assert (lacking["status"], lacking["reached"]) == ("unfinished", "0")
    assert (lacking["rounds_to_target"], lacking["accuracy"], lacking["area"]) == ("1", "", "")
    found = json.loads(summary_json(analysis))["settings"][0]["curves"]
    assert found["reaching"]["amounts"]["slow"]["rounds"] == {
        "0": {"value": 4, "exact": False},
        "1": {"value": 4, "exact": True},
    }
    assert found["reaching"]["target"] == pytest.approx(0.55)
    assert found["shapes"]["fast"]["0"]["best_round"] == 4


# runs that end at an accuracy


@pytest.fixture
def stopped(runs: Any, analysed: Callable[..., Analysis]) -> Analysis:
    """Runs that end at 0.6, or after four rounds; of ``slow``, one does not get there."""
    exact = {
        "slow": ((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.5, 0.6), (0.2, 0.3, 0.6)),
        "fast": ((0.2, 0.6), (0.1, 0.6), (0.7,)),
    }
    for variant, seeds in exact.items():
        for seed, values in enumerate(seeds):
            runs.add(variant, seed, exact={"x": values}, limit=4, stop_at=0.6)
    return analysed(reference="slow")


def test_where_runs_end_at_an_accuracy_its_cost_is_compared_and_not_the_accuracies(
    stopped: Analysis,
) -> None:
    group = stopped.groups[0]
    content = table(stopped, group)
    assert content.versus == ()
    assert not any(e.best or e.unsure for row in content.rows for e in row.entries)
    assert "best of its column" not in printed(stopped) + markdown(stopped)
    assert any(n.startswith("WARNING: a run ends with the first") for n in content.notes)
    found = tables(stopped)
    assert found["target"].title == "to 60.00 % accuracy"
    assert found["target"].notes[0] == "target: where the runs end (stop_at)"
    assert [row[:3] for row in found["target"].rows] == [
        ("slow", "2 of 3", "4"),
        ("fast", "3 of 3", "2"),
    ]
    rounds = [row[4] for row in found["target-differences"].rows if row[1] == "rounds"]
    assert rounds == ["3/0/0"]
    assert found["curves"].notes[0].startswith("WARNING: not comparable")
    assert headline(group) == "Fewest rounds to 60.00 % accuracy: fast, median 2."
    assert "60.00 % accuracy" in page(stopped, [[]], [], "", "no script")


def test_a_target_above_the_accuracy_at_which_runs_end_is_not_reached(
    stopped: Analysis, analysed: Callable[..., Analysis]
) -> None:
    analysis = analysed(reference="slow", target=0.65)
    assert [row[:3] for row in tables(analysis)["target"].rows] == [
        ("slow", "0 of 3", "> 4"),
        ("fast", "1 of 3", "> 2"),
    ]
    assert headline(analysis.groups[0]).startswith("No variant is known to reach 65.00 % accuracy")


def test_lines_of_charts_end_with_the_first_run_of_a_variant(stopped: Analysis) -> None:
    rows = curves(stopped.groups[0])[MEAN]
    assert [(row["v"], row["r"], row["n"]) for row in rows] == [
        *(("slow", 1, 3), ("slow", 2, 3), ("slow", 3, 3)),
        ("fast", 1, 3),
    ]
