"""One process at a time has a run directory, and it looks again once it has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fedbench.config.model import RunConfig
from fedbench.engine.run import Run
from fedbench.errors import ConfigError, FedbenchError
from fedbench.plugins.registry import Registry
from fedbench.store.claim import Busy, Claim
from fedbench.store.directory import RunDirectory, Taken

DIGESTS = ("weights_sha256", "metrics_sha256")


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the claim -----------------------------------------------------------------------------------


def test_a_claim_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "lock")
    assert claim.holds
    with pytest.raises(Busy, match=f"^{tmp_path}: another process is running in it$"):
        Claim(tmp_path / "lock")
    claim.release()
    assert not claim.holds
    assert Claim(tmp_path / "lock").holds


@pytest.mark.parametrize("again", [False, True], ids=["removed", "replaced"])
def test_a_lock_file_that_was_removed_is_noticed(tmp_path: Path, again: bool) -> None:
    claim = Claim(tmp_path / "lock")
    (tmp_path / "lock").rename(tmp_path / "elsewhere")
    if again:
        (tmp_path / "lock").write_text("")
    assert not claim.holds
    assert Claim(tmp_path / "lock").holds


def test_a_lock_file_that_is_removed_as_it_is_claimed_is_claimed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, removed = FileLock.acquire, []

    def remove_once(lock: FileLock, **more: Any) -> Any:
        found = acquire(lock, **more)
        if not removed:
            removed.append(lock)
            (tmp_path / "lock").unlink()
        return found

    monkeypatch.setattr(FileLock, "acquire", remove_once)
    claim = Claim(tmp_path / "lock")
    assert claim.holds
    with pytest.raises(Busy):
        Claim(tmp_path / "lock")


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="lock is a link"):
        Claim(tmp_path / "lock")
    assert not (tmp_path / "outside").exists()


# --- a run looks again when it has the claim -----------------------------------------------------


@pytest.fixture
def config(tiny_config: Callable[..., RunConfig], registry: Registry) -> RunConfig:
    return tiny_config(registry, rounds=3)


@pytest.fixture
def make(config: RunConfig, registry: Registry, tmp_path: Path) -> Callable[..., Run]:
    return lambda: Run(config, tmp_path / "run", registry=registry, checkpoint_rounds=1)


@pytest.fixture
def resume(registry: Registry, tmp_path: Path) -> Callable[..., Run]:
    return lambda: Run.resume(tmp_path / "run", registry=registry, checkpoint_rounds=1)


def interrupted(run: Run, after: int = 1) -> None:
    rounds = run.rounds()
    for _ in range(after):
        next(rounds)
    rounds.close()


def test_a_run_made_earlier_leaves_alone_what_another_process_finished(
    make: Callable[..., Run], resume: Callable[..., Run], tmp_path: Path
) -> None:
    early = make()
    resume().run()
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"run is finished; `fedbench show "):
        early.run()
    assert contents(tmp_path) == before


def test_a_run_made_earlier_leaves_alone_what_another_process_has_begun(
    make: Callable[..., Run], resume: Callable[..., Run], tmp_path: Path
) -> None:
    early = make()
    interrupted(resume())
    before = contents(tmp_path)
    with pytest.raises(
        ConfigError, match=r"another process has continued this run in the meantime"
    ):
        early.run()
    assert contents(tmp_path) == before
    assert len(resume().run()["weights_sha256"]) == 64


def test_a_run_made_earlier_leaves_alone_what_has_replaced_it(
    make: Callable[..., Run], tiny_config: Callable[..., RunConfig], registry: Registry,
    tmp_path: Path,
) -> None:  # fmt: skip
    early = make()
    shutil.rmtree(tmp_path / "run")
    Run(tiny_config(registry, seed=7), tmp_path / "run", registry=registry)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"no longer holds this run; it was removed or replaced"):
        early.run()
    assert contents(tmp_path) == before


def test_a_run_that_was_finished_while_its_lock_was_waited_for_is_not_resumed(
    make: Callable[..., Run], resume: Callable[..., Run], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    interrupted(make(), after=2)
    lock, before = RunDirectory.lock, {}

    def finish_first(directory: RunDirectory) -> Claim:
        monkeypatch.setattr(RunDirectory, "lock", lock)
        resume().run()
        before.update(contents(tmp_path))
        return lock(directory)

    monkeypatch.setattr(RunDirectory, "lock", finish_first)
    with pytest.raises(ConfigError, match=r"run is finished; `fedbench show "):
        resume()
    assert contents(tmp_path) == before


def test_a_run_whose_lock_file_is_removed_claims_the_directory_anew(
    make: Callable[..., Run], config: RunConfig, registry: Registry, tmp_path: Path
) -> None:
    run = make()
    for _ in run.rounds():
        (tmp_path / "run" / ".lock").unlink()
    whole = Run(config, registry=registry).run()
    assert [run.result()[key] for key in DIGESTS] == [whole[key] for key in DIGESTS]


def test_a_run_whose_directory_another_process_took_over_writes_nothing_more(
    make: Callable[..., Run], resume: Callable[..., Run], config: RunConfig, registry: Registry,
    tmp_path: Path,
) -> None:  # fmt: skip
    rounds = make().rounds()
    next(rounds)
    (tmp_path / "run" / ".lock").unlink()
    other = resume()
    before = contents(tmp_path)
    with pytest.raises(Busy):
        next(rounds)
    assert contents(tmp_path) == before
    whole = Run(config, registry=registry).run()
    result = other.run()
    assert [result[key] for key in DIGESTS] == [whole[key] for key in DIGESTS]


def test_a_run_that_another_process_finished_after_its_lock_was_removed_ends(
    make: Callable[..., Run], resume: Callable[..., Run], tmp_path: Path
) -> None:
    rounds = make().rounds()
    next(rounds)
    (tmp_path / "run" / ".lock").unlink()
    resume().run()
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="run is finished"):
        next(rounds)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kept", [True, False], ids=["with a directory", "without"])
def test_a_run_runs_once(kept: bool, config: RunConfig, registry: Registry, tmp_path: Path) -> None:
    run = Run(config, tmp_path / "run" if kept else None, registry=registry)
    result = run.run()
    before = contents(tmp_path)
    for again in (run.run, run.rounds):
        with pytest.raises(FedbenchError, match="this Run has been used, and a Run runs once; "):
            again()
    assert run.result() == result
    assert contents(tmp_path) == before


# --- creating a directory ------------------------------------------------------------------------


def test_a_directory_that_another_process_creates_at_the_same_time_is_taken(
    make: Callable[..., Run], tiny_config: Callable[..., RunConfig], registry: Registry,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lock, before = RunDirectory.lock, {}

    def create_first(directory: RunDirectory) -> Claim:
        monkeypatch.setattr(RunDirectory, "lock", lock)
        RunDirectory.create(directory.path, tiny_config(registry, seed=7))
        before.update(contents(tmp_path))
        return lock(directory)

    monkeypatch.setattr(RunDirectory, "lock", create_first)
    with pytest.raises(Taken, match="run already exists; choose another --out"):
        make()
    assert contents(tmp_path) == before


def test_a_directory_that_is_just_being_created_is_busy(
    make: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    claim = Claim(tmp_path / "run" / ".lock")
    with pytest.raises(Busy):
        make()
    claim.release()
    assert len(make().run()["weights_sha256"]) == 64
