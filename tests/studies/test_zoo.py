"""The table of many methods: its lines from runs that are made up, its numbers from real ones."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import fedbench
from fedbench.study.tuning_plan import plan, wanted

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture
def made(zoo):
    def make(method, seed, accuracy, clients, reached=True, status="finished"):
        return zoo.Row(
            method=method,
            data="digits",
            seed=seed,
            status=status,
            rounds=10,
            model="personal" if method == "own" else "global",
            accuracy=accuracy,
            worst=accuracy,
            clients=clients,
            worst_tenth=clients,
            reached=reached,
            rounds_to_target=4 + seed,
            bytes_to_target=4e6,
            seconds_to_target=8.0,
            bytes_per_round=1e6,
            seconds=20.0,
            client_state=2_000 if status == "finished" else None,
            server_state=0 if status == "finished" else None,
        )

    return make


def cells(table):
    """Return the cells of a Markdown table's lines of methods."""
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_methods_are_ordered_by_accuracy_and_ranked_seed_by_seed(zoo, made):
    rows = [made("own", s, 0.1, 0.9 + s / 100) for s in (0, 1)]
    rows += [made("good", s, 0.8 + s / 100, 0.7, reached=s == 0) for s in (0, 1)]
    accuracies, costs = zoo.tables(rows)
    good, own = cells(accuracies)
    assert good == ["`good`", "global", "80.50 ± 0.71", "1.0", "70.00 ± 0.00", "2.0"]
    assert own == ["`own`", "own", "10.00 ± 0.00", "2.0", "90.50 ± 0.71", "1.0"]
    good, own = cells(costs)
    assert good == ["`good`", "1 of 2", "> 4.5", "> 4.00 MB", "2.00", "2.00 kB", "0 B"]
    assert own[:3] == ["`own`", "2 of 2", "4.5"]


def test_a_method_that_failed_has_a_line_without_rank_or_cost(zoo, made):
    rows = [made("good", 0, 0.8, 0.7), made("bad", 0, None, None, False, "failed")]
    accuracies, costs = zoo.tables(rows)
    assert cells(accuracies)[1] == ["`bad`", "failed", "", "", "", ""]
    assert [line[0] for line in cells(costs)] == ["`good`"]


def test_differences_are_paired_and_bold_if_significant_after_correction(zoo, made):
    base = [0.80, 0.82, 0.84, 0.83, 0.81]
    rows = [made("fedavg", s, base[s], 0.7) for s in range(5)]
    rows += [made("good", s, base[s] + 0.05 + s / 1000, 0.7) for s in range(5)]
    rows += [made("noisy", s, base[s] + (s - 1) / 100, 0.7) for s in range(5)]
    rows += [made("twice", s, base[s] - 0.1 - s / 100, 0.7) for s in range(2)]
    found = {line[0]: line[4] for line in cells(zoo.tables(rows)[0])}
    assert found == {
        "`fedavg`": "",
        "`good`": "**+5.20 (+5.00 to +5.40)**",
        "`noisy`": "+1.00 (-0.96 to +2.96)",
        "`twice`": "-10.50 (-16.85 to -4.15)",
    }


def test_the_ranks_are_drawn(zoo, made):
    rows = [made(m, s, 0.1 * k + s / 10, 0.7) for k, m in enumerate("abc") for s in range(6)]
    assert zoo.diagram(rows).startswith(b"\x89PNG")


@pytest.mark.long
def test_rows_and_state_of_real_runs(zoo, tmp_path, capsys):
    out = tmp_path / "digits"
    sets = {"clients.test": 0.2, "clients.validation": 0.2}
    sets |= {"model.width": 1, "model.feature_size": 8}
    fedbench.compare(
        ["scaffold", "fedavg"], data="digits", seeds=1, rounds=2, set=sets, out=out, quiet=True
    )
    zoo.main([str(out), "--out", str(tmp_path / "zoo.csv")])
    with (tmp_path / "zoo.csv").open() as file:
        found = {row["method"]: row for row in csv.DictReader(file)}
    assert int(found["fedavg"]["client_state"]) == int(found["fedavg"]["server_state"]) == 0
    sent = float(found["fedavg"]["bytes_per_round"]) / 16  # 8 clients, two directions
    assert int(found["scaffold"]["client_state"]) == pytest.approx(sent, rel=0.01)
    assert int(found["scaffold"]["server_state"]) == pytest.approx(sent, rel=0.01)
    assert 0 < float(found["scaffold"]["clients"]) <= 1
    assert float(found["fedavg"]["accuracy"]) == accuracy_on_test_data(out / "runs", "fedavg")
    assert "| `scaffold` |" in capsys.readouterr().out


def accuracy_on_test_data(runs, method):
    """Return the accuracy on test data of a method's run, whatever else was scored in it."""
    (place,) = runs.glob(f"digits-{method}-*")
    result = json.loads((place / "result.json").read_text())["accuracy"]
    assert result["split"] == "test"
    return result["mean"]


