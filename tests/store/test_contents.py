"""What a run writes is read back as the same values, and files of other versions are read too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbench.engine.run import Run
from fedbench.engine.totals import canonical_round
from fedbench.errors import ConfigError
from fedbench.runtime import partition_table
from fedbench.store.contents import Environment
from fedbench.store.directory import RunDirectory
from fedbench.types import Failure, RoundResult, Scores


def awkward(number: int) -> RoundResult:
    """Return a round whose numbers are hard to write: tiny, huge, signed zeros, ints, lists."""
    scores = {
        "accuracy": Scores({"a": 0.1 + 0.2, "b": 1 / 3}, 5e-324, -0.0, 1.7976931348623157e308),
        "per_class": Scores({"a": [0.0, 1e-17, 1 / 7], "b": []}),
    }
    failures = (Failure(3, 1, "dropped", "a reason, in two\nlines", lost=True),)
    sent = {"weights": 2**60 + 1}
    return RoundResult(
        number, [0, 3], {"classifier": scores}, {"loss.x": 2.0}, sent, {}, 0.3, failures
    )


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_a_finished_run_is_read_back(run_tiny: Callable[..., Run], tmp_path: Path) -> None:
    run = run_tiny("fedproto", tmp_path / "r", rounds=3)
    directory = RunDirectory.open(tmp_path / "r")
    assert directory.read_progress() == (run.history, run.summary())
    assert directory.read_partition() == partition_table(run.runtime)
    assert directory.read_environment().config_hash == run.config.hash
    assert directory.read_error() is None


def test_the_result_is_the_file(run_tiny: Callable[..., Run], tmp_path: Path) -> None:
    run = run_tiny(directory=tmp_path / "r")
    text = (tmp_path / "r" / "result.json").read_text()
    assert json.dumps(run.result(), indent=2) + "\n" == text
    assert list(run.result()) == [
        *("method", "changes", "data", "model", "seed", "rounds", "accuracy", "bytes", "failures"),
        *("seconds", "weights_sha256", "metrics_sha256", "card", "config_hash", "versions"),
        *("others", "extra", "personal", "personal_sha256", "conclusions", "stop_at"),
        *("virtual_time", "in_memory"),
    ]
    assert list(run.result()["accuracy"]) == [
        *("rule", "metric", "inference", "mean", "worst", "std", "domains"),
        *("population", "split", "model", "plain"),
    ]


def test_numbers_of_rounds_survive_exactly(directory: RunDirectory) -> None:
    written = [awkward(1), awkward(2)]
    for one in written:
        directory.add_round(one)
    read = directory.read_rounds()
    assert read == written
    assert list(map(canonical_round, read)) == list(map(canonical_round, written))
    assert list(map(repr, read)) == list(map(repr, written)), "2 is not 2.0, and 0.0 is not -0.0"
    assert directory.read_rounds(1) == written[:1]


def test_keys_of_a_newer_version_are_ignored(run_tiny: Callable[..., Run], tmp_path: Path) -> None:
    run = run_tiny(directory=tmp_path / "r", rounds=1)
    directory = RunDirectory(tmp_path / "r")
    for file in (
        *(directory.rounds_file, directory.result_file),
        *(directory.partition_file, directory.environment_file),
    ):
        data = json.loads(file.read_text())
        file.write_text(json.dumps({**data, "new": {"x": 1}}) + "\n")
    assert directory.read_progress() == (run.history, run.summary())
    assert directory.read_partition() == partition_table(run.runtime)
    assert directory.read_environment().config_hash == run.config.hash


def test_keys_that_earlier_versions_did_not_write(
    run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    run_tiny(directory=tmp_path / "r", rounds=1)
    directory = RunDirectory(tmp_path / "r")
    for file, keys in {
        directory.rounds_file: ["failures"],
        directory.result_file: ["model", "failures", "card", "config_hash", "versions"],
    }.items():
        data = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in data.items() if k not in keys}) + "\n")
    (one,), result = directory.read_progress()
    assert one.failures == ()
    assert result is not None
    assert (result.model, result.failures, result.config_hash) == (None, None, None)


def test_cutting_keeps_lines_as_they_are(directory: RunDirectory) -> None:
    directory.add_round(awkward(1))
    first = json.loads(directory.rounds_file.read_text())
    spaced = json.dumps({"new": 1, **first}, separators=(" , ", " : "))
    directory.rounds_file.write_text(f"{spaced}\n{json.dumps({**first, 'round': 2})}\n{{'half")
    assert directory.cut_rounds(1) == [awkward(1)]
    assert directory.rounds_file.read_text() == spaced + "\n"
    assert directory.cut_rounds(0) == []
    assert directory.rounds_file.read_text() == ""


def test_an_empty_folder_has_nothing_to_read(directory: RunDirectory) -> None:
    assert directory.read_progress() == ([], None)
    assert directory.read_partition() is None
    assert directory.read_environment() == Environment()
    assert directory.read_error() is None


def test_a_result_without_an_accuracy_is_damaged(
    run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    run_tiny(directory=tmp_path / "r", rounds=1)
    directory = RunDirectory(tmp_path / "r")
    data = json.loads(directory.result_file.read_text())
    data["accuracy"]["mean"] = None
    directory.result_file.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"result.json: damaged: accuracy.mean: "):
        directory.read_result()
