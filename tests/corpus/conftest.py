"""The command line in a sandbox, which checks for all tests how a bad input may end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fedbench.plugins.discovery
from fedbench.cli import main
from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder and its subfolders, without following links."""
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in sorted(folder.rglob("*"))
    }


@dataclass
class Sandbox:
    """A folder ``work`` to run in, and one next to it that nothing may touch."""

    work: Path
    outside: Path

    def refused(self, words: list[Any], *texts: str, status: int = 1) -> str:
        """Check that ``fedbench WORDS`` ends in one clear line, and return it.

        Nothing outside ``work`` changes, and the file that a payload would make is not there.
        """
        before = contents(self.outside)
        done = CliRunner().invoke(main, [str(word) for word in words], prog_name="fedbench")
        shown = f"{words}: exit {done.exit_code}\n{done.stdout}{done.stderr}"
        assert done.exit_code == status, shown
        assert done.exception is None or isinstance(done.exception, SystemExit), shown
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, shown
        assert done.stderr.endswith(errors[0] + "\n"), shown
        if status == 1:  # a usage error (2) is preceded by how the command is used
            assert done.stderr.count("\n") == 1, shown
        assert "Traceback" not in done.output, shown
        assert "--debug" not in errors[0], f"not a text meant for users: {shown}"
        assert errors[0].isprintable(), shown
        assert len(errors[0]) < 2000, shown
        for text in texts:
            assert text in errors[0], f"{text!r} is missing: {shown}"
        assert contents(self.outside) == before, "something was written outside"
        assert not list(self.work.rglob("CANARY")), "a payload was executed"
        return errors[0]


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> Sandbox:
    """Return a sandbox that is the current folder; the home folder is outside it."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    for folder in (work, outside / "home", work / "cache"):
        folder.mkdir(parents=True)
    (outside / "precious").write_text("precious")
    (outside / "state-9.safetensors").write_text("precious too")
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(outside / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(work / "cache"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    monkeypatch.setattr(fedbench.plugins.discovery, "discover", lambda: registry)
    return Sandbox(work, outside)


@pytest.fixture(scope="session")
def templates(
    installed: Registry, tiny_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make the runs ``finished`` and ``cut``, with a checkpoint after round 2 and client states."""
    folder = tmp_path_factory.mktemp("templates")
    config = tiny_config(installed, "fedproto-aaai", rounds=3)
    Run(config, folder / "finished", registry=installed).run()
    run = Run(config, folder / "cut", registry=installed, checkpoint_rounds=1)
    run._clients._limit = 9000  # some states in memory, some in files
    for result in run.rounds():
        if result.round == 2:
            break
    return folder


@pytest.fixture
def copy(templates: Path, sandbox: Sandbox) -> Callable[[str], Path]:
    """Return a function that copies one of these runs to ``run`` in the sandbox."""

    def make(name: str) -> Path:
        shutil.copytree(templates / name, sandbox.work / "run")
        return Path("run")

    return make
