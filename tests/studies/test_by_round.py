"""Accuracy around rounds of the same runs: from curves that are made up, and as the page has it."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import fedbench

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_means_of_five_rounds_and_their_paired_differences(by_round):
    ours = {seed: {n: (n + seed) / 100 for n in range(1, 11)} for seed in (0, 2)}
    base = {seed: dict.fromkeys(range(1, 11), 0.01) for seed in (0, 2)}
    first, last = by_round.table({"mine": ours, "base": base}, "base", [5, 10]).splitlines()[2:]
    assert first == "| `base` | 1.00 ± 0.00 | 1.00 ± 0.00 |  |  |"
    at_5 = "+3.00 (-9.71 to +15.71)"  # 2 and 4: t(1) = 12.706, standard error 1
    assert last == (f"| `mine` | 4.00 ± 1.41 | 9.00 ± 1.41 | {at_5} | +8.00 (-4.71 to +20.71) |")


def test_a_difference_without_a_spread_has_no_interval(by_round):
    ours = {seed: dict.fromkeys(range(1, 6), 0.02) for seed in (0, 1)}
    base = {seed: dict.fromkeys(range(1, 6), 0.01) for seed in (0, 1)}
    assert by_round.line({"mine": ours, "base": base}, "mine", "base", [5])[-1] == "+1.00"


def test_earlier_curves_get_more_seeds_and_variants_and_lose_to_repeated_ones(by_round, tmp_path):
    by_round.write({"one": {2: {1: 0.5}, 3: {1: 0.25}}, "gone": {0: {1: 0.75}}}, tmp_path / "csv")
    earlier = by_round.read_file(tmp_path / "csv")
    assert earlier == {"one": {2: {1: 0.5}, 3: {1: 0.25}}, "gone": {0: {1: 0.75}}}
    both = by_round.joined(earlier, {"new": {1: {1: 0.125}}, "one": {2: {1: 1.0}, 0: {1: 0.0}}})
    assert list(both) == ["one", "gone", "new"]
    assert list(both["one"]) == [0, 2, 3]
    assert both["one"] == {0: {1: 0.0}, 2: {1: 1.0}, 3: {1: 0.25}}


PARTS = ("fedhpro-parts.csv", "fedhpro", [10, 20, 50])
FAULT = ("fedhpro-fault.csv", "fedavg", [10, 20, 30])
RECALIBRATION = ("fedhpro-recalibration.csv", "fedhpro", [10, 20, 30])


@pytest.mark.parametrize(("file", "reference", "rounds"), [PARTS, FAULT, RECALIBRATION])
def test_the_page_has_the_numbers_of_the_kept_curves(by_round, file, reference, rounds):
    curves = by_round.read_file(RESULTS / file)
    assert curves
    page = (RESULTS / "fedhpro-study.md").read_text()
    for variant in curves:
        cells = by_round.line(curves, variant, reference, rounds)
        assert f" | {' | '.join(cells)} |" in page


@pytest.mark.long
def test_curves_of_real_runs(by_round, tmp_path, capsys):
    sets = {"model.width": 1, "model.feature_size": 8, "domains.examples": 12}
    out = tmp_path / "digits"
    fedbench.compare(
        ["fedavg", "fedhpro"], data="digits", seeds=2, rounds=5, set=sets, out=out, quiet=True
    )
    by_round.main([str(out), "--rounds", "5", "--out", str(tmp_path / "curves.csv")])
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 1 + 2 * 2 * 5
    runs = fedbench.load_comparison(out).analysis.groups[0].records
    scores = [100 * r.result.accuracy.mean for r in runs if r.variant == "fedavg"]  # of five rounds
    assert f"| `fedavg` | {statistics.mean(scores):.2f} ± " in capsys.readouterr().out

    by_round.write({"old": {0: dict.fromkeys(range(1, 6), 0.5)}}, tmp_path / "curves.csv")
    word = ["--earlier", str(tmp_path / "curves.csv"), "--out", str(tmp_path / "curves.csv")]
    by_round.main([str(out), "--rounds", "5", *word])
    assert "| `old` | 50.00 | " in capsys.readouterr().out
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 1 + 5 + 2 * 2 * 5
