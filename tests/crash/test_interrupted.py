"""Signals, full disks, read-only folders, clocks, lost workers and memory: one clear line each.

Whatever happened, the run can be resumed and ends with the bits of an undisturbed one. The file has
over 400 lines because all cases disturb the same run and share its fixture.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench import ClientContext, hookimpl
from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry
from fedbench.study import TEMPORARY

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, reads /proc")

ROUNDS, DIGESTS = 3, ("weights_sha256", "metrics_sha256")
PLAN: dict[str, Any] = {}
"""What `Trouble` does in a victim; forked processes inherit it."""


@dataclass(frozen=True, eq=False)
class Trouble:
    """Does what ``PLAN`` says when a client starts."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        act = PLAN.get((ctx.round, ctx.client))
        if act:
            act()
        return (yield)


@pytest.fixture
def case(
    registry: Registry,
    add: Callable[..., None],
    tiny_config: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return the command that runs a config, its folder, and the digests of an undisturbed run."""
    add(trouble=Trouble)
    monkeypatch.setitem(PLAN, "", None)
    config = tiny_config(registry, "fedproto-aaai", rounds=ROUNDS, extra={"trouble": {}})
    result = Run(config, tmp_path / "whole", registry=registry).run()
    (tmp_path / "mine.yaml").write_text(config.to_yaml())
    words = ["run", tmp_path / "mine.yaml", "--out", tmp_path / "run", "--checkpoint-rounds", 1]
    return Case(words, tmp_path / "run", tmp_path / "whole", [result[key] for key in DIGESTS])


@dataclass(frozen=True)
class Case:
    words: list[Any]
    run: Path
    whole: Path
    digests: list[str]

    def check(self, fork: Callable[..., Any]) -> None:
        """Check that the resumed run ends with the same bits and leaves the same files."""
        done = fork(["resume", self.run] if (self.run / "config.yaml").exists() else self.words)
        ended = done.wait()
        assert ended.status == 0, ended
        found = json.loads((self.run / "result.json").read_text())
        assert [found[key] for key in DIGESTS] == self.digests
        assert names(self.run) == names(self.whole)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def clear(ended: Any, status: int, *texts: str) -> None:
    """Check that the victim ended with one line that contains ``texts``."""
    assert ended.status == status, ended
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("Error: ")
    for text in texts:
        assert text in ended.err
    assert "Traceback" not in ended.out + ended.err


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


# --- signals -------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out


def stop_here(file: Path) -> None:
    """Report that the place is reached, and wait there for a signal."""
    file.touch()
    while True:
        signal.pause()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
@pytest.mark.parametrize("executor", ["inline", "pool"])
def test_a_signal_keeps_what_is_finished_and_says_how_to_resume(
    number: int, status: int, executor: str, case: Case, fork: Any, processes: Any, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    words = case.words[:-2]  # no checkpoint is due yet, so the signal must write it
    if executor == "pool":
        words = [*words, "--executor", "pool", "--workers", 2]
    victim = fork(words, lambda: PLAN.update({(3, 0): lambda: stop_here(here)}))
    wait_for(here.exists, "round 3")
    os.kill(victim.pid, number)
    ended = victim.wait()
    assert ended.status == status, ended
    assert ended.err.strip() == (
        f"Interrupted after 2 of 3 rounds; they are in {case.run}. "
        f"`fedbench show {case.run}` prints them, `fedbench resume {case.run}` resumes."
    )
    assert "Traceback" not in ended.out + ended.err
    assert (case.run / "checkpoint" / "state-2.safetensors").is_file()
    assert processes(ended.pid)
    case.check(fork)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_second_signal_ends_immediately_and_the_run_can_be_resumed(
    first: int, case: Case, fork: Any, processes: Any, points: Any, tmp_path: Path
) -> None:
    here, writing = tmp_path / "here", tmp_path / "writing"

    def before() -> None:
        PLAN.update({(3, 0): lambda: stop_here(here)})
        points(lambda: stop_here(writing)).set("half of checkpoint.json 1")

    victim = fork(case.words[:-2], before)
    wait_for(here.exists, "round 3")
    os.kill(victim.pid, first)
    wait_for(writing.exists, "the checkpoint")
    os.kill(victim.pid, signal.SIGINT)
    ended = victim.wait()
    assert ended.status == 130, ended
    assert ended.err == "\nStopped immediately; the last checkpoint is kept.\n"
    assert processes(ended.pid)
    case.check(fork)


def test_more_signals_of_a_killed_comparison_do_not_end_its_run_immediately(
    case: Case, fork: Any, processes: Any, points: Any, tmp_path: Path
) -> None:
    here, writing, go_on = tmp_path / "here", tmp_path / "writing", tmp_path / "go on"

    def wait() -> None:
        writing.touch()
        wait_for(go_on.exists, "the second signal")

    def before() -> None:
        os.environ["FEDBENCH_PARENT"] = str(os.getppid())
        PLAN.update({(3, 0): lambda: stop_here(here)})
        points(wait).set("flush of checkpoint.json 1")

    victim = fork(case.words[:-2], before)
    wait_for(here.exists, "round 3")
    os.kill(victim.pid, signal.SIGTERM)
    wait_for(writing.exists, "the checkpoint")
    os.kill(victim.pid, signal.SIGTERM)  # Linux sends one for each thread that is killed
    go_on.touch()
    ended = victim.wait()
    assert ended.status == 143, ended
    assert "Interrupted after 2 of 3 rounds" in ended.err
    assert "Stopped immediately" not in ended.err
    assert processes(ended.pid)
    case.check(fork)


def test_ctrl_c_before_the_first_round_is_no_traceback(
    case: Case, fork: Any, points: Any, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    victim = fork(
        case.words, lambda: points(lambda: stop_here(here)).set("half of environment.json 1")
    )
    wait_for(here.exists, "the start")
    os.kill(victim.pid, signal.SIGINT)
    ended = victim.wait()
    assert (ended.status, ended.err) == (130, "\nInterrupted\n")
    case.check(fork)


def test_an_ignored_ctrl_c_stays_ignored(case: Case, fork: Any) -> None:
    def before() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        PLAN.update({(2, 0): lambda: os.kill(os.getpid(), signal.SIGINT)})

    assert fork(case.words, before).wait().status == 0


# --- the disk ------------------------------------------------------------------------------------


def no_space(limit: int) -> Callable[[], None]:
    """Let no file grow beyond ``limit`` bytes: a write then fails as on a full disk."""

    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return act


@pytest.mark.parametrize(
    ("when", "file"),
    [
        (None, "run cannot be written"),
        ((1, 0), "s.jsonl: "),
        ((2, 3), ".safetensors: "),
        ((3, 0), "s.jsonl: "),
    ],
    ids=["at the start", "round 1", "a client's state", "round 3"],
)
def test_a_full_disk(when: Any, file: str, case: Case, fork: Any) -> None:
    limits = {"run cannot be written": 100, "s.jsonl: ": 300, ".safetensors: ": 200}

    def before() -> None:
        PLAN.update({when: no_space(limits[file])}) if when else no_space(100)()
        if "safetensors" not in file:  # keep the states of clients in memory
            from fedbench.store.client_states import ClientStates

            ClientStates.__init__.__defaults__ = (None, 10**6)  # type: ignore[misc]

    done = fork([*case.words[:-2]], before).wait()
    if when == (3, 0):  # what is finished would be checkpointed, and that finds no space either
        clear(done, TEMPORARY, "state-2.safetensors: File too large")
    else:
        clear(done, TEMPORARY, file, "File too large")
    assert not list(case.run.rglob("*.part")), "a temporary file was left"
    case.check(fork)


def can_mount(folder: Path) -> bool:
    return os.geteuid() == 0 and os.system(f"mount -t tmpfs none {folder} 2>/dev/null") == 0


@pytest.fixture
def mount(tmp_path: Path) -> Any:
    """Mount a small separate file system; skip the test if the user may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not can_mount(folder):
        pytest.skip("mounting a tmpfs needs more rights than this user has")
    yield folder
    os.system(f"umount -l {folder}")


def test_a_full_file_system(case: Case, fork: Any, mount: Path) -> None:
    os.system(f"mount -o remount,size=1m {mount}")
    run = mount / "run"
    words = [run if word == case.run else word for word in case.words]
    filler = mount / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    clear(
        fork(words, lambda: PLAN.update({(2, 0): fill})).wait(),
        TEMPORARY,
        "No space left on device",
    )
    assert not list(run.rglob("*.part"))
    filler.unlink()
    Case(words, run, case.whole, case.digests).check(fork)


def test_a_file_system_that_is_read_only(case: Case, fork: Any, mount: Path) -> None:
    run = mount / "run"
    words = [run if word == case.run else word for word in case.words]

    assert fork(words, lambda: PLAN.update({(2, 0): die})).wait().status == -signal.SIGKILL
    os.system(f"mount -o remount,ro {mount}")
    why = f"{run} cannot be written: Read-only file system"
    clear(fork(["resume", run]).wait(), TEMPORARY, why)
    clear(fork(words).wait(), TEMPORARY, why)
    os.system(f"mount -o remount,rw {mount}")
    Case(words, run, case.whole, case.digests).check(fork)


def test_a_read_only_folder(case: Case, fork: Any) -> None:
    """Root may write anywhere, so the test refuses the calls, as a system does for other users."""

    def before() -> None:
        def refuse(*_: object, **__: object) -> Any:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(case.run))

        os.open = refuse  # type: ignore[assignment]
        Path.mkdir = refuse  # type: ignore[method-assign]

    clear(fork(case.words, before).wait(), 1, f"{case.run} cannot be written: Permission denied")
    case.check(fork)


