"""`fedbench new`: what it writes keeps every rule and runs, as it is. CI installs it besides."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fedbench.cli.new import KINDS, check_new_name
from fedbench.plugins.discovery import discover

NAMES = {kind: f"my-{kind}" for kind in KINDS}


@pytest.fixture
def written(fedbench, install, tmp_path) -> Path:
    """A package of each kind in ``tmp_path``, its module importable as if it were installed."""
    for kind, name in NAMES.items():
        module = f"fedbench_my_{kind}"
        done = fedbench("new", name, *(("--kind", kind) if kind != "method" else ()))
        assert done.exit_code == 0, done.output
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == sorted(
            ("README.md", f"{module}.py", "pyproject.toml", f"test_{module}.py")
        )
        site = install(module, (tmp_path / name / f"{module}.py").read_text())
    return site


@pytest.mark.long
def test_every_kind_passes_its_tests_and_runs_by_its_readme(written, fedbench, tmp_path):
    registry = discover()
    assert not registry.failures
    path = os.pathsep.join([str(written), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *NAMES.values()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[3-9]\d passed", done.stdout, re.MULTILINE), done.stdout
    small = ["--rounds", "1", "--set", "sgd.epochs=1", "--json"]
    for kind, name in NAMES.items():
        readme = (tmp_path / name / "README.md").read_text()
        commands = re.findall(r"^fedbench (run .*)$", readme, re.MULTILINE)
        assert len(commands) == 2
        for number, command in enumerate(commands):
            # the method's and the data set's first command alone train; the others resolve
            words = shlex.split(command)
            if number or kind not in ("method", "metric"):
                done = fedbench("config", *words[1:])
                assert done.exit_code == 0, done.output
                assert name in done.stdout
                continue
            done = fedbench(*words, *small, "--set", "domains.examples=20")
            assert done.exit_code == 0, done.output
            result = json.loads(done.stdout)
            assert result["method"] == ("fedavg" if kind == "metric" else name)
            if kind == "metric":
                assert result["accuracy"]["metric"] == name


def test_the_method_is_short_and_says_its_shapes(written, tmp_path):
    text = (tmp_path / "my-method/fedbench_my_method.py").read_text()
    assert len(text.splitlines()) <= 45
    for shape in ("(B, d)", "(B,)", "(d,)", "(n, C)"):
        assert shape in text
    assert "ctx.state[" in text


def test_the_entry_point_and_the_dependency_are_declared(written, tmp_path):
    tomllib = importlib.import_module("tomllib")
    for kind, name in NAMES.items():
        project = tomllib.loads((tmp_path / name / "pyproject.toml").read_text())["project"]
        module = f"fedbench_my_{kind}"
        assert project["name"] == f"fedbench-{name}"
        assert project["entry-points"]["fedbench"] == {f"my_{kind}": module}
        (needed,) = project["dependencies"]
        assert needed.startswith("fedbench-toolkit>=")


def test_it_says_what_to_do_next(fedbench):
    done = fedbench("new", "mine", "--out", "some/where")
    assert done.stdout.splitlines() == [
        "wrote fedbench_mine.py, test_fedbench_mine.py, pyproject.toml, README.md in some/where",
        "next:",
        "  cd some/where",
        "  pip install -e '.[test]'",
        "  pytest",
        "  fedbench run mine --data digits",
    ]
    assert Path("some/where/README.md").is_file()


def test_nothing_is_overwritten(fedbench, tmp_path):
    (tmp_path / "mine").mkdir()
    done = fedbench("new", "mine")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: mine already exists; choose another --out\n",
    )
    assert not list((tmp_path / "mine").iterdir())
    Path("file").write_text("")
    done = fedbench("new", "mine", "--out", "file/mine")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: file/mine cannot be written: Not a directory\n",
    )


RULE = "use at most 40 letters, digits, - and _, with a letter first and a letter or digit last"
NO_NAMES = [
    ("my method", f"'my method' is not a valid name: {RULE}, for example 'my-method'"),
    ("../evil", f"'../evil' is not a valid name: {RULE}, for example 'evil'"),
    ("1st", f"'1st' is not a valid name: {RULE}, for example 'st'"),
    ("a.b", f"'a.b' is not a valid name: {RULE}, for example 'a-b'"),
    ("mine-", f"'mine-' is not a valid name: {RULE}, for example 'mine'"),
    ("é", f"'é' is not a valid name: {RULE}"),
    ("seed", "a plugin cannot be called 'seed': that is a top-level config key"),
    (
        "fedprox",
        "there is already a method 'fedprox', of fedbench-toolkit; choose another name, for "
        "example 'my-fedprox'",
    ),
    (
        "sgd",
        "there is already a plugin 'sgd', of fedbench-toolkit; choose another name, for example "
        "'my-sgd'",
    ),
    (
        "datasets",
        "the module fedbench_datasets is already installed; choose another name, for example "
        "'my-datasets'",
    ),
]


@pytest.mark.parametrize(("name", "text"), NO_NAMES, ids=[n for n, _ in NO_NAMES])
def test_a_name_that_cannot_be_used(fedbench, tmp_path, name, text):
    done = fedbench("new", name)
    assert done.exit_code == 1
    assert done.stderr == f"Error: {text}\n"
    assert not list(tmp_path.iterdir())


def test_a_package_that_would_replace_ours_cannot_be_made(fedbench):
    done = fedbench("new", "toolkit", "--kind", "model")
    assert re.match(r"Error: the package fedbench-toolkit \S+ is already installed; ", done.stderr)


def test_a_name_that_another_kind_has_is_free(installed):
    check_new_name(installed, "model", "fedprox")
