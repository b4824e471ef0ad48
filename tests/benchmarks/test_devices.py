"""The benchmark of many registered clients measures both contestants and writes its section."""

from __future__ import annotations

import json

import pytest


@pytest.mark.long
def test_both_are_measured_and_shown(load, tmp_path):
    file = tmp_path / "devices.json"
    words = ["--clients", "20", "--cohort", "4", "--rounds", "8", "--json", str(file)]
    assert load("devices").main(words) == 0
    result = json.loads(file.read_text())
    (turn,) = result["turns"]
    assert turn["ratio"] == turn["fedbench"]["total"] / turn["plain"]["total"] > 0
    text = load("page").devices(result)
    assert "20 registered clients, 4 per round, 8 rounds" in text
    assert f"take {turn['ratio']:.2f} of the plain loop's time" in text


def test_memory_is_the_highest_in_a_quarter_of_the_rounds(load):
    found = load("measure").Measured(
        rounds=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        pss=[(0.5, 90), (1.5, 10), (1.9, 12), (4.5, 50), (6.5, 20), (7.9, 15), (9.0, 99)],
    )
    assert load("devices").memory_at(found, 8 * 0.25) == 12
    assert load("devices").memory_at(found, 8) == 20
    assert load("devices").memory_at(found, 4) is None
