"""Variants x settings in one table, against numbers worked out by hand, and as a heat map."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fedbench.report.matrix import Matrix, _heat_map, heat_maps, matrices
from fedbench.report.tables import latex, markdown
from fedbench.store.directory import RunDirectory
from fedbench.study.analysis import Analysis

FINAL = {  # variant -> accuracy of seeds 0 and 1 after the last round, in two settings
    "a": ((0.50, 0.60), (0.90, 0.90)),
    "b": ((0.70, 0.72), (0.80, 0.80)),
    "c": ((0.40, 0.40), None),
}


@pytest.fixture
def found(runs: Any, analysed: Callable[..., Analysis]) -> Analysis:
    for variant, settings in FINAL.items():
        for number, values in enumerate(settings):
            for seed, value in enumerate(values or ()):
                curve = (0.1,) * (number + 1) + (value,)
                runs.add(variant, seed, exact={"only": curve}, accuracy={"rule": "last"})
    return analysed(reference="a")


def test_the_table_has_every_variant_in_every_setting(found: Analysis) -> None:
    (matrix,) = matrices(found)
    assert matrix.columns == ("rounds=2", "rounds=3", "mean rank")
    assert {variant: [e.mean for e in row] for variant, row in matrix.rows.items()} == {
        "a": ["55.00", "90.00", "1.50"],
        "b": ["71.00", "80.00", "1.50"],
        "c": ["40.00", "-", "-"],
    }
    assert matrix.rows["a"][0].std == "7.07"
    assert {v: [e.best for e in row[:2]] for v, row in matrix.rows.items()} == {
        "a": [False, True],
        "b": [True, False],
        "c": [False, False],
    }
    assert {v: [e.second for e in row[:2]] for v, row in matrix.rows.items()} == {
        "a": [True, False],
        "b": [False, True],
        "c": [False, False],
    }
    assert matrix.values["a"] == {
        "rounds=2": pytest.approx(0.55),
        "rounds=3": pytest.approx(0.9),
    }


def test_best_is_bold_and_second_underlined(found: Analysis) -> None:
    text = markdown(found)
    assert "| b | **71.00 ± 1.41** | <u>80.00 ± 0.00</u> | **1.50** |" in text
    assert "| c | 40.00 ± 0.00 | - | - |" in text
    assert r"\underline{55.00 $\pm$ 7.07} & \textbf{90.00 $\pm$ 0.00}" in latex(found)


def test_a_heat_map_has_the_same_numbers(found: Analysis) -> None:
    (figure,) = heat_maps(found)
    (rows,) = figure.data.values()
    assert {(row["v"], row["c"]): round(row["m"], 6) for row in rows} == {
        ("a", "rounds=2"): 0.55,
        ("a", "rounds=3"): 0.9,
        ("b", "rounds=2"): 0.71,
        ("b", "rounds=3"): 0.8,
        ("c", "rounds=2"): 0.4,
    }


def test_an_extra_test_set_has_a_table_of_its_own(
    found: Analysis, runs: Any, analysed: Callable[..., Analysis]
) -> None:
    for path in runs.folder.iterdir():
        file = RunDirectory(path).result_file
        result = json.loads(file.read_text())
        if result["rounds"] == 3:
            extra = {"backdoor": 0.25 + result["seed"] / 2}
            file.write_text(json.dumps({**result, "extra": extra}))
    matrix: Matrix
    _, matrix = matrices(analysed(reference="a"))
    assert (matrix.title, matrix.columns) == ("Accuracy on backdoor", ("rounds=3",))
    assert [(v, row[0].mean, row[0].std) for v, row in matrix.rows.items()] == [
        ("a", "50.00", "35.36"),
        ("b", "50.00", "35.36"),
    ]
    assert not any(e.best or e.second for row in matrix.rows.values() for e in row)


def test_a_single_setting_has_no_such_table(runs: Any, analysed: Callable[..., Analysis]) -> None:
    runs.grid(("a", "b"), seeds=2, rounds=2)
    assert matrices(analysed()) == []
    assert heat_maps(analysed()) == []


def test_a_name_from_elsewhere_leads_nowhere() -> None:
    """The name of an extra test set is whatever a result.json says."""
    name = "../../up/clean %"
    matrix = Matrix(name, name, ("s",), {"a": ()}, {"a": {"s": 0.5}}, ("note",))
    figure = _heat_map(matrix, "percent")
    assert re.fullmatch("heat-_up_clean_-[0-9a-f]{6}", figure.name)
    data = figure.name.replace("heat", "matrix")
    assert [*figure.data] == [data]
    assert figure.panels[0].spec["data"] == {"name": data}
    other = replace(matrix, name="../../up/clean _\ud800")  # a surrogate, which JSON can have
    assert re.fullmatch("heat-_up_clean_+-[0-9a-f]{6}", _heat_map(other, "percent").name)
    assert _heat_map(other, "percent").name != figure.name
