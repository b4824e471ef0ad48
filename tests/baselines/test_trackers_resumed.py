"""Trackers of runs that are killed, interrupted, fail, or begin anew: each round once, one end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fedbench_baselines.trackers import metric_name, scalars

from fedbench import ConfigError, FedbenchError, Run, hookimpl
from fedbench.engine.verify import Kept

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TRACKERS = ("tensorboard", "mlflow", "wandb")
Series = dict[str, list[tuple[int, float]]]


@pytest.fixture(params=TRACKERS)
def tracker(request) -> str:
    """Each tracker whose package is installed."""
    pytest.importorskip(request.param, exc_type=ImportError)
    return request.param


@pytest.fixture
def begin(registry, tiny_config) -> Callable[..., Run]:
    """Make a run of four rounds with trackers in a directory, without starting it."""

    def begin(directory: Path, *trackers: str, **given: Any) -> Run:
        extra = {**given.pop("extra", {}), **{name: {} for name in trackers}}
        config = tiny_config(registry, **{"rounds": 4, "extra": extra, **given})
        return Run(config, directory, registry=registry, checkpoint_rounds=2)

    return begin


def tensorboard(directory: Path) -> Series:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def mlflow_runs(uri: str) -> list[Any]:
    """The MLflow runs of a store, the oldest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "fedbench"]
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda r: r.info.start_time)


def mlflow_series(uri: str, run: Any) -> Series:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def mlflow(directory: Path) -> Series:
    """The numbers of the only MLflow run in the directory's own store."""
    uri = (directory / "mlflow").as_uri()
    (run,) = mlflow_runs(uri)
    return mlflow_series(uri, run)


@pytest.fixture
def series(wandb_records: Callable[[Path, str], list[Any]]) -> Callable[[str, Path], Series]:
    """Read the numbers that a tracker has of the run in a directory."""

    def wandb(directory: Path) -> Series:
        found: Series = {}
        for one in wandb_records(directory, "history"):
            for item in one.item:
                value = (one.step.num, json.loads(item.value_json))
                found.setdefault(item.nested_key[0], []).append(value)
        return {name: values for name, values in found.items() if name[0] != "_"}

    readers = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}
    return lambda tracker, directory: readers[tracker](directory)


def check(found: Series, run: Run, but: tuple[str, ...] = ()) -> None:
    """Every round once, with the run's numbers; those ``but`` may have another value."""
    wanted: Series = {}
    for result in run.history:
        for name, value in scalars(result):
            wanted.setdefault(name, []).append((result.round, value))
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in values]
        if name not in but:
            assert [v for _, v in found[name]] == pytest.approx([v for _, v in values])


def test_a_round_that_is_played_again_after_a_kill_is_there_once(
    begin,
    tracker,
    registry,
    tmp_path,
    series,
):
    with closing(begin(tmp_path / "live", tracker).rounds()) as rounds:
        while next(rounds).round < 3:
            pass
        # What a kill leaves: round 3 is tracked, and the checkpoint is that of round 2.
        shutil.copytree(tmp_path / "live", tmp_path / "r")
    run = Run.resume(tmp_path / "r", registry=registry)
    assert len(run.history) == 2
    run.run()
    # MLflow cannot change a value that it has, and only the seconds are new.
    check(series(tracker, tmp_path / "r"), run, ("seconds",) if tracker == "mlflow" else ())


def test_a_run_that_is_killed_before_its_first_checkpoint(
    begin, tracker, registry, tmp_path, series
):
    with closing(begin(tmp_path / "live", tracker).rounds()) as rounds:
        next(rounds)
        shutil.copytree(tmp_path / "live", tmp_path / "r")
    run = Run.resume(tmp_path / "r", registry=registry)
    run.run()
    check(series(tracker, tmp_path / "r"), run, ("seconds",) if tracker == "mlflow" else ())


def test_a_round_that_a_failing_observer_kept_from_the_tracker_is_there_after_all(
    begin,
    tracker,
    registry,
    add,
    tmp_path,
    series,
):
    broken: list[int] = [2]

    @dataclass(frozen=True, eq=False)
    class First:
        @hookimpl
        def round_end(self, result):
            if result.round in broken:
                broken.clear()
                raise OSError("the disk is full")

    add(first=First)
    run = begin(tmp_path / "r", "first", tracker)
    with pytest.raises(OSError, match="the disk is full"):
        run.run()
    assert {step for step, _ in series(tracker, tmp_path / "r")["seconds"]} == {1}
    run = Run.resume(tmp_path / "r", registry=registry)
    assert len(run.history) == 2
    run.run()
    check(series(tracker, tmp_path / "r"), run)


def test_a_directory_that_is_removed_and_used_again_in_one_process(
    begin, tracker, tmp_path, series
):
    for seed in (0, 1):
        run = begin(tmp_path / "r", tracker, seed=seed, rounds=2)
        run.run()
        check(series(tracker, tmp_path / "r"), run)
        shutil.rmtree(tmp_path / "r")


def test_trackers_refuse_links_that_lead_out_of_the_run_directory(
    begin, tracker, registry, tmp_path
):
    with closing(begin(tmp_path / "r", tracker).rounds()) as rounds:
        next(rounds)
    (tmp_path / "elsewhere").touch()
    link = tmp_path / "r" / tracker / "deeper" / "link"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError) as caught:
        Run.resume(tmp_path / "r", registry=registry).run()
    assert str(caught.value) == f"{link} is a link; a run writes into its own folder"


def test_a_run_without_a_directory_is_refused_before_round_1(tracker, registry, tiny_config):
    run = Run(tiny_config(registry, extra={tracker: {}}), registry=registry)
    with pytest.raises(ConfigError, match=f"^{tracker} needs a run directory; "):
        run.run()
    assert not run.history


