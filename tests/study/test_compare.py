"""A comparison plans paired runs, reuses what is done, and never drops what failed."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fedbench import ConfigError
from fedbench.config import cards
from fedbench.plugins.registry import Registry
from fedbench.store.directory import find
from fedbench.study import records
from fedbench.study.analysis import MEAN, analyse
from fedbench.study.execute import Progress, execute
from fedbench.study.grid import (
    Grid,
    Job,
    collect,
    labels,
    make_grid,
    plan,
    run_path,
)

SMALL = ["domains.examples=12", "domains.clients_per_domain=1", "sgd.epochs=1", "model.width=2"]


def grid(methods: list[str], **more: Any) -> Grid:
    return Grid(methods=methods, **{"set": SMALL, "rounds": 2, "seeds": 1, **more})


def test_the_plan_is_the_product_seed_by_seed(registry: Registry, tmp_path: Path) -> None:
    jobs = plan(registry, grid(["fedavg", "fedhpro"], seeds=[3, 5]), tmp_path)
    assert [(j.method, j.config.seed) for j in jobs] == [
        ("fedavg", 3),
        ("fedhpro", 3),
        ("fedavg", 5),
        ("fedhpro", 5),
    ]
    assert len({j.path for j in jobs}) == 4


def test_options_and_partitions_multiply_the_plan(registry: Registry, tmp_path: Path) -> None:
    wanted = grid(
        ["fedavg"],
        options={"sgd.lr": [0.1, 0.01]},
        partitions=[
            {"domains": {"clients_per_domain": 1, "examples": 10}},
            {"domains": {"clients_per_domain": 2, "examples": 10}},
        ],
    )
    jobs = plan(registry, wanted, tmp_path)
    assert len(jobs) == 4
    found = {
        (j.config.plugins["sgd"]["lr"], j.config.plugins["domains"]["clients_per_domain"])
        for j in jobs
    }
    assert found == {(0.1, 1), (0.1, 2), (0.01, 1), (0.01, 2)}


def test_the_same_config_under_two_names_runs_once(registry: Registry, tmp_path: Path) -> None:
    jobs = plan(registry, grid(["fedhpro", "fedhpro:hpcl.temperature=0.05"]), tmp_path)
    assert len(jobs) == 1
    names = labels(registry, jobs)
    assert names["fedhpro:hpcl.temperature=0.05"] == names["fedhpro"]


def test_of_a_methods_variants_the_one_with_the_fewest_changes_has_its_name(
    registry: Registry, tmp_path: Path
) -> None:
    options = {"hpcl.temperature": [0.1, 0.05], "hyper_prototypes.per_class": [1, 5]}
    jobs = plan(registry, grid(["fedhpro", "fedhpro:-hpal"], set=[], options=options), tmp_path)
    assert len(jobs) == 8
    assert labels(registry, jobs) == {"fedhpro": "fedhpro", "fedhpro:-hpal": "fedhpro:-hpal"}
    tried = {"failures": [{"policy": "skip"}, {"policy": "fail"}]}  # with colons in the values
    jobs = plan(registry, grid(["fedavg"], set=[], options=tried), tmp_path)
    assert labels(registry, jobs) == {"fedavg": "fedavg"}
    options["hpcl.temperature"] = [0.1, 0.2]  # all change it: the first
    jobs = plan(registry, grid(["fedhpro"], set=[], options=options), tmp_path)
    assert labels(registry, jobs)["fedhpro"] == "fedhpro:hpcl.temperature=0.1"


def test_within_a_seed_variants_differ_in_nothing_but_the_method(
    registry: Registry, tmp_path: Path
) -> None:
    one, two = plan(registry, grid(["fedavg", "fedhpro:-hpal"]), tmp_path)
    assert records.setting_of(registry, one.config) == records.setting_of(registry, two.config)
    assert one.config.seed == two.config.seed
    shared = {k: v for k, v in one.config.plugins.items() if k in two.config.plugins}
    assert all(two.config.plugins[name] == given for name, given in shared.items())


def test_a_method_may_wrap_the_partition_and_the_selection_of_its_setting(
    registry: Registry, tmp_path: Path
) -> None:
    partitions = [{"dirichlet": {"clients": 2, "alpha": 1.0}}]
    methods = ["fedavg", "centralised", "afl"]
    jobs = plan(registry, grid(methods, partitions=partitions), tmp_path)
    one, *others = (records.setting_of(registry, job.config) for job in jobs)
    assert others == [one, one]
    assert [("centralised" in job.config.plugins) for job in jobs] == [False, True, False]
    assert all("dirichlet" in job.config.plugins for job in jobs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [fedavg]\nsedes: 3\n", r"grid.yaml:2: sedes: .*did you mean 'seeds'"),
        ("methods: []\n", r"grid.yaml:1: methods: "),
        ("methods: [fedavg]\nseeds: 0\n", r"grid.yaml"),
        ("methods: [fedavg]\nreference: fedhpro\n", "not among the methods"),
        ("methods: [fedavg]\ntest: anova\n", r"grid.yaml:2: test: "),
    ],
)
def test_a_grid_file_is_checked(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        make_grid(file, {}, "test")


def test_flags_win_over_the_grid_file(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("methods: [fedavg]\nseeds: 5\n")
    assert make_grid(file, {"seeds": 2}, "test").seeds == 2


@pytest.fixture(scope="module")
def done(installed: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Job]]:
    """Two methods on two seeds, really run in processes of their own."""
    folder = tmp_path_factory.mktemp("comparison")
    jobs = plan(installed, grid(["fedavg", "fedhpro"], seeds=2), folder)
    seen: list[tuple[int, int]] = []
    final = execute(jobs, workers=2, show=lambda p: seen.append((p.done, p.total)))
    assert (final.done, final.failed, final.reused) == (4, 0, 0)
    assert seen[-1] == (4, 4)
    return folder, jobs


def test_finished_runs_are_reused_and_only_new_ones_run(
    done: tuple[Path, list[Job]], installed: Registry
) -> None:
    folder, jobs = done
    before = {j.path: (j.path / "result.json").stat().st_mtime_ns for j in jobs}
    more = plan(installed, grid(["fedavg", "fedhpro"], seeds=3), folder)
    final = execute(more, workers=2)
    assert (final.done, final.reused) == (6, 4)
    assert before == {j.path: (j.path / "result.json").stat().st_mtime_ns for j in jobs}
    assert all((j.path / "result.json").is_file() for j in more)
    leftovers = [p.name for p in (folder / "runs").iterdir() if p.suffix in (".yaml", ".log")]
    assert leftovers == []


def test_paired_runs_share_the_partition(done: tuple[Path, list[Job]]) -> None:
    tables = {j.method: json.loads((j.path / "partition.json").read_text()) for j in done[1][:2]}
    assert tables["fedavg"] == tables["fedhpro"]


def test_the_analysis_takes_differences_seed_by_seed(
    done: tuple[Path, list[Job]], installed: Registry
) -> None:
    found = collect(installed, done[1])
    analysis = analyse(installed, found)
    assert analysis.reference == "fedhpro"
    (group,) = analysis.groups
    assert group.variants == ("fedavg", "fedhpro")
    assert group.columns == (MEAN, "mnist", "optdigits", "mnistm", "syn")
    values = {
        (r.config.method, r.seed): r.result.accuracy.mean for r in found if r.result is not None
    }
    cell = group.cells["fedavg"][MEAN]
    assert cell.paired is not None
    expected = [values["fedavg", s] - values["fedhpro", s] for s in (0, 1)]
    assert cell.paired.difference == pytest.approx(sum(expected) / 2)
    assert cell.paired.p is None, "two seeds are too few for a p-value"
    assert cell.paired.note
    assert sum(group.wins["fedavg"]) == 8
    assert group.rule == "mean of the last 2 rounds"


def test_a_shared_change_is_not_part_of_the_names(
    done: tuple[Path, list[Job]], installed: Registry
) -> None:
    long = labels(installed, done[1])
    assert long["fedhpro"].startswith("fedhpro:sgd.epochs=1")
    assert list(records.without_shared(long.values()).values()) == ["fedavg", "fedhpro"]


def test_names_of_one_variant_stay_whole() -> None:
    assert records.without_shared(["fedhpro:-hpal"]) == {"fedhpro:-hpal": "fedhpro:-hpal"}
    both = records.without_shared(["a:-x:k=1", "a:k=1"])
    assert both == {"a:-x:k=1": "a:-x", "a:k=1": "a"}


@pytest.mark.long
def test_runs_of_other_settings_are_kept_apart(
    done: tuple[Path, list[Job]], installed: Registry, tmp_path: Path
) -> None:
    other = plan(installed, grid(["fedavg", "fedhpro"], rounds=1), tmp_path)
    execute(other, workers=2)
    found = [*collect(installed, done[1]), *collect(installed, other)]
    analysis = analyse(installed, found)
    assert [g.label for g in analysis.groups] == ["digits, rounds=2", "digits, rounds=1"]
    assert [len(g.records) for g in analysis.groups] == [4, 2]


@pytest.mark.long
def test_a_failed_run_is_shown_not_dropped_and_retried_on_demand(
    installed: Registry, tmp_path: Path
) -> None:
    bad = grid(["fedavg", "fedavg:sgd.lr=1e30"])
    jobs = plan(installed, bad, tmp_path)
    final = execute(jobs, workers=2)
    assert (final.done, final.failed) == (2, 1)
    assert execute(jobs).failed == 1
    found = collect(installed, jobs)
    assert [r.status for r in found] == ["finished", "failed"]
    error = found[1].error
    assert error is not None
    assert "on the test data of" in error
    assert "\n" not in error
    (group,) = analyse(installed, found, reference=found[0].variant).groups
    assert [len(group.missing(variant)) for variant in group.variants] == [0, 1]
    first = (jobs[1].path / "error.txt").stat().st_mtime_ns
    assert execute(jobs, retry=True).failed == 1
    assert (jobs[1].path / "error.txt").stat().st_mtime_ns > first


def test_a_run_that_another_comparison_is_at_is_waited_for(
    done: tuple[Path, list[Job]],
) -> None:
    _, jobs = done
    lock = FileLock(jobs[0].path.parent / f".{jobs[0].path.name}.lock", thread_local=False)
    lock.acquire()
    finished: list[Progress] = []
    thread = threading.Thread(target=lambda: finished.append(execute(jobs)))
    thread.start()
    thread.join(2)
    assert thread.is_alive(), "it must wait for the run that is claimed elsewhere"
    lock.release()
    thread.join(30)
    assert finished[0].reused == 4


@pytest.mark.long
def test_an_interrupt_keeps_what_is_done_and_the_rest_goes_on(
    installed: Registry, tmp_path: Path
) -> None:
    jobs = plan(installed, grid(["fedavg"], rounds=60), tmp_path)

    def stop(progress: Progress) -> None:
        if any(done >= 2 for done, _ in progress.running.values()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(jobs, show=stop)
    path = jobs[0].path
    assert (path / "checkpoint" / "checkpoint.json").is_file()
    kept = (path / "rounds.jsonl").read_text().splitlines()[0]
    final = execute(jobs)
    assert (final.done, final.failed) == (1, 0)
    lines = (path / "rounds.jsonl").read_text().splitlines()
    assert (len(lines), lines[0]) == (60, kept)


def test_run_directories_have_readable_safe_names(
    tiny_config: Callable[..., Any], installed: Registry, tmp_path: Path
) -> None:
    config = tiny_config(installed)
    path = run_path(tmp_path, "../we ird:-x/y", config)
    assert path.parent == tmp_path / "runs"
    assert path.name == f"tiny-.._we_ird_-x_y-s0-{config.hash[:12]}"


def test_a_run_is_found_under_another_name_of_its_method(
    installed: Registry, tmp_path: Path
) -> None:
    (first,) = plan(installed, Grid(["fedprox:fedprox.mu=0.01"], seeds=1), tmp_path)
    (same,) = plan(installed, Grid(["fedprox"], seeds=1), tmp_path)
    assert same.config.hash == first.config.hash
    assert same.path != first.path
    first.path.mkdir(parents=True)
    (found,) = plan(installed, Grid(["fedprox"], seeds=1), tmp_path)
    assert (found.path, found.method) == (first.path, "fedprox")
    (other,) = plan(installed, Grid(["fedprox"], seeds=[1]), tmp_path)
    assert other.path == run_path(tmp_path, "fedprox", other.config)


def test_find_names_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        find([tmp_path])


def test_conflicting_results_are_refused(
    done: tuple[Path, list[Job]], installed: Registry, tmp_path: Path
) -> None:
    original = collect(installed, done[1])[0]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in original.path.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    result = json.loads((copy / "result.json").read_text())
    result["accuracy"]["mean"] += 0.1
    (copy / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match="with different results"):
        analyse(installed, [original, records.read(installed, copy)])


def test_published_values_stand_beside_measured_ones_with_what_differs(
    done: tuple[Path, list[Job]], installed: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = cards.load_card(installed, "digits")
    value = cards.Published("fedhpro", "mean", 0.5, "a paper, table 1")
    with_value = dataclasses.replace(card, published=(value,))
    monkeypatch.setattr("fedbench.study.analysis.load_card", lambda *_: with_value)
    (group,) = analyse(installed, collect(installed, done[1])).groups
    (line,) = group.published
    assert line.startswith("published fedhpro, mean: 50.00 % (a paper, table 1); measured fedhpro:")
    assert "rounds=2" in line.split("changed from the card: ")[1]
