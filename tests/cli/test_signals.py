"""Ctrl-C ends a command with one line and status 130, also in the seconds of its imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fedbench.cli import signals
from fedbench.cli.base import Command

TRAP = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
raise ImportError("what an import makes of an interrupt")
"""


def start(folder: Path, *words: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``fedbench WORDS`` with the modules in ``folder`` first on the path."""
    path = os.pathsep.join((str(folder), *sys.path))
    how = signal.SIG_IGN if ignored else signal.default_int_handler
    return subprocess.run(
        [sys.executable, "-m", "fedbench", *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, how),
    )


@pytest.mark.parametrize("module", ["click", "pydantic", "pluggy", "rich", "torch"])
def test_while_a_module_is_imported(module, tmp_path):
    (tmp_path / f"{module}.py").write_text(TRAP)
    done = start(tmp_path, "plugins")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nInterrupted\n")


def test_one_that_is_ignored_stays_ignored(tmp_path):
    (tmp_path / "pydantic.py").write_text(TRAP)
    done = start(tmp_path, "plugins", ignored=True)
    assert done.returncode == 1
    assert "what an import makes of an interrupt" in done.stderr


def test_without_a_standard_error_it_ends_as_well(tmp_path):
    (tmp_path / "torch.py").write_text("import os\nos.close(2)\n" + TRAP)
    assert start(tmp_path, "plugins").returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_late_import_that_makes_an_error_of_it(number: int) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored outside

    @click.command(cls=Command)
    def imports() -> None:
        signals.begin()
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise ImportError("what an import makes of an interrupt") from None

    try:
        done = CliRunner().invoke(imports)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.exit_code, done.output) == (128 + number, "\nInterrupted\n")
