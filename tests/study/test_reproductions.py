"""Reproductions: the bundled files hold what they must, and a wrong one is told where."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.plugins.discovery import discover
from fedbench.study import reproductions

NAMES = discover().names("reproduction")

TEXT = """\
reproduction: table-1
version: 1
title: "A table"
source: "a paper, table 1"
rule: {points: 2}
grid: {methods: [fedavg, fedprox], data: [digits], rounds: 3, seeds: 2}
machine: "one core"
cost:
  fedavg: {seconds: 2, examples: 100}
  fedprox: {seconds: 4, examples: 100}
cells:
  plain:
    title: "as it is"
    published: {fedavg: 0.5}
    order: [fedprox, fedavg]
  target:
    title: "to a target"
    grid: {stop_at: 0.9, rounds: 50}
    published: {fedavg: 10, fedprox: 20}
    cost: {fedavg: {seconds: 1, examples: 100}}
"""


@pytest.fixture
def read(registry, tmp_path: Path):
    """Register a reproduction with this text, and load it."""

    def read(text):
        (tmp_path / "table-1.yaml").write_text(text)

        @hookimpl
        def register_reproductions():
            return {"table-1": tmp_path / "table-1.yaml"}

        registry.add(SimpleNamespace(register_reproductions=register_reproductions), "tests")
        return reproductions.load(registry, "table-1")

    return read


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_file_says_where_its_values_are_from(name: str, registry) -> None:
    found, parts = reproductions.load(registry, name)
    assert found.name == name
    assert re.search(r"\b(19|20)\d\d\b|commit [0-9a-f]{8}", found.source)
    assert "seed" in found.source or found.from_memory or not any(p.cell.published for p in parts)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_runs_of_every_bundled_cell_can_be_planned(name: str, registry, tmp_path: Path) -> None:
    _, parts = reproductions.load(registry, name)
    for part in parts:
        jobs = reproductions.planned(
            registry, replace(part, grid=replace(part.grid, seeds=1)), tmp_path
        )
        assert [job.method for job in jobs] == part.grid.methods
        stopped = {job.config.stop_at is not None for job in jobs}
        for published in part.cell.published.values():
            assert stopped == {published > 1}, "rounds have a target, accuracies have none"


def test_a_cells_grid_is_the_files_with_its_own_keys_over_it(read) -> None:
    _, (plain, target) = read(TEXT)
    assert (plain.grid.rounds, plain.grid.stop_at) == (3, None)
    assert (target.grid.rounds, target.grid.stop_at) == (50, 0.9)
    assert target.grid.methods == ["fedavg", "fedprox"]
    assert [target.costs[m].seconds for m in target.grid.methods] == [1, 4]


def test_the_cost_counts_rounds_to_a_target_as_published(read, registry, tmp_path: Path) -> None:
    _, parts = read(TEXT)
    plain, target = (
        reproductions.estimate(part, reproductions.planned(registry, part, tmp_path))
        for part in parts
    )
    assert (plain.runs, plain.rounds, plain.expected) == (4, 12, 12)
    assert (plain.examples, plain.seconds) == (1200, 2 * 3 * (2 + 4))
    assert (target.runs, target.rounds, target.expected) == (4, 200, 2 * (10 + 20))
    assert target.seconds == 2 * (10 * 1 + 20 * 4)
    assert (plain + target).runs == 8
    assert [reproductions.estimate_whole(registry, part) for part in parts] == [plain, target]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("published: {fedavg: 0.5}", "published: {fedavh: 0.5}", r"yaml:14: .*did you mean 'fedav"),
        ("order: [fedprox, fedavg]", "order: [moon, fedavg]", r"yaml:15: .*'moon' is not a method"),
        (
            "rule: {points: 2}\n",
            "",
            r"yaml:13: cells.plain.published: .*values need a rule, such as",
        ),
        ("rule: {points: 2}", "rule: {}", r"yaml:14: cells.plain.published: .*values need a rule"),
        ("points: 2}", "points: 2, percent: 5}", r"yaml:5: rule: give either points or percent"),
        ("rule: {points: 2}", "rule: {point: 2}", r"yaml:5: .*did you mean 'points'"),
        (
            "    published: {fedavg: 10",
            "    score: std\n    published: {fedavg: 10",
            r"yaml:19: cells.target.score: rounds to a target",
        ),
        ("rounds: 50}", "round: 50}", r"yaml:18: cells.target.grid.round: .*mean 'rounds'"),
        ('title: "to a target"', 'titel: "to"', r"yaml:17: cells.target.titel: .*mean 'title'"),
        ("  fedprox: {seconds: 4, examples: 100}\n", "", r"yaml:8: cost: no cost for 'fedprox'"),
        ("{seconds: 1, examples: 100}", "{seconds: 0, examples: 9}", r"yaml:20: .*greater than 0"),
    ],
)
def test_a_wrong_file_is_told_the_line_and_what_would_be_right(read, old, new, error) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=error):
        read(TEXT.replace(old, new))


def test_a_cell_is_one_setting(read, registry, tmp_path: Path) -> None:
    several = "rounds: 3, options: {clients.validation: [0, 0.1]}}"
    _, (plain, _) = read(TEXT.replace("rounds: 3, seeds: 2}", several))
    with pytest.raises(ConfigError, match="make one cell of each setting"):
        reproductions.planned(registry, plain, tmp_path)


def test_cells_are_chosen_by_name(read) -> None:
    _, parts = read(TEXT)
    assert reproductions.chosen(parts, []) == parts
    assert reproductions.chosen(parts, ["target"]) == [parts[1]]
    with pytest.raises(ConfigError, match=r"no cell 'targe' \(did you mean 'target'"):
        reproductions.chosen(parts, ["targe"])


def test_methods_are_chosen_by_name(read) -> None:
    text = TEXT.replace("methods: [fedavg, fedprox]", "methods: [fedavg, moon, fedprox]")
    text = text.replace("cost:\n", "cost:\n  moon: {seconds: 4, examples: 100}\n", 1)
    _, parts = read(text.replace("order: [fedprox, fedavg]", "order: [moon, fedprox, fedavg]"))
    assert reproductions.with_methods(parts, []) == parts
    plain, target = reproductions.with_methods(parts, ["fedavg", "moon"])
    assert (plain.grid.methods, plain.grid.reference) == (["fedavg", "moon"], None)
    assert (plain.cell.published, plain.cell.order) == ({"fedavg": 0.5}, ("moon", "fedavg"))
    assert (target.cell.published, target.cell.order) == ({"fedavg": 10}, ())
    with pytest.raises(ConfigError, match=r"no method 'fedprx' in .* \(did you mean 'fedprox'"):
        reproductions.with_methods(parts, ["fedprx"])
    with pytest.raises(ConfigError, match=r"cell 'plain': nothing was published of moon alone"):
        reproductions.with_methods(parts, ["moon"])


def test_a_cell_without_the_chosen_methods_is_left_out(read) -> None:
    text = TEXT.replace("{fedavg: 0.5}", "{fedavg: 0.5, fedprox: 0.6}")
    text = text.replace("stop_at: 0.9,", "stop_at: 0.9, methods: [fedavg],")
    _, parts = read(text.replace("{fedavg: 10, fedprox: 20}", "{fedavg: 10}"))
    assert [part.name for part in reproductions.with_methods(parts, ["fedprox"])] == ["plain"]
    with pytest.raises(ConfigError, match="no method 'fedprox' in these cells"):
        reproductions.with_methods(parts[1:], ["fedprox"])
