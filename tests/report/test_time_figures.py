"""Virtual time in tables and figures: each number against the rounds it comes from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from fedbench.report.content import unpaired_seeds
from fedbench.report.curve_tables import curve_tables
from fedbench.report.figures import figures
from fedbench.study.analysis import Analysis, analyse
from fedbench.study.curves import VIRTUAL
from fedbench.study.records import read


@pytest.fixture
def analysed(run_tiny: Any, registry: Any, tmp_path: Path) -> Analysis:
    """Run a synchronous and a buffered method under two seeds and one clock."""
    clock = {"lognormal": {"sigma": 1.0}, "domains": {"clients_per_domain": 3}}
    paths = []
    for method in ("fedavg", "fedbuff"):
        for seed in (0, 1):
            paths.append(tmp_path / f"{method}-{seed}")
            run_tiny(method, paths[-1], seed=seed, rounds=4, extra=clock)
    return analyse(registry, [read(registry, path) for path in paths])


def test_every_number_of_virtual_time_is_shown(analysed: Analysis) -> None:
    (group,) = analysed.groups  # the clock belongs to the setting
    found = {figure.name: figure for figure in figures(group)}
    runs = {(run.variant, run.seed): run for run in group.records}

    for row in found["virtual-time"].data["curves-0"]:
        times = [runs[row["v"], seed].rounds[row["r"] - 1].time for seed in (0, 1)]
        assert row["t"] == pytest.approx(fmean(times), rel=1e-5)

    for place, variant in enumerate(("fedavg", "fedbuff")):
        turns = [t for one in runs[variant, 0].rounds for t in one.turns]
        bars = found["turns"].data[f"turns-{place}"]
        assert [(bar["k"], bar["o"]) for bar in bars] == [(t.client, t.outcome) for t in turns]
        assert [bar["x2"] for bar in bars] == pytest.approx([t.end for t in turns], rel=1e-5)

    late = Counter(
        one.round - turn.round
        for seed in (0, 1)
        for one in runs["fedbuff", seed].rounds
        for turn in one.turns
    )
    bars = [row for row in found["staleness"].data["staleness"] if row["v"] == "fedbuff"]
    assert {row["x"]: row["n"] for row in bars} == late
    assert sum(row["m"] for row in bars) == pytest.approx(1, abs=1e-4)

    tables = {table.name: table for table in curve_tables(group)}
    sync, buffered = tables["virtual-time"].rows
    used = sum(late.values())
    mean_late = sum(rounds * count for rounds, count in late.items()) / used
    assert (sync[0], sync[2:5]) == ("fedavg", ("24", "0", "0.00"))
    assert buffered[2:5] == (f"{used / 2:g}", "0", f"{mean_late:.2f}")
    assert tables["target"].head[-1] == "virtual time"

    assert unpaired_seeds(group) == []


def test_the_time_to_a_target_is_that_of_the_round_that_reaches_it(analysed: Analysis) -> None:
    (group,) = analysed.groups
    reaching = group.curves.reaching
    assert reaching is not None
    for run in group.records:
        rounds = reaching.amounts[run.variant]["rounds"][run.seed]
        seconds = reaching.amounts[run.variant][VIRTUAL][run.seed]
        assert seconds.value == run.rounds[int(rounds.value) - 1].time
        assert seconds.exact == rounds.exact


def test_runs_without_a_clock_have_none_of_it(run_tiny: Any, registry: Any, tmp_path: Path) -> None:
    run_tiny("fedavg", tmp_path / "a")
    (group,) = analyse(registry, [read(registry, tmp_path / "a")]).groups
    assert not {"virtual-time", "turns", "staleness"} & {one.name for one in figures(group)}
    assert "virtual-time" not in {table.name for table in curve_tables(group)}
