"""A run that ends before its first round leaves nothing behind, unless something needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from fedbench_baselines.sgd import Sgd

from fedbench.cli import signals

Command = Callable[..., Result]


def ending(monkeypatch: pytest.MonkeyPatch, error: Exception, first: int = 1) -> None:
    """Let the optimiser raise an error from the round ``first`` on."""

    def rate(self: Sgd, round: int, rounds: int) -> float:
        if round >= first:
            raise error
        return 0.1

    monkeypatch.setattr(Sgd, "learning_rate", rate)


def run(fedbench: Command, few: Sequence[str], *more: str) -> Result:
    words = ("run", "fedavg", "--data", "digits", *few, "--executor", "inline", "--out", "here")
    done = fedbench(*words, *more)
    assert done.exit_code != 0
    return done


def test_a_refused_run_leaves_no_directory(
    fedbench: Command, few: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, ValueError("not like this"))
    assert "not like this" in run(fedbench, few).stderr
    assert not Path("here").exists()


def test_rounds_that_were_run_are_kept(
    fedbench: Command, few: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, ValueError("not like this"), first=2)
    run(fedbench, few, "--rounds", "2")
    assert len(Path("here/rounds.jsonl").read_text().splitlines()) == 1


def test_what_the_machine_ended_is_kept(
    fedbench: Command, few: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, MemoryError())
    run(fedbench, few)
    assert Path("here/config.yaml").is_file()


def test_a_comparison_keeps_what_it_notes_a_failure_in(
    fedbench: Command, few: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, ValueError("not like this"))
    monkeypatch.setattr(signals, "follow_parent", lambda: setattr(signals, "follows", True))
    monkeypatch.setattr(signals, "follows", False)
    run(fedbench, few)
    assert Path("here/config.yaml").is_file()


def test_files_of_others_are_kept(
    fedbench: Command, few: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rate(self: Sgd, round: int, rounds: int) -> float:
        Path("here/notes.txt").write_text("mine")
        raise ValueError("not like this")

    monkeypatch.setattr(Sgd, "learning_rate", rate)
    run(fedbench, few)
    assert Path("here/notes.txt").read_text() == "mine"
    assert Path("here/config.yaml").is_file()