# --- clocks, processes, memory -------------------------------------------------------------------


@pytest.mark.parametrize("jump", [10**9, -(10**9)], ids=["forward", "back"])
def test_a_clock_that_jumps_changes_nothing(jump: int, case: Case, fork: Any) -> None:
    now = time.time

    def leap() -> None:
        time.time = lambda: now() + jump  # type: ignore[assignment]

    done = fork(case.words, lambda: PLAN.update({(2, 0): leap})).wait()
    assert done.status == 0, done
    found = json.loads((case.run / "result.json").read_text())
    assert [found[key] for key in DIGESTS] == case.digests
    assert 0 <= found["seconds"] < 600
    assert "left 0.0 s" in done.out  # the last round's line; no line shows an absurd time
    assert "-" not in "".join(line.split("left")[1] for line in done.out.splitlines()[1:4])


def test_two_processes_do_not_share_a_folder(
    case: Case, fork: Any, registry: Registry, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    first = fork(case.words, lambda: PLAN.update({(2, 0): lambda: stop_here(here)}))
    wait_for(here.exists, "round 2")
    before = {p: p.read_bytes() for p in case.run.rglob("*") if p.is_file()}
    assert any("clients" in str(p) for p in before)
    for words in (["resume", case.run], case.words):
        clear(fork(words).wait(), TEMPORARY, f"{case.run}: another process is running in it")
    assert {p: p.read_bytes() for p in case.run.rglob("*") if p.is_file()} == before
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait().status == 143
    case.check(fork)


@pytest.mark.parametrize("command", ["run", "resume"])
def test_of_equal_commands_at_the_same_time_one_runs(
    command: str, case: Case, fork: Any, registry: Registry
) -> None:
    words = case.words
    if command == "resume":
        Run(case.words[1], case.run, registry=registry)
        words = ["resume", case.run]
    victims = [fork(words) for _ in range(4)]
    ended = [victim.wait() for victim in victims]
    assert [one.status for one in ended].count(0) == 1, ended
    for one in ended:
        if one.status:
            clear(one, TEMPORARY if "another process is running" in one.err else 1, str(case.run))
    found = json.loads((case.run / "result.json").read_text())
    assert [found[key] for key in DIGESTS] == case.digests
    assert names(case.run) == names(case.whole)


def test_a_worker_that_is_killed_is_replaced(
    case: Case, fork: Any, processes: Any, tmp_path: Path
) -> None:
    marker = tmp_path / "killed"

    def kill() -> None:
        if not marker.exists():
            marker.touch()
            die()

    words = [*case.words, "--executor", "pool", "--workers", 2]
    done = fork(words, lambda: PLAN.update({(2, 1): kill})).wait()
    assert done.status == 0, done
    assert marker.exists()
    found = json.loads((case.run / "result.json").read_text())
    assert [found[key] for key in DIGESTS] == case.digests
    assert processes(done.pid)


def test_a_client_whose_workers_are_all_killed_ends_the_run_for_now(
    case: Case, fork: Any, processes: Any
) -> None:
    words = [*case.words, "--executor", "pool", "--workers", 2]
    done = fork(words, lambda: PLAN.update({(2, 1): die})).wait()
    clear(done, TEMPORARY, "round 2, client 1: its worker process died 3 times")
    assert processes(done.pid)
    case.check(fork)


@pytest.mark.parametrize("executor", ["inline", "pool"])
@pytest.mark.parametrize("kind", ["torch", "python"])
def test_memory_that_runs_out_is_one_clear_line(
    kind: str, executor: str, case: Case, fork: Any, processes: Any
) -> None:
    def exhaust() -> None:
        if kind == "torch":
            torch.empty(1 << 50)
        else:
            bytearray(1 << 50)

    words = [*case.words, "--executor", executor]
    words += ["--workers", 2] if executor == "pool" else []
    done = fork(words, lambda: PLAN.update({(2, 1): exhaust})).wait()
    clear(done, TEMPORARY, "Error: not enough memory", "in round 2, client 1")
    assert processes(done.pid)
    case.check(fork)


def test_an_address_space_that_is_used_up(case: Case, fork: Any, processes: Any) -> None:
    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
        torch.ones(1 << 28)

    words = [*case.words, "--executor", "pool", "--workers", 2]
    done = fork(words, lambda: PLAN.update({(2, 1): limit})).wait()
    clear(done, TEMPORARY, "Error: not enough memory", "in round 2, client 1")
    assert processes(done.pid)
    case.check(fork)


# --- comparisons ---------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 2], ids=["a program", "forked"])
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGKILL"])
def test_a_comparison_that_ends_takes_its_runs_with_it(
    ending: str, seeds: int, tmp_path: Path, fork: Any, processes: Any
) -> None:
    words = ["compare", "fedavg", "--seeds", seeds, "--rounds", 5000, "--jobs", 1]
    words += ["--set", "domains.examples=20", "--set", "sgd.epochs=1", "--out", tmp_path / "c"]

    def lines() -> list[str]:
        return [f for p in tmp_path.rglob("rounds.jsonl") for f in p.read_text().splitlines()]

    def runs() -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                prints_to = os.readlink(entry / "fd" / "1")
                if entry.name.isdigit() and prints_to.startswith(f"{tmp_path / 'c'}/runs"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    victim = fork(words)
    wait_for(lambda: len(lines()) >= 2, "a round that is surely over")
    assert runs()
    os.kill(victim.pid, signal.Signals[ending])
    done = victim.wait()
    assert done.status == (143 if ending == "SIGTERM" else -signal.SIGKILL)
    assert "Traceback" not in done.out + done.err
    wait_for(lambda: not runs(), "the runs' end")
    checkpoints = list(tmp_path.rglob("checkpoint.json"))
    assert len(checkpoints) == 1  # the run was told to end, and kept what it had
