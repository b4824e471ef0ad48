"""Locks that are waited for: who holds one is said, once, on stderr."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fedbench_datasets import locking
from filelock import FileLock, Timeout

HOLDING = """
import sys, time
from pathlib import Path
from fedbench_datasets import locking

with locking.held(Path(sys.argv[1]), "pacs"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "PATIENCE", 0.1)


def wait_for(lock: Path) -> threading.Thread:
    """Wait in a thread for a lock of the data set pacs, then release it."""

    def run() -> None:
        with locking.held(lock, "pacs"):
            pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_wait_names_the_process_that_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / ".lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        waiting = wait_for(lock)
        time.sleep(0.5)  # several times as long as it takes to say so
        other.stdin.write("\n")
        other.stdin.flush()
        waiting.join(20)
    assert not waiting.is_alive()
    said = capsys.readouterr()
    begin = f"pacs: waiting for process {other.pid} on {platform.node()} (since 20"
    assert said.err.startswith(begin)
    assert said.err.endswith(f"), which holds {lock}\n")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_lock_that_is_free_or_soon_free_is_not_worth_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "PATIENCE", 10.0)
    with locking.held(tmp_path / ".lock", "pacs"):
        waiting = wait_for(tmp_path / ".lock")
        time.sleep(0.2)
    waiting.join(20)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"process": 3}', '{"process": "x", "since": 1}'])
def test_a_holder_who_left_no_name_is_another_process(tmp_path: Path, note: str) -> None:
    if note:
        (tmp_path / ".lock.holder").write_text(note)
    assert locking.holder(tmp_path / ".lock") == "another process"


def test_only_while_it_is_held_a_note_says_by_whom(tmp_path: Path) -> None:
    with locking.held(tmp_path / ".lock", "pacs"):
        assert locking.holder(tmp_path / ".lock").startswith(f"process {os.getpid()} on ")
    assert locking.holder(tmp_path / ".lock") == "another process"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_without_waiting_a_held_lock_is_an_error(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(Timeout),
        locking.held(tmp_path / ".lock", "pacs", wait=False),
    ):
        pass


def test_a_process_without_stderr_waits_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locking.held(tmp_path / ".lock", "pacs"):
        monkeypatch.setattr(sys, "stderr", None)
        waiting = wait_for(tmp_path / ".lock")
        time.sleep(0.4)
    waiting.join(20)
    assert not waiting.is_alive()
