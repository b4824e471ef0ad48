"""Final accuracies in every setting: from lines that are made up, and as the page has them."""

from __future__ import annotations

from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "results"

LINES = """setting,variant,seed,status,accuracy
a,mine,0,finished,0.04
a,mine,1,finished,0.06
a,bad,0,failed,
a,base,0,finished,0.02
a,base,1,finished,0.02
"""


def test_means_differences_and_what_failed(by_setting, tmp_path, capsys):
    (tmp_path / "runs.csv").write_text(LINES)
    by_setting.main([str(tmp_path / "runs.csv"), "--reference", "base"])
    base, mine, bad = capsys.readouterr().out.splitlines()[2:]
    assert base == "| `base` | 2.00 ± 0.00 |  |"
    at_end = "+3.00 (-9.71 to +15.71)"  # 2 and 4: t(1) = 12.706, standard error 1
    assert mine == f"| `mine` | 5.00 ± 1.41 | {at_end} |"
    assert bad == "| `bad` | failed |  |"


def test_a_reference_that_is_no_variant_is_refused(by_setting, tmp_path, capsys):
    (tmp_path / "runs.csv").write_text(LINES)
    with pytest.raises(SystemExit):
        by_setting.main([str(tmp_path / "runs.csv"), "--reference", "bass"])
    assert "no variant 'bass' (did you mean 'base'?)" in capsys.readouterr().err


ELSEWHERE = ("fedhpro-elsewhere.csv", "fedhpro")
STEP = ("fedhpro-recalibration-step.csv", "fedhpro:-recalibration")
DISTANCE = ("fedhpro-distance.csv", "fedhpro")
TUNED = ("tuned-fashion.csv", "fedavg")
TUNED_DIGITS = ("tuned-digits.csv", "fedavg:sgd.lr=0.01994")
SIZE = ("fedhpro-size.csv", "fedhpro")
UNSEEN = ("fedhpro-leave-out.csv", "fedhpro")
MATCHING = ("fedhpro-matching.csv", "fedhpro:hyper_prototypes.steps=0")


KEPT = [ELSEWHERE, STEP, DISTANCE, TUNED, TUNED_DIGITS, SIZE, UNSEEN, MATCHING]


@pytest.mark.parametrize(("file", "reference"), KEPT)
def test_the_page_has_the_numbers_of_the_kept_runs(by_setting, file, reference):
    finals = by_setting.read(RESULTS / file)
    lines = (RESULTS / "fedhpro-study.md").read_text().splitlines()
    rows = [f"|{'|'.join(cell.strip() for cell in line.split('|'))}|" for line in lines]
    for variant in next(iter(finals.values())):
        cells = by_setting.line(finals, variant, reference)
        assert any(f"|{'|'.join(cells)}|" in row for row in rows), variant


def test_the_page_has_the_runs_of_fedhpro_with_another_rate(by_setting):
    (tuned,) = by_setting.read(RESULTS / "tuned-digits.csv").values()
    (again,) = by_setting.read(RESULTS / "tuned-digits-rate.csv").values()
    fresh = {seed: value for seed, value in again["fedhpro:sgd.lr=0.02"].items() if seed}
    text = (RESULTS / "fedhpro-study.md").read_text()
    assert f"it has {by_setting.mean(list(fresh.values()))}" in text
    for variant in tuned:
        if variant.startswith(("fedproto:", "fpl:")):
            difference = str(by_setting.paired(fresh, tuned[variant])).replace(" (", ", ")
            assert f"({difference}" in text
    difference, interval = str(by_setting.paired(fresh, tuned[TUNED_DIGITS[1]])).split(" ", 1)
    assert f"{difference.removeprefix('+')} above\n  FedAvg {interval}" in text