METHODS = ["fedavg", "fedprox"]


def test_earlier_lines_of_other_methods_and_settings_are_kept(zoo, made, tmp_path, monkeypatch):
    elsewhere = replace(made("good", 0, 0.8, 0.7), data="elsewhere")
    zoo.write([made("good", 0, 0.8, 0.7), elsewhere], tmp_path / "zoo.csv")
    group = SimpleNamespace(label="digits", variants=(), records=())
    analysis = SimpleNamespace(groups=[group])
    found = SimpleNamespace(analysis=analysis, registry=None)
    monkeypatch.setattr(zoo.fedbench, "load_comparison", lambda *_, **__: found)
    words = ["runs", "--earlier", str(tmp_path / "zoo.csv"), "--out", str(tmp_path / "more.csv")]
    zoo.main(words)
    assert zoo.read(tmp_path / "more.csv") == [made("good", 0, 0.8, 0.7), elsewhere]


@pytest.mark.long
def test_seeds_of_an_earlier_file_are_added(zoo, tmp_path, monkeypatch):
    sets = {"clients.test": 0.2, "model.width": 1, "model.feature_size": 8}
    files = []
    for seed in (1, 0):
        out = tmp_path / f"seed-{seed}"
        fedbench.compare(
            METHODS, data="digits", seeds=[seed], rounds=1, set=sets, out=out, quiet=True
        )
        files += [tmp_path / f"{seed}.csv"]
        more = ["--earlier", str(files[0])] if len(files) > 1 else []
        zoo.main([str(out), "--target", "0.01", *more, "--out", str(files[-1])])
        monkeypatch.setattr(zoo, "state", None)  # known from the first file
    first, both = map(zoo.read, files)
    assert [(r.method, r.seed) for r in both] == [(m, n) for m in METHODS for n in (0, 1)]
    assert [r for r in both if r.seed == 1] == first
    assert all(r.client_state == 0 and r.reached for r in both)


@pytest.mark.parametrize("name", ["zoo-digits", "zoo-fashion"])
def test_the_grids_have_every_bundled_method(installed, name):
    found = [e for e in installed.all("recipe") if e.package == "fedbench-toolkit"]
    grid = yaml.safe_load((RESULTS / f"{name}.yaml").read_text())
    assert sorted(grid["methods"]) == sorted(entry.name for entry in found)


@pytest.mark.long
def test_the_searches_have_the_methods_of_the_grid_that_share_its_setting(installed, zoo):
    grid = yaml.safe_load((RESULTS / "zoo-fashion.yaml").read_text())
    names = ("zoo-fashion-tuned", "zoo-fashion-own")
    one, own = (yaml.safe_load((RESULTS / f"{name}.yaml").read_text()) for name in names)
    models = {row.method: row.model for row in zoo.read(RESULTS / "zoo-fashion.csv")}
    assert {*own["methods"]} - {"pfedme"} == {"fedavg"} | {  # all runs of pfedme diverged
        name for name, model in models.items() if model == "personal"
    }
    assert {*one["methods"]} & {*own["methods"]} == {"fedavg"}
    both = {*one["methods"], *own["methods"]}
    assert set(grid["methods"]) - both == {"fedasync", "fedbuff", "fedbn"}
    assert one["set"] == grid["set"]
    assert own["set"] == [*grid["set"], "accuracy.population=clients"]
    for search in (one, own):
        planned = plan(installed, wanted(search))  # raises for methods that differ in their setting
        assert all(planned.spaces.values())


def kept(zoo, name):
    """Return both tables of each setting of a CSV file of the docs."""
    rows = zoo.read(RESULTS / name)
    settings = dict.fromkeys(row.data for row in rows)
    return [zoo.tables([row for row in rows if row.data == data]) for data in settings]


def test_the_page_has_the_tables_of_the_kept_runs(zoo):
    page = (RESULTS / "zoo.md").read_text()
    for name in ("zoo-fashion.csv", "zoo-digits.csv"):
        settings = kept(zoo, name)
        assert len(settings) == 2
        assert all(table in page for tables in settings for table in tables)
    ((accuracies, _),) = kept(zoo, "zoo-diverged.csv")
    assert accuracies in page


def test_the_readme_has_the_head_of_the_table(zoo):
    accuracies, costs = map(cells, kept(zoo, "zoo-fashion.csv")[0])
    spent = {line[0]: line for line in costs}
    above = accuracies[: [line[0] for line in accuracies].index("`fedavg`") + 1]
    lines = [[m[0], m[2], m[5], spent[m[0]][2], spent[m[0]][5], spent[m[0]][6]] for m in above]
    assert (
        "\n".join(f"| {' | '.join(line)} |" for line in lines) in (ROOT / "README.md").read_text()
    )
