"""Diagnostics of anchors at the end of runs: made up, of real runs, and as the page has them."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedbench

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_means_over_the_seeds_in_the_last_measured_round(diagnosed, tmp_path):
    mine = {5: {0: 0.125, 1: 0.5}, 10: {0: 0.25, 1: 0.5}}
    made_up = {"drift": {"mine": mine}, "cka": {"mine": {5: {0: 1.0}}, "base": {5: {0: 0.75}}}}
    diagnosed.write(made_up, tmp_path / "csv")
    assert diagnosed.read_file(tmp_path / "csv") == made_up
    base, ours = sorted(diagnosed.table(made_up, ["cka", "drift"]).splitlines()[2:])
    assert base == "| `base` | 0.750 |  |"
    assert ours == "| `mine` | 1.000 | 0.375 |"


def shown(values: list[float | None]) -> str:
    return "|".join("" if value is None else f"{value:.2f}" for value in values)


@pytest.fixture(scope="module")
def page() -> str:
    """The page's lines without the spaces around a table's cells."""
    lines = (RESULTS / "fedhpro-study.md").read_text().splitlines()
    return "\n".join("|".join(map(str.strip, line.split("|"))) for line in lines)


def test_the_page_has_the_kept_diagnostics_of_anchors(diagnosed, by_setting, page):
    kept = diagnosed.read_file(RESULTS / "fedhpro-diagnostics.csv")
    (finals,) = by_setting.read(RESULTS / "fedhpro-anchors.csv").values()
    assert {*finals} == {*kept["cka"]}
    for variant, seeds in finals.items():
        names = ("consistency", "separation.mean_cosine", "gradient_agreement")
        numbers = shown([diagnosed.at_end(kept, name, variant) for name in names])
        assert f"|{by_setting.mean(list(seeds.values()))}|{numbers}|" in page, variant


@pytest.mark.parametrize("name", ["fedhpro-matching", "fedhpro-matching-digits"])
def test_the_page_has_the_kept_diagnostics_of_the_matching(diagnosed, by_setting, page, name):
    kept = diagnosed.read_file(RESULTS / f"{name}-diagnostics.csv")
    finals = by_setting.read(RESULTS / f"{name}.csv")
    (variants,) = finals.values()
    assert {*variants} == {*kept["drift"]}
    for variant in variants:
        accuracy = by_setting.line(finals, variant, "fedhpro:hyper_prototypes.steps=0")
        moved = diagnosed.at_end(kept, "drift", variant)
        names = ("consistency", "separation.max_cosine", "gradient_agreement")
        numbers = shown([diagnosed.at_end(kept, name, variant) for name in names])
        assert f"|{'|'.join(accuracy)}|{100 * moved:.1f} %|{numbers}|" in page, variant


@pytest.mark.long
def test_diagnostics_of_real_runs(diagnosed, tmp_path, capsys):
    sets = {"model.width": 1, "model.feature_size": 8, "domains.examples": 12}
    methods = ["fedavg:+anchor_diagnostics", "fedhpro:+anchor_diagnostics"]
    out, file = tmp_path / "digits", tmp_path / "csv"
    fedbench.compare(methods, data="digits", seeds=2, rounds=2, set=sets, out=out, quiet=True)
    diagnosed.main([str(out), "--metrics", "cka", "consistency", "--out", str(file)])
    fedavg, fedhpro = sorted(capsys.readouterr().out.splitlines()[2:])
    assert fedavg.startswith("| `fedavg")
    assert fedavg.endswith(" |  |")  # it has no anchors
    runs = fedbench.load_comparison(out).analysis.groups[0].records
    last = [r.rounds[-1].metrics for r in runs if r.variant.startswith("fedhpro")]
    assert len(last) == 2
    names = ("cka", "consistency")
    means = [sum(m[f"anchor_diagnostics.{name}"] for m in last) / 2 for name in names]
    assert fedhpro.endswith(f"` | {means[0]:.3f} | {means[1]:.3f} |")

    with pytest.raises(SystemExit):
        diagnosed.main([str(out), "--metrics", "ska", "--out", str(file)])
    assert "no metric 'ska' (did you mean 'cka'?)" in capsys.readouterr().err
