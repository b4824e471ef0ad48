"""Paths may begin with ``~`` wherever the command line takes one, and numbers are finite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fedbench.cli import main
from fedbench.cli.kinds import UserPath
from fedbench.config import yamlfile
from fedbench.study.grid import parse_method


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


def parameters(command: click.Command) -> Iterator[click.Parameter]:
    yield from command.params
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from parameters(inner)


def test_every_path_of_every_command_may_begin_with_the_home_folder():
    paths = [p for p in parameters(main) if isinstance(p.type, click.Path)]
    assert {"--out", "--data-root", "--config", "--png"} <= {o for p in paths for o in p.opts}
    assert [p.opts for p in paths if not isinstance(p.type, UserPath)] == []


def test_a_run_in_the_home_folder(fedbench, few, home):
    assert fedbench("run", "fedavg", *few, "--out=~/run", "--data-root=~").exit_code == 0
    assert (home / "run" / "result.json").is_file()
    shown = fedbench("show", "~/run")
    assert (shown.exit_code, "accuracy" in shown.stdout) == (0, True)
    assert fedbench("config", "~/run/config.yaml").stdout == (home / "run/config.yaml").read_text()
    assert fedbench("report", "~/run", "--out=~/report").exit_code == 0
    assert (home / "report" / "report.html").is_file()
    assert not Path("~").exists()


def test_config_files_in_the_home_folder(fedbench, home):
    (home / "part.yaml").write_text("rounds: 7\n")
    found = fedbench("config", "fedavg", "--config=~/part.yaml").stdout
    assert yamlfile.parse(found, "printed").data["rounds"] == 7
    assert parse_method("~/mine.yaml").file == home / "mine.yaml"


def test_another_name_with_a_tilde_is_a_name(fedbench, few, home):
    assert fedbench("run", "fedavg", *few, "--out", "a~b").exit_code == 0
    assert Path("a~b").is_dir()


@pytest.mark.parametrize("command", ["run", "resume", "compare"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "-1"])
def test_a_number_that_cannot_be_compared_is_refused_with_its_flag(fedbench, command, value):
    done = fedbench(command, "fedavg", f"--checkpoint-minutes={value}")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(
        "Error: Invalid value for '--checkpoint-minutes': "
    )
    assert os.listdir() == []
