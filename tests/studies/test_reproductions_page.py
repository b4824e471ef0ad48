"""The page of the reproductions has the numbers of the kept verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "results"
KEPT = sorted(RESULTS.glob("reproductions-*.json"))


def number(value: float, measured: str, seeds: int) -> str:
    if measured == "accuracy":
        return f"{100 * value:.2f}"
    return f"{value:.0f}" if seeds == 1 else f"{value:.1f}"


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_the_page_has_the_numbers_of_the_kept_verdicts(file):
    lines = (RESULTS / "reproductions.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")]
    assert f"({file.name})" in "\n".join(lines)
    values: list[tuple[str, dict[str, Any]]] = [
        (cell["measured"], value)
        for cell in json.loads(file.read_text())["cells"].values()
        for value in cell["values"]
    ]
    for measured, value in values:
        if seeds := len(value["seeds"]):
            shown = [number(value["mean"], measured, seeds)]
            if None not in value["interval"]:
                shown.append(" to ".join(number(n, measured, seeds) for n in value["interval"]))
            assert any({*shown} <= {*row} for row in rows), (value["method"], shown)
