"""The charts' data against numbers worked out by hand, and the exported images."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedbench.report import write
from fedbench.report.draw import PAPER, paper
from fedbench.report.exports import rounds_csv
from fedbench.report.figure import Figure
from fedbench.report.figures import figures
from fedbench.study.analysis import Analysis


def by_name(analysis: Analysis) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(analysis.groups[0])}


def test_curves_are_mean_and_deviation_over_seeds(by_hand: Analysis) -> None:
    found = by_name(by_hand)["rounds"]
    last = next(r for r in found.data["curves-0"] if r["v"] == "x" and r["r"] == 2)
    assert last["m"] == pytest.approx(0.55)
    assert (last["lo"], last["hi"]) == (pytest.approx(0.45), pytest.approx(0.65))
    assert last["n"] == 3
    assert [panel.title for panel in found.panels] == ["mean over domains", "a", "b"]
    assert "one standard deviation" in found.caption


def test_bytes_add_up_over_rounds_and_directions(by_hand: Analysis) -> None:
    rows = by_name(by_hand)["bytes"].data["curves-0"]
    assert [r["b"] for r in rows if r["v"] == "x"] == [80_000_000, 160_000_000]


def test_seconds_add_up_over_rounds(by_hand: Analysis) -> None:
    runs = [r for r in by_hand.groups[0].records if r.variant == "y"]
    total = sum(one.seconds for r in runs for one in r.rounds) / 3
    rows = [r for r in by_name(by_hand)["seconds"].data["curves-0"] if r["v"] == "y"]
    assert rows[-1]["s"] == pytest.approx(total, rel=1e-5)


def test_bars_have_intervals_and_dots(by_hand: Analysis) -> None:
    found = by_name(by_hand)["domains"]
    bar = next(r for r in found.data["bars"] if (r["v"], r["d"]) == ("x", "a"))
    # 60 +- 4.3027 * 10 / sqrt(3)
    assert (bar["m"], bar["lo"], bar["hi"]) == pytest.approx((0.6, 0.3516, 0.8484), abs=1e-4)
    dots = [r["m"] for r in found.data["dots"] if (r["v"], r["d"]) == ("x", "a")]
    assert dots == [0.5, 0.6, 0.7]


def test_differences_are_in_points_with_p(by_hand: Analysis) -> None:
    (row,) = by_name(by_hand)["differences"].data["differences-0"]
    assert row["m"] == pytest.approx(10 / 3)
    assert (row["lo"], row["hi"]) == pytest.approx((-0.461, 7.128), abs=1e-3)
    assert (row["v"], row["p"], row["clear"]) == ("y", "0.063", False)


def without_class_three(path: Path, domains: Sequence[str]) -> None:
    """Take the value of class 3 out of the rounds of a run."""
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    for one in lines:
        for domain in domains:
            one["scores"]["classifier"]["class_accuracy"]["domains"][domain][3] = None
    (path / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def test_a_class_without_a_value_is_an_empty_cell_and_an_empty_field(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    paths = [runs.add("a", seed, rounds=1) for seed in (0, 1)]
    without_class_three(paths[0], ("mnist", "usps"))
    without_class_three(paths[1], ("mnist",))
    analysis = analysed()
    found = by_name(analysis)["classes"]
    mnist, usps = (found.data[f"classes-0-{place}"] for place in (0, 1))
    assert [row["c"] for row in mnist] == list("012456789")
    for panel in found.panels:  # the column is there all the same
        assert panel.spec["layer"][0]["encoding"]["x"]["sort"] == list("0123456789")
    kept = json.loads((paths[1] / "rounds.jsonl").read_text())["scores"]["classifier"]
    expected = kept["class_accuracy"]["domains"]["usps"][3]  # of the one seed that has it
    assert [row["m"] for row in usps if row["c"] == "3"] == [pytest.approx(expected, rel=1e-5)]
    rows = list(csv.DictReader(rounds_csv(analysis).splitlines()))
    empty = {(row["seed"], row["domain"], row["class"]) for row in rows if not row["value"]}
    assert empty == {("0", "mnist", "3"), ("0", "usps", "3"), ("1", "mnist", "3")}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_a_value_that_is_no_number_is_not_drawn(
    runs: Any, analysed: Callable[..., Analysis], tmp_path: Path, value: float
) -> None:
    for path in (runs.add("a", 0, rounds=2), runs.add("b", 0, rounds=2)):
        lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
        last = lines[-1]
        scores = last["scores"]["classifier"]
        last["metrics"]["drift"] = last["seconds"] = scores["loss"]["mean"] = value
        scores["class_accuracy"]["domains"]["usps"][3] = value
        (path / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    found = by_name(analysed())
    assert "diagnostics" not in found
    assert all(0 <= row["m"] <= 1 for row in found["classes"].data["classes-0-1"])
    assert {row["r"] for row in found["scores"].data["scores-0"]} == {1}
    assert ["s" in row for row in found["seconds"].data["curves-0"]] == [True, False] * 2
    page = write(analysed(), tmp_path / "out", figures=False).paths[0].read_text()
    assert "NaN" not in page.partition("<script>")[0]


def test_without_any_class_that_has_a_value_there_is_no_heat_map(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    path = runs.add("a", 0, rounds=1, domains=("only",), classes=("0", "1", "2", "3"))
    one = json.loads((path / "rounds.jsonl").read_text())
    one["scores"]["classifier"]["class_accuracy"]["domains"]["only"] = [None] * 4
    (path / "rounds.jsonl").write_text(json.dumps(one) + "\n")
    assert "classes" not in by_name(analysed())


def test_classes_are_averaged_over_the_rounds_of_the_rule(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    runs.grid(("a",), seeds=2, rounds=4, accuracy={"rule": "last_k", "k": 2})
    analysis = analysed()
    lists = [
        one.scores["classifier"]["class_accuracy"].domains["usps"]
        for record in analysis.groups[0].records
        for one in record.rounds[-2:]
    ]
    rows = by_name(analysis)["classes"].data["classes-0-1"]
    assert [r["m"] for r in rows] == pytest.approx(
        [sum(c) / 4 for c in zip(*lists, strict=True)], rel=1e-5
    )


@pytest.mark.parametrize(("rule", "place"), [("last", -1), ("best", 1)])
def test_other_rules_read_one_round(
    runs: Any, analysed: Callable[..., Analysis], rule: str, place: int
) -> None:
    runs.add("a", 0, exact={"d": (0.2, 0.9, 0.5)}, accuracy={"rule": rule})
    analysis = analysed()
    scores = analysis.groups[0].records[0].rounds[place].scores["classifier"]
    rows = by_name(analysis)["classes"].data["classes-0-0"]
    assert [r["m"] for r in rows] == pytest.approx(scores["class_accuracy"].domains["d"], rel=1e-5)


def test_partition_has_every_client_class_and_domain(big: Analysis) -> None:
    found = by_name(big)["partition"]
    table = next(r.partition for r in big.groups[0].records if r.seed == 0)
    assert table is not None
    rows = [row for name in found.data for row in found.data[name]]
    assert sum(row["m"] for row in rows) == 8 * 500
    assert {row["k"] for row in rows} == set(range(8))
    assert all(row["m"] > 0 for row in rows)
    assert [panel.title for panel in found.panels] == table.domains


def test_diagnostics_and_losses_need_no_names(big: Analysis) -> None:
    found = by_name(big)
    assert [p.title for p in found["diagnostics"].panels] == ["prototypes.movement"]
    assert [p.title for p in found["losses"].panels] == ["loss.cross_entropy", "loss.proto"]
    assert [p.title for p in found["scores"].panels] == ["loss"]
    assert list(found["diagnostics"].legend) == ["fedproto", "fedhpro"]


def test_positive_numbers_over_decades_get_a_logarithmic_axis(big: Analysis) -> None:
    spec = json.dumps(by_name(big)["diagnostics"].panels[0].spec)
    assert '"type": "log"' in spec
    assert '"type": "log"' not in json.dumps(by_name(big)["rounds"].panels[0].spec)


def test_series_differ_by_colour_dash_and_shape(big: Analysis) -> None:
    layers = by_name(big)["rounds"].panels[0].spec["layer"]
    for channel in ("color", "strokeDash", "shape"):
        scale = next(
            layer["encoding"][channel]["scale"] for layer in layers if channel in layer["encoding"]
        )
        assert scale["domain"] == ["fedavg", "fedproto", "fpl", "fedhpro"]
        assert len(set(map(str, scale["range"]))) == 4


def test_only_what_has_no_finished_run_is_left_out_of_charts(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    runs.add("broken", 0, rounds=2, done=1)
    assert list(by_name(analysed())) == ["partition"]


def test_files_have_plain_colours_and_a_legend(big: Analysis) -> None:
    spec = paper(by_name(big)["rounds"])
    text = json.dumps({k: v for k, v in spec.items() if k != "datasets"})
    assert "var(--" not in text
    assert PAPER["s0"] in text
    assert '"values": ["fedavg", "fedproto", "fpl", "fedhpro"]' in text


def test_images_are_whole(report: Path) -> None:
    for path in (report / "figures").iterdir():
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG"), path
            assert path.stat().st_size > 10_000, path
        else:
            root = ET.fromstring(path.read_text())
            marks = root.findall(".//{http://www.w3.org/2000/svg}path")
            assert len(marks) > 10, path
            assert "var(--" not in path.read_text(), path
