"""Scores over clients in tables, figures and CSV, beside those over domains."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.errors import ConfigError
from fedbench.report import exports
from fedbench.report.content import table
from fedbench.report.figure import Figure
from fedbench.report.figures import figures
from fedbench.store.directory import RunDirectory
from fedbench.study.analysis import Analysis, analyse
from fedbench.study.records import read

Analysed = Callable[..., Analysis]


@pytest.fixture
def analysed(run_tiny: Any, registry: Any, tmp_path: Path) -> Analysed:
    """Run two methods under two seeds, in which clients hold out a quarter of 18 examples."""

    def made(population: str = "clients", **given: Any) -> Analysis:
        given = {"clients": {"test": 0.25}, "rounds": 3, **given}
        paths = []
        for method in ("fedavg", "fedprox"):
            for seed in (0, 1):
                paths.append(tmp_path / f"{population}-{method}-{seed}")
                accuracy = {"rule": "last", "population": population}
                run_tiny(method, paths[-1], seed=seed, accuracy=accuracy, **given)
        return analyse(registry, [read(registry, path) for path in paths])

    return made


def by_name(analysis: Analysis) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(analysis.groups[0])}


def test_a_table_over_clients_has_one_column_and_counts_seeds(analysed: Analysed) -> None:
    analysis = analysed()
    (group,) = analysis.groups
    content = table(analysis, group)
    assert content.columns == ("mean",)
    assert sum(map(int, content.rows[0].versus[-1].split("/"))) == 2  # seeds
    text = " ".join(content.notes)
    assert "wins, ties and losses count seeds" in text
    assert "seeds x domains" not in text
    assert "mean over clients" in text
    for record in group.records:
        last = record.rounds[-1].client_scores["classifier"]["accuracy"]
        assert group.cells[record.variant]["mean"].values[record.seed] == last.mean
        assert record.result is not None
        assert record.result.accuracy.plain == last.plain


def test_what_clients_hold_out_belongs_to_the_setting(
    run_tiny: Any, registry: Any, tmp_path: Path
) -> None:
    run_tiny("fedavg", tmp_path / "a", clients={"test": 0.25})
    run_tiny("fedavg", tmp_path / "b")
    analysis = analyse(registry, [read(registry, tmp_path / name) for name in "ab"])
    assert [group.variants for group in analysis.groups] == [("fedavg",), ("fedavg",)]


def test_the_figures_show_every_client_of_the_last_round(analysed: Analysed) -> None:
    analysis = analysed()
    found = by_name(analysis)
    (group,) = analysis.groups
    kept = {
        (record.variant, record.seed): record.rounds[-1].client_scores["classifier"]["accuracy"]
        for record in group.records
    }
    dots = found["client-sizes"].data["client-sizes"]
    assert len(dots) == 2 * 2 * 4
    for row in dots:
        assert row["m"] == pytest.approx(kept[row["v"], row["seed"]].clients[row["k"]], rel=1e-5)
        assert row["x"] == 18
    line = [row for row in found["clients"].data["clients"] if row["v"] == "fedavg"]
    pooled = sorted(v for s in (0, 1) for v in kept["fedavg", s].clients.values())
    assert [row["m"] for row in line] == pytest.approx(pooled, rel=1e-5)
    assert (line[0]["q"], line[-1]["q"]) == (0, 1)
    cells = found["worst-clients"].data["worst-clients"]
    assert {(row["v"], row["c"]) for row in cells} == {
        (v, c) for v in ("fedavg", "fedprox") for c in "0123"
    }
    means = {c: sum(row["m"] for row in cells if row["c"] == c) for c in "0123"}
    order = found["worst-clients"].panels[0].spec["layer"][0]["encoding"]["x"]["sort"]
    assert [means[c] for c in order] == sorted(means.values())


def test_both_populations_are_shown_whichever_is_reported(analysed: Analysed) -> None:
    over_clients = by_name(analysed())["populations"]
    assert [panel.title for panel in over_clients.panels] == [
        "test data, mean over domains",
        "test data, plain mean over clients",
        "test data, worst tenth of clients",
    ]
    over_domains = by_name(analysed("domains"))
    assert over_domains["populations"].panels[0].title == "test data, mean over clients"
    assert {"clients", "worst-clients", "client-sizes"} <= set(over_domains)


def test_without_clients_scores_there_are_no_figures_of_them(analysed: Analysed) -> None:
    found = by_name(analysed("domains", clients={}))
    assert not {"clients", "worst-clients", "client-sizes", "populations"} & set(found)


def test_the_csv_has_a_row_for_each_client_and_for_their_means(
    analysed: Analysed, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = analysed(evaluate_every=2)
    record = analysis.groups[0].records[0]

    def rows() -> list[dict[str, str]]:
        found = csv.DictReader(exports.rounds_csv(analysis).splitlines())
        chosen = {"variant": record.variant, "seed": str(record.seed), "metric": "accuracy"}
        return [row for row in found if row["client"] and chosen.items() <= row.items()]

    assert {row["round"] for row in rows()} == {"2", "3"}
    last = record.rounds[-1].client_scores["classifier"]["accuracy"]
    values = {row["client"]: float(row["value"]) for row in rows() if row["round"] == "3"}
    assert values == {
        **{str(client): value for client, value in last.clients.items()},
        "mean": last.mean,
        "plain_mean": last.plain,
        "std": last.std,
        "worst_tenth": last.worst_tenth,
    }
    monkeypatch.setattr(exports, "MANY_VALUES", 10)
    assert {row["round"] for row in rows() if row["client"].isdigit()} == {"3"}
    assert "of classes and clients for the rounds that the" in exports.left_out(analysis)


def test_rounds_that_are_not_scored_are_read_and_others_must_agree(
    run_tiny: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    run_tiny("fedavg", path, clients={"test": 0.25}, evaluate_every=2, rounds=4)
    rounds, result = RunDirectory.open(path).read_progress()
    assert [bool(one.scores) for one in rounds] == [False, True, False, True]
    assert result is not None
    lines = (path / "rounds.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    del last["client_scores"]["classifier"]["accuracy"]["clients"]["3"]
    (path / "rounds.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    with pytest.raises(ConfigError, match=r"rounds\.jsonl:4: damaged: it has other scores than"):
        RunDirectory.open(path).read_progress()


def test_a_note_says_whose_models_were_scored(run_tiny: Any, registry: Any, tmp_path: Path) -> None:
    for method in ("fedavg", "fedproto-aaai"):
        accuracy = {"population": "clients"}
        run_tiny(method, tmp_path / method, accuracy=accuracy, clients={"test": 0.25})
    paths = [tmp_path / "fedavg", tmp_path / "fedproto-aaai"]
    analysis = analyse(registry, [read(registry, path) for path in paths])
    notes = table(analysis, analysis.groups[0]).notes
    assert (
        "scored are the clients' own models of fedproto-aaai, the global model of fedavg" in notes
    )
