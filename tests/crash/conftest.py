"""Victims: forked copies of this process that run the command line and die at a named point.

Forking takes milliseconds, whereas a new process would import torch for seconds, and what the child
replaces in `os` or in fedbench ends with it. A point is reproducible: "the second client", "half of
checkpoint.json is written".
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import fedbench_baselines.sgd
import pytest

import fedbench.engine.round
import fedbench.engine.scoring
import fedbench.plugins.discovery
from fedbench.cli import main
from fedbench.engine.scoring import Scoring
from fedbench.plugins.registry import Registry
from fedbench.runtime import Runtime
from fedbench.store import checkpoint, files
from fedbench.store import directory as store
from fedbench.store.client_states import ClientStates

Act = Callable[[], object]


def die() -> NoReturn:
    """End as with ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Points:
    """Calls ``act`` when a named point is passed for the k-th time; use it in a victim only."""

    def __init__(self, act: Act = die) -> None:
        self.act: Act = act
        self.file: Path | None = None

    def before(self, owner: Any, name: str, k: int, after: bool = False) -> None:
        """Act before (or after) the k-th call of ``owner.name``."""
        original, calls = getattr(owner, name), 0

        @functools.wraps(original)
        def spy(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == k and not after:
                self.act()
            result = original(*args, **kwargs)
            if calls == k and after:
                self.act()
            return result

        setattr(owner, name, spy)

    def writing(self, file: str, step: str, k: int) -> None:
        """Act at a step of the k-th atomic write of ``file``, a name or the head of one.

        Steps: ``open`` (a temporary file is there), ``half`` (half of it is written), ``flush``
        (all of it is), ``moved`` (it has its name).
        """
        make, flush, move, seen = files.new_file, os.fsync, os.replace, 0

        def new_file(path: Path) -> tuple[int, Path]:
            nonlocal seen
            handle, name = make(path)
            self.file = name if name.name.startswith(f".{file}") else None
            seen += self.file is not None
            self._act("open", step, seen, k)
            return handle, name

        def fsync(handle: int) -> None:
            written = self.file is not None and self.file.exists()
            if written and step == "half" and seen == k:
                os.truncate(self.file, os.path.getsize(self.file) // 2)
                self.act()
            flush(handle)
            if written:
                self._act("flush", step, seen, k)

        def replace(source: Path, target: Path) -> None:
            move(source, target)
            if source == self.file:
                self._act("moved", step, seen, k)

        files.new_file, os.fsync, os.replace = new_file, fsync, replace

    def _act(self, here: str, step: str, seen: int, k: int) -> None:
        if self.file and here == step and seen == k:
            self.act()

    def torn_round(self, k: int) -> None:
        """Act when half of the k-th line of ``rounds.jsonl`` is written."""
        original = store.RunDirectory.add_round

        def add_round(self_: Any, result: Any) -> None:
            if result.round == k:
                line = store.to_json(result).replace(b"\n", b"")
                with (self_.path / "rounds.jsonl").open("ab") as file:
                    file.write(line[: len(line) // 2])
                self.act()
            original(self_, result)

        store.RunDirectory.add_round = add_round  # type: ignore[method-assign]

    def set(self, point: str) -> None:
        """Arm a point by its name: ``client 2``, ``half of checkpoint.json 1``."""
        what, _, number = point.rpartition(" ")
        k = int(number)
        step, of, file = what.partition(" of ")
        import torch

        calls: dict[str, tuple[Any, str, bool]] = {
            "a client starts": (Runtime, "run_client", False),
            "a client ends": (Runtime, "run_client", True),
            "a backward pass": (torch.Tensor, "backward", False),
            "an optimiser's step": (fedbench_baselines.sgd, "step", True),
            "a result is aggregated": (fedbench.engine.round, "Report", True),
            "the weights are averaged": (fedbench.engine.round, "_finite", False),
            "the server updates": (fedbench.engine.round, "_client_metrics", True),
            "evaluation starts": (Scoring, "after", False),
            "a test batch": (fedbench.engine.scoring, "classifier_rule", True),
            "evaluation ends": (Scoring, "after", True),
            "a line of rounds.jsonl is written": (store.RunDirectory, "add_round", True),
            "states are committed": (ClientStates, "commit", True),
            "a checkpoint is written": (checkpoint, "write", True),
            "old client files go": (ClientStates, "forget_old", False),
            "client files have gone": (ClientStates, "forget_old", True),
            "the folder is tidied": (store.RunDirectory, "tidy", False),
            "the folder is tidy": (store.RunDirectory, "tidy", True),
        }
        if what == "half a line of rounds.jsonl":
            self.torn_round(k)
        elif what in calls:
            owner, name, after = calls[what]
            self.before(owner, name, k, after)
        else:
            assert of, point
            self.writing(file, step, k)


@dataclass(frozen=True)
class Ended:
    """How a victim ended; ``status`` is negative if a signal ended it."""

    pid: int
    status: int
    out: str
    err: str


@dataclass
class Victim:
    """A forked process that runs ``fedbench WORDS``; `wait` reaps it."""

    pid: int
    pipes: tuple[int, int]
    """Pipes from its standard output and error; files could not be written on a full disk."""

    def wait(self, seconds: float = 120) -> Ended:
        """Wait until it has ended."""
        deadline = time.monotonic() + seconds
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError("the victim did not end")
            time.sleep(0.005)
        out, err = (drain(pipe) for pipe in self.pipes)
        return Ended(self.pid, os.waitstatus_to_exitcode(status), out, err)


def drain(pipe: int) -> str:
    """Read a pipe to its end, and close it."""
    os.set_blocking(pipe, False)
    parts = []
    with suppress(BlockingIOError):
        while part := os.read(pipe, 65536):
            parts.append(part)
    os.close(pipe)
    return b"".join(parts).decode()


def group(pid: int) -> list[int]:
    """Return the living processes of a victim's group: itself and all its descendants."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def none_left(pid: int, seconds: float = 10) -> bool:
    """Return whether all of a victim's processes end within some seconds."""
    deadline = time.monotonic() + seconds
    while group(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not group(pid)


@pytest.fixture
def fork(registry: Registry) -> Callable[..., Victim]:
    """Start ``fedbench WORDS`` in a forked process; ``before()`` runs in it first."""

    def start(words: Sequence[object], before: Callable[[], object] | None = None) -> Victim:
        out, err = os.pipe(), os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads
            pid = os.fork()
        if pid == 0:
            status = 70
            try:
                os.setpgid(0, 0)
                for number, (_, end) in ((1, out), (2, err)):
                    os.dup2(end, number)
                sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                fedbench.plugins.discovery.discover = lambda: registry
                # Client states go to files, so that those writes are tested too.
                ClientStates.__init__.__defaults__ = (None, 0)  # type: ignore[misc]
                if before:
                    before()
                main([str(word) for word in words], prog_name="fedbench")
            except SystemExit as end_:
                status = end_.code if isinstance(end_.code, int) else 1
            except BaseException:  # the tests look for a traceback
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        with_group = time.monotonic() + 10
        while os.getpgid(pid) != pid and time.monotonic() < with_group:
            time.sleep(0.001)
        os.close(out[1])
        os.close(err[1])
        return Victim(pid, (out[0], err[0]))

    return start


@pytest.fixture(scope="session")
def points() -> type[Points]:
    """Return `Points`, for test modules."""
    return Points


@pytest.fixture(scope="session")
def processes() -> Callable[[int], bool]:
    """Return `none_left`, for test modules."""
    return none_left