def test_verify_tracks_nothing(begin, tracker, registry, tmp_path, series):
    directory = tmp_path / "r"
    begin(directory, tracker, rounds=2).run()

    def files() -> dict[Path, tuple[int, int]]:
        """Each file's number and time, but for those that W&B's own process may still write to."""
        own = (directory / "wandb").glob("offline-run-*/**/*")
        paths = {*directory.rglob("*")} - {*own}
        states = {path: path.lstat() for path in paths}
        return {path: (state.st_ino, state.st_mtime_ns) for path, state in states.items()}

    tracked, before = series(tracker, directory), files()
    assert Kept(registry, directory).verify().difference is None
    assert files() == before
    assert series(tracker, directory) == tracked


# --- MLflow's runs -------------------------------------------------------------------------------


@pytest.fixture
def needs_mlflow() -> None:
    pytest.importorskip("mlflow", exc_type=ImportError)


def status(directory: Path) -> tuple[str, str | None]:
    """The status of the only MLflow run in the directory's own store, and its error."""
    (run,) = mlflow_runs((directory / "mlflow").as_uri())
    return run.info.status, run.data.tags.get("fedbench.error")


@pytest.mark.usefixtures("needs_mlflow")
def test_mlflow_shows_how_a_run_is_going_and_how_it_ended(begin, registry, tmp_path):
    with closing(begin(tmp_path / "r", "mlflow").rounds()) as rounds:
        next(rounds)
        assert status(tmp_path / "r") == ("RUNNING", None)
    assert status(tmp_path / "r") == ("KILLED", None)
    with closing(Run.resume(tmp_path / "r", registry=registry).rounds()) as rounds:
        next(rounds)
        assert status(tmp_path / "r") == ("RUNNING", None)
    Run.resume(tmp_path / "r", registry=registry).run()
    assert status(tmp_path / "r") == ("FINISHED", None)


@pytest.mark.usefixtures("needs_mlflow")
def test_mlflow_shows_why_a_run_failed_until_it_is_resumed(begin, registry, add, tmp_path):
    broken: list[int] = [2]

    @dataclass(frozen=True, eq=False)
    class Fragile:
        @hookimpl
        def after_backward(self, ctx):
            if ctx.round in broken:
                raise FedbenchError("out of luck")

    add(fragile=Fragile)
    with pytest.raises(FedbenchError, match="out of luck"):
        begin(tmp_path / "r", "fragile", "mlflow").run()
    assert status(tmp_path / "r") == ("FAILED", "out of luck in round 2, client 0")
    broken.clear()
    Run.resume(tmp_path / "r", registry=registry).run()
    assert status(tmp_path / "r") == ("FINISHED", None)


@pytest.mark.usefixtures("needs_mlflow")
def test_mlflow_has_a_run_of_its_own_for_every_run_that_began_in_one_directory(begin, tmp_path):
    uri = (tmp_path / "store").as_uri()
    runs = []
    for seed in (0, 1):
        runs.append(begin(tmp_path / "r", rounds=2, seed=seed, extra={"mlflow": {"uri": uri}}))
        runs[-1].run()
        shutil.rmtree(tmp_path / "r")
    kept = mlflow_runs(uri)
    assert [run.info.status for run in kept] == ["FINISHED", "FINISHED"]
    for one, run in zip(kept, runs, strict=True):
        check(mlflow_series(uri, one), run)


@pytest.mark.usefixtures("needs_mlflow")
@pytest.mark.parametrize("lost", ["deleted", "", "../0", "no-such-run", b"\xff"])
def test_a_resumed_run_whose_mlflow_run_is_gone_begins_a_new_one_with_all_rounds(
    begin, registry, tmp_path, lost
):
    from mlflow.tracking import MlflowClient

    with closing(begin(tmp_path / "r", "mlflow").rounds()) as rounds:
        next(rounds)
    memory, uri = tmp_path / "r" / "mlflow" / "run_id", (tmp_path / "r" / "mlflow").as_uri()
    first = memory.read_text()
    if lost == "deleted":
        MlflowClient(tracking_uri=uri).delete_run(first)
    else:
        memory.write_bytes(lost if isinstance(lost, bytes) else lost.encode())
    run = Run.resume(tmp_path / "r", registry=registry)
    run.run()
    (new,) = [one for one in mlflow_runs(uri) if one.info.run_id != first]
    assert memory.read_text() == new.info.run_id
    check(mlflow_series(uri, new), run)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("classifier/accuracy/domain/chalk-1.5 b", "classifier/accuracy/domain/chalk-1.5 b"),
        ("domain/Köln", "domain/Köln"),
        ("domain/a (b)", "domain/a _28_b_29_"),
        ("domain/1:2", "domain/1_3a_2"),
        ("domain/..", "domain/_.."),
        ("domain//", "domain/_/_"),
        ("domain/\udcff", "domain/_dcff_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_does_not_allow_are_spelled_in_letters_that_it_does(name, allowed):
    assert metric_name(name) == allowed


def test_numbers_with_any_name_are_tracked(begin, add, tracker, tmp_path, series):
    @dataclass(frozen=True, eq=False)
    class Odd:
        @hookimpl(wrapper=True)
        def client_update(self, ctx):
            ctx.metric("loss (%)/../\udcff", 0.5)
            return (yield)

    add(odd=Odd)
    begin(tmp_path / "r", "odd", tracker, rounds=1).run()
    plain = "loss (%)/../\\udcff"
    name = "loss _28__25__29_/_../_dcff_" if tracker == "mlflow" else plain
    assert series(tracker, tmp_path / "r")[name] == [(1, 0.5)]
