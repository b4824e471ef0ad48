"""The critical-difference diagram: what it ranks, what its bars join, when there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from fedbench.report import draw, named_figures
from fedbench.report.exports import summary_json
from fedbench.report.figure import Figure
from fedbench.report.rank_figure import _bars, over_seeds, over_settings
from fedbench.study.analysis import Analysis


def write(runs: Any, table: Mapping[str, Sequence[float]], rounds: int = 1) -> None:
    """Write a run for each variant and seed that ends with this accuracy."""
    for variant, values in table.items():
        for seed, value in enumerate(values):
            curve = (0.1,) * (rounds - 1) + (value,)
            runs.add(variant, seed, exact={"only": curve}, accuracy={"rule": "last"})


STEADY = {name: [0.9 - 0.2 * place] * 4 for place, name in enumerate("abcd")}
"""Variants a to d in this order under each of four seeds: mean ranks 1, 2, 3 and 4."""


@pytest.fixture
def figure(runs: Any, analysed: Callable[..., Analysis]) -> Figure:
    write(runs, STEADY)
    found = over_seeds(analysed().groups[0])
    assert found
    return found


def test_methods_hang_from_their_mean_ranks_the_better_half_on_the_left(figure: Figure) -> None:
    assert figure.data["ranks-left"] == [{"v": "a", "m": 1.0}, {"v": "b", "m": 2.0}]
    assert figure.data["ranks-right"] == [{"v": "d", "m": 4.0}, {"v": "c", "m": 3.0}]


def test_bars_join_what_is_less_than_the_critical_difference_apart(figure: Figure) -> None:
    # 2.569 sqrt(4 * 5 / 24) = 2.345: only a and d differ; the bars overlap, so each has a line
    assert figure.data["ranks-bars"] == [
        {"lo": 1.0, "hi": 3.0, "l": 0},
        {"lo": 2.0, "hi": 4.0, "l": 1},
    ]
    (ruler,) = figure.data["ranks-ruler"]
    assert (ruler["lo"], ruler["hi"]) == (1.0, pytest.approx(3.345, abs=1e-3))
    assert ruler["t"] == "critical difference 2.35"
    assert "less than the critical difference apart" in figure.caption
    assert "seeds of one setting, not independent data sets" in figure.notes[1]
    assert figure.notes[0].startswith("Friedman test, 4 methods on 4 seeds: p = 0.007 ")


def test_bars_that_would_seem_to_touch_have_lines_of_their_own() -> None:
    bars = _bars([(1.0, 3.0), (3.1, 5.0), (3.5, 8.0)], gap=0.25)
    assert [bar["l"] for bar in bars] == [0, 1, 0]


def test_one_bar_joins_all_where_friedman_does_not_reject(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    write(runs, {"a": (0.3, 0.2, 0.1), "b": (0.2, 0.1, 0.3), "c": (0.1, 0.3, 0.2)})
    found = over_seeds(analysed().groups[0])
    assert found
    assert found.data["ranks-bars"] == [{"lo": 2.0, "hi": 2.0, "l": 0}]
    assert "The Friedman test does not reject" in found.notes[2]


def test_who_lacks_a_seed_is_left_out_and_named(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    write(runs, {**STEADY, "late": (0.99, 0.99)})
    found = over_seeds(analysed().groups[0])
    assert found
    assert {row["v"] for side in ("left", "right") for row in found.data[f"ranks-{side}"]} == {
        *"abcd"
    }
    assert found.notes[2] == "Without late: not every one of the 4 has a result."


@pytest.mark.parametrize("table", [{"a": [0.1] * 5, "b": [0.2] * 5}, dict.fromkeys("abc", (0.1,))])
def test_two_methods_or_one_seed_have_no_diagram(
    table: Mapping[str, Sequence[float]], runs: Any, analysed: Callable[..., Analysis]
) -> None:
    write(runs, table)
    assert over_seeds(analysed().groups[0]) is None
    assert "ranks" not in named_figures(analysed())


def test_settings_are_the_blocks_of_the_diagram_over_all(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    for rounds in (1, 2):
        write(runs, {name: values[:1] for name, values in STEADY.items()}, rounds)
    assert over_settings(analysed()) is None
    worst_first = {name: [1 - value[0]] for name, value in STEADY.items()}
    write(runs, worst_first, 3)
    found = named_figures(analysed())["ranks"]
    ranks = {r["v"]: r["m"] for side in ("left", "right") for r in found.data[f"ranks-{side}"]}
    assert ranks == pytest.approx({"a": 2.0, "b": 7 / 3, "c": 8 / 3, "d": 3.0})
    assert found.notes[0].startswith("Friedman test, 4 methods on 3 settings: p = ")
    summary = json.loads(summary_json(analysed()))
    assert summary["ranks"]["n"] == 3
    assert [one["ranks"]["p"] for one in summary["settings"]] == [None] * 3  # one seed each


def test_runs_that_end_at_an_accuracy_are_not_ranked(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    for name, values in STEADY.items():
        for seed, value in enumerate(values):
            runs.add(name, seed, exact={"only": (value,)}, accuracy={"rule": "last"}, stop_at=0.2)
    assert analysed().groups[0].ranks is None


def test_the_picture_has_every_name(figure: Figure) -> None:
    found = draw.pictures({"ranks": figure})
    assert not found.missing
    text = found.files["ranks.svg"].decode()
    assert all(f">{name}<" in text for name in STEADY)
    assert "critical difference 2.35" in text
