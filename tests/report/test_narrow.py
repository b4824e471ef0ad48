"""Results that are too many for charts: fewer are drawn, the chart says which, tables have all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbench.report import exports, narrow, write
from fedbench.report.content import table
from fedbench.report.draw import paper
from fedbench.report.figure import Figure
from fedbench.report.figures import figures
from fedbench.report.tables import markdown
from fedbench.store.contents import Partition
from fedbench.study.analysis import MEAN, Analysis

pytestmark = pytest.mark.long

Analysed = Callable[..., Analysis]


def by_name(analysis: Analysis) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(analysis.groups[0])}


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"n{number}" for number in range(*numbers))


def held(classes: int, clients: int, domains: int = 1) -> Partition:
    """Return a partition whose client k holds k + 1 examples of each class, in one domain."""
    counts = {k: {f"n{k % domains}": [k + 1] * classes} for k in range(clients)}
    return Partition(list(names(classes)), list(names(domains)), counts)


def by_mean(analysis: Analysis) -> list[str]:
    """Return the variants with a result, the lowest mean first."""
    cells = analysis.groups[0].cells
    means = {v: c[MEAN].summary.mean for v, c in cells.items() if c[MEAN].summary}
    return sorted(means, key=lambda v: means[v])


def said(figure: Figure) -> str:
    """Return the notes of a figure, which its file shows too."""
    spec = paper(figure)
    text = " ".join(figure.notes)
    assert " ".join(spec["title"]["text"] if text else ()) == text
    return text


def test_usual_results_are_drawn_whole(big: Analysis) -> None:
    # The diagram of ranks always says how they were tested.
    assert not any(said(figure) for name, figure in by_name(big).items() if name != "ranks")


def test_of_many_variants_the_best_and_the_reference_are_drawn(
    runs: Any, analysed: Analysed
) -> None:
    for number in range(200):
        runs.add(f"n{number}", 0, rounds=1, level=0.2 + number / 400, domains=("a",))
    runs.add("broken", 0, rounds=1, error="broke")
    analysis = analysed(reference="n0")
    assert len(table(analysis, analysis.groups[0]).rows) == 201
    assert markdown(analysis).count("\n| n") == 200 + 199 + 200 + 3 * 199 + 200
    found = by_name(analysis)
    best = by_mean(analysis)[-30:]
    for name in ("rounds", "bytes", "seconds", "domains", "classes", "losses"):
        rows = [row for rows in found[name].data.values() for row in rows]
        assert {row["v"] for row in rows} == {"n0", *best}, name
        assert said(found[name]) == "The 30 best of 201 variants, and the reference."
    assert not said(found["partition"])


def test_of_variants_with_a_lower_loss_the_lowest_are_the_best(
    runs: Any, analysed: Analysed
) -> None:
    for number in range(40):
        runs.add(
            *(f"n{number}", 0),
            rounds=1,
            level=0.2 + number / 60,
            domains=("a",),
            accuracy={"metric": "loss", "rule": "last"},
        )
    lowest = set(by_mean(analysed())[:30])
    found = by_name(analysed(reference=min(lowest)))
    assert set(found["rounds"].legend) == lowest
    assert said(found["rounds"]) == "The 30 best of 40 variants."


def test_of_many_domains_both_ends_are_drawn(runs: Any, analysed: Analysed) -> None:
    levels = {f"n{n}": (0.1 + 0.005 * ((7 * n) % 100),) for n in range(100)}
    for variant in ("a", "b"):
        runs.add(variant, 0, exact=levels, partition=held(10, 200, 100))
    analysis = analysed()
    assert len(table(analysis, analysis.groups[0]).columns) == 101
    order = sorted(levels, key=lambda name: levels[name])
    shown = [MEAN, *(d for d in levels if d in (*order[:12], *order[-12:]))]
    found = by_name(analysis)
    text = "Of 100 domains, the 12 with the lowest and the 12 with the highest mean."
    titles = [panel.title for panel in found["rounds"].panels]
    assert titles == ["mean over domains", *shown[1:]]
    assert [panel.title for panel in found["classes"].panels] == shown[1:]
    assert {row["d"] for row in found["domains"].data["bars"]} == set(shown)
    for name in ("rounds", "domains", "differences", "classes"):
        assert said(found[name]) == text
    assert len(found["partition"].panels) == 24
    assert said(found["partition"]) == (
        "The first 100 of 200 clients. The first 24 of 100 domains."
    )


def test_with_many_variants_there_are_fewer_domains(runs: Any, analysed: Analysed) -> None:
    for number in range(30):
        runs.add(f"n{number}", 0, rounds=1, domains=names(20))
    found = by_name(analysed())
    assert len(found["rounds"].panels) == 1 + 8
    assert len(found["domains"].data["bars"]) == 30 * 9


def test_of_many_classes_both_ends_are_drawn_in_order(runs: Any, analysed: Analysed) -> None:
    path = runs.add("a", 0, rounds=1, domains=("only",), classes=names(1500))
    file = path / "rounds.jsonl"
    one = json.loads(file.read_text())
    values = np.random.default_rng(0).permutation(1500) / 1500
    one["scores"]["classifier"]["class_accuracy"]["domains"]["only"] = values.tolist()
    file.write_text(json.dumps(one) + "\n")
    found = by_name(analysed())["classes"]
    (rows,) = found.data.values()
    order = [f"n{n}" for n in values.argsort()]
    expected = [*order[:50], *order[-50:]]
    assert {row["c"] for row in rows} == set(expected)
    assert found.panels[0].spec["layer"][0]["encoding"]["x"]["sort"] == expected
    assert said(found) == (
        "Of 1500 classes, the 50 with the lowest and the 50 with the highest mean, in this order."
    )


def test_many_classes_of_a_partition_share_columns_that_add_up(
    runs: Any, analysed: Analysed
) -> None:
    runs.add("a", 0, rounds=1, domains=("n0",), partition=held(1500, 1000))
    found = by_name(analysed())["partition"]
    (rows,) = found.data.values()
    assert len(rows) == 100 * 100
    assert {row["k"] for row in rows} == set(range(100))
    assert {row["c"] for row in rows} == {f"n{n} +14" for n in range(0, 1500, 15)}
    assert all(row["m"] == 15 * (row["k"] + 1) for row in rows)
    assert said(found) == (
        "The first 100 of 1000 clients. 1500 classes, 15 to a column, named after the first."
    )


def test_a_last_column_may_be_smaller() -> None:
    shown, *_ = narrow.partition(held(201, 1))
    assert len(shown.classes) == 67
    shown, *_ = narrow.partition(held(202, 1))
    assert shown.classes[-1] == "n201"
    assert sum(shown.counts[0]["n0"]) == 202


def test_of_many_rounds_some_are_drawn_with_their_own_values(runs: Any, analysed: Analysed) -> None:
    for variant in ("a", "b"):
        runs.add(variant, 0, rounds=10_001, domains=("only",), classes=("0",))
    analysis = analysed()
    found = by_name(analysis)
    rows = [row for row in found["rounds"].data["curves-0"] if row["v"] == "a"]
    assert [row["r"] for row in rows] == [*range(1, 10_001, 21), 10_001]
    record = analysis.groups[0].records[0]
    for row in rows[::50]:
        one = record.rounds[row["r"] - 1]
        assert row["m"] == pytest.approx(one.scores["classifier"]["accuracy"].mean, rel=1e-5)
    sent = sum(sum(one.bytes_up.values()) * 2 for one in record.rounds)
    assert rows[-1]["b"] == sent  # bytes of the rounds between count
    for name in ("rounds", "bytes", "seconds", "losses", "scores"):
        assert said(found[name]) == "At most 500 points of a line."
    marked = found["rounds"].panels[0].spec["layer"][2]["transform"][0]["filter"]
    marks = json.loads(marked.removeprefix("indexof(").partition("]")[0] + "]")
    assert 10 <= len(marks) <= 12
    assert set(marks) <= {row["r"] for row in rows}


@pytest.mark.parametrize("rounds", [(7, 9), (7, 60), (600, 9)])
def test_runs_that_end_long_before_their_last_round_are_drawn_whole(
    rounds: Any, runs: Any, analysed: Analysed
) -> None:
    """As under ``stop_at`` or ``stop_time``, with which many rounds are allowed."""
    for variant, number in zip("ab", rounds, strict=True):
        runs.add(variant, 0, rounds=number, limit=100_000, domains=("only",), classes=("0",))
    rows = by_name(analysed())["rounds"].data["curves-0"]
    for variant, number in zip("ab", rounds, strict=True):
        mine = [row["r"] for row in rows if row["v"] == variant]
        assert (mine[0], mine[-1]) == (1, number)
        assert len(mine) == number if number < 500 else 300 <= len(mine) <= 501


def test_rounds_that_are_scored_now_and_then_are_all_drawn() -> None:
    scored = [*range(5, 2001, 5)]
    assert narrow.thinned(scored, 500) == scored
    assert narrow.thinned(scored, 100)[-1] == 2000
    assert narrow.thinned([1], 1) == [1]
    assert narrow.thinned([], 10) == []


def test_of_many_metrics_the_first_are_drawn(runs: Any, analysed: Analysed) -> None:
    path = runs.add("a", 0, rounds=1)
    one = json.loads((path / "rounds.jsonl").read_text())
    one["metrics"] |= {f"m{n}": 0.5 for n in range(40)}
    (path / "rounds.jsonl").write_text(json.dumps(one) + "\n")
    found = by_name(analysed())["diagnostics"]
    assert len(found.panels) == 24
    assert said(found).startswith("The first 24 of 4")


def test_too_many_seeds_have_no_dots(
    runs: Any, analysed: Analysed, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.grid(("a", "b"), seeds=3, rounds=1)
    monkeypatch.setattr(narrow, "DOTS", 29)
    found = by_name(analysed())["domains"]
    assert found.data["dots"] == []
    assert "too many" in found.caption


def test_the_csv_leaves_out_what_would_be_gigabytes_and_says_so(
    runs: Any, analysed: Analysed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.grid(("a", "b"), seeds=1, rounds=4, accuracy={"rule": "last_k", "k": 2})
    runs.add("c", 0, rounds=4, done=0)
    monkeypatch.setattr(exports, "MANY_VALUES", 2 * 4 * 4 * 10 - 1)
    analysis = analysed()
    rows = list(csv.DictReader(io.StringIO(exports.rounds_csv(analysis))))
    assert {row["round"] for row in rows if row["class"]} == {"3", "4"}
    assert {row["round"] for row in rows if row["metric"] == "accuracy"} == set("1234")
    (note,) = write(analysis, tmp_path, figures=False).notes
    assert note == (
        "rounds.csv has values of classes for the rounds that the accuracy rule counts; "
        "all 320 are in the run directories"
    )
    monkeypatch.undo()
    assert exports.left_out(analysis) == ""


def test_heat_maps_of_many_variants_and_domains_have_fewer_classes(
    runs: Any, analysed: Analysed
) -> None:
    for variant in names(16):
        runs.add(variant, 0, rounds=1, domains=names(10), classes=names(60))
    found = by_name(analysed())["classes"]
    assert sum(map(len, found.data.values())) == 16 * 10 * 50
    assert said(found).startswith("Of 60 classes, the 25 with the lowest and the 25 with the high")


def test_a_report_on_all_of_it_is_small(runs: Any, analysed: Analysed, tmp_path: Path) -> None:
    for number in range(32):
        runs.add(
            *(f"a variant with a long name {number}", 0),
            rounds=5,
            domains=names(10),
            classes=names(120),
        )
    written = write(analysed(), tmp_path / "out")
    assert written.notes == []
    sizes = {path.name: path.stat().st_size for path in written.paths}
    assert sizes["report.html"] < 5_000_000
    assert max(n for name, n in sizes.items() if name.endswith((".png", ".svg"))) < 9_000_000
    for name in ("report.html", "figures/rounds.svg"):
        text = (tmp_path / "out" / name).read_text()
        assert "The 30 best of 32 variants" in text
        assert "Of 10 domains, the " in text
