"""What plugins draw of rounds: a panel for each round, as the page and files show it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedbench import PluginError, Run, ServerContext, ServerUpdate, hookimpl
from fedbench.pictures import HeatMap, Picture, Scatter
from fedbench.report import named_figures, narrow, round_pictures
from fedbench.report.draw import paper
from fedbench.report.figure import Figure
from fedbench.study.analysis import Analysis, analyse
from fedbench.study.records import read

Analysed = Callable[..., Analysis]


def scatter(name: str = "features", n: int = 3) -> Scatter:
    """Return n points of class b in two domains, and a large one of class a."""
    x = tuple(float(k) for k in range(n + 1))
    shapes = (*("oil" if k % 2 else "ink" for k in range(n)), "")
    return Scatter(name, "Title", "Caption.", x, x, (*["b"] * n, "a"), shapes)


def heat(n: int = 2) -> HeatMap:
    names = tuple(map(str, range(n)))
    values = tuple(tuple(float(i == j) for j in range(n)) for i in range(n))
    return HeatMap("heat", "Heat", "Cells.", -1.0, 1.0, names, names, values)


@pytest.fixture
def analysed(
    run_tiny: Callable[..., Run], add: Callable[..., None], registry: Any, tmp_path: Path
) -> Analysed:
    """Run methods of which the plugin ``draws`` draws the given pictures by round."""

    def made(
        by_round: Mapping[int, Sequence[Picture]], methods: Sequence[str] = ("fedavg",)
    ) -> Analysis:
        @dataclass(frozen=True, eq=False)
        class Draws:
            @hookimpl
            def server_update(self, ctx: ServerContext) -> ServerUpdate:
                return ServerUpdate(pictures=by_round.get(ctx.round, ()))

        add(draws=Draws)
        for name in methods:
            run_tiny(name, tmp_path / name, rounds=3, extra={"draws": {}})
        return analyse(registry, [read(registry, tmp_path / name) for name in methods])

    return made


def pictures(analysis: Analysis) -> dict[str, Figure]:
    return {one.name: one for one in round_pictures.pictures(analysis.groups[0])}


def test_a_picture_has_a_panel_for_each_round_and_variant(analysed: Analysed) -> None:
    analysis = analysed({1: [scatter()], 3: [scatter(), heat()]}, ["fedavg", "fedprox"])
    found = pictures(analysis)
    assert list(found) == ["picture-features", "picture-heat"]
    features = found["picture-features"]
    assert [panel.title.split(", ")[1] for panel in features.panels] == ["round 1", "round 3"] * 2
    assert (features.title, features.caption) == ("Title", "Caption.")
    assert set(found) <= set(named_figures(analysis))


def test_one_variant_needs_no_name(analysed: Analysed) -> None:
    (figure,) = pictures(analysed({2: [scatter()]})).values()
    assert [panel.title for panel in figure.panels] == ["round 2"]


def test_runs_without_pictures_have_no_figure(analysed: Analysed) -> None:
    assert pictures(analysed({})) == {}


def test_the_points_of_a_scatter(analysed: Analysed) -> None:
    (figure,) = pictures(analysed({1: [scatter()]})).values()
    points, large = figure.data.values()
    assert [(row["x"], row["y"], row["c"], row["d"]) for row in points] == [
        (0, 0, "b", "ink"), (1, 1, "b", "oil"), (2, 2, "b", "ink")
    ]  # fmt: skip
    assert [(row["x"], row["c"]) for row in large] == [(3, "a")]
    layers = figure.panels[0].spec["layer"]
    names = layers[2]["data"]["values"]
    # A class is named at its large point, or else amid its points.
    assert {row["c"]: (row["x"], row["y"]) for row in names} == {"a": (3, 3), "b": (1, 1)}
    ends = [layers[0]["encoding"][axis]["scale"]["domain"] for axis in "xy"]
    assert ends[0] == ends[1] == pytest.approx([1.5 - 1.65, 1.5 + 1.65])


def test_the_cells_of_a_heat_map(analysed: Analysed) -> None:
    (figure,) = pictures(analysed({1: [heat()]})).values()
    (rows,) = figure.data.values()
    assert [(row["k"], row["c"], row["m"]) for row in rows] == [
        ("0", "0", 1), ("0", "1", 0), ("1", "0", 0), ("1", "1", 1)
    ]  # fmt: skip


def test_too_much_is_cut(analysed: Analysed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "PANELS", 2)
    monkeypatch.setattr(narrow, "DOTS", 10)
    monkeypatch.setattr(narrow, "CELLS", 10)
    many = [scatter(n=150), heat(30)]
    found = pictures(analysed({1: many, 2: many, 3: many}))
    figure = found["picture-features"]
    assert [panel.title for panel in figure.panels] == ["round 1", "round 2"]
    assert figure.notes == ("The first 2 of 3 pictures.", "At most 100 small points.")
    assert [len(rows) for rows in figure.data.values()] == [100, 1, 100, 1]
    cells = found["picture-heat"]
    assert {len(rows) for rows in cells.data.values()} == {20 * 20}
    assert cells.notes == ("The first 20 rows and columns.", "The first 2 of 3 pictures.")


def test_a_hostile_name_leads_to_no_other_folder(analysed: Analysed) -> None:
    (figure,) = pictures(analysed({1: [scatter("../../x y")]})).values()
    assert re.fullmatch("picture-_x_y-[0-9a-f]{6}", figure.name)


def test_pictures_of_similar_names_have_files_of_their_own(analysed: Analysed) -> None:
    by_round = {1: [scatter("x y"), scatter("x/y")], 2: [heat()], 3: [scatter("heat")]}
    assert len(pictures(analysed(by_round))) == 4


def test_a_picture_that_is_drawn_twice_in_a_round_is_an_error(analysed: Analysed) -> None:
    with pytest.raises(PluginError, match="plugin 'draws': picture 'features' is already drawn"):
        analysed({1: [scatter(), scatter()]})


def test_files_have_data_and_colours(analysed: Analysed) -> None:
    for figure in pictures(analysed({1: [scatter(), heat()]})).values():
        spec = paper(figure)
        assert "var(--" not in str(spec)
        assert set(spec["datasets"]) == set(figure.data)
