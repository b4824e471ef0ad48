"""The project's files agree: what one names (tasks, extras, hooks, versions), another has."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = sorted(page for page in ROOT.glob("*.md") if page.name != "CHANGELOG.md")  # history
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^([a-z-]+):[^\n]*\n((?:\t[^\n]*\n)*)", MAKEFILE, re.MULTILINE))
"""Each task's command lines, indented."""


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def loaded(path: str) -> Any:
    return yaml.safe_load(read(path))


def words(text: str) -> list[str]:
    """Return the tasks in the ``make`` command lines of a page or a script."""
    lines = re.findall(r"`make ([^`]+)`|^(?:\w+=\S+ )?make ([^|>&\n]+)", text, re.MULTILINE)
    typed = " ".join(a or b for a, b in lines).split()
    return [word for word in typed if "=" not in word]


@pytest.mark.parametrize(
    "path", [".ci/run", ".github/PULL_REQUEST_TEMPLATE.md", "CONTRIBUTING.md", "RELEASING.md"]
)
def test_every_task_that_a_file_names_exists(path: str) -> None:
    named = words(read(path))
    assert named
    assert set(named) <= set(RECIPES)


def test_every_task_is_listed_and_phony() -> None:
    listed = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert listed == set(RECIPES)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == listed


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_every_script_of_a_task_exists() -> None:
    tasks = sorted(RECIPES)
    done = subprocess.run(
        ["make", "-n", *tasks], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    scripts = re.findall(r"bash \.ci/(\w+)", done.stdout)
    assert set(scripts) == {"run", "smoke", "third_party"}
    helpers = [h for script in scripts for h in re.findall(r"(\w+\.py)\"? ", read(f".ci/{script}"))]
    assert helpers
    for file in (*scripts, *helpers):
        assert (ROOT / ".ci" / file).is_file(), file


def test_install_names_every_extra() -> None:
    """CI must not skip a test for a missing package, and pip only warns of an unknown extra."""
    extras = set(PROJECT["optional-dependencies"])
    (named,) = re.findall(r"'\.\[(.*)\]'", RECIPES["install"])
    assert set(named.split(",")) == extras - {"test"}
    assert "fedbench-toolkit[test]" in PROJECT["optional-dependencies"]["dev"]


def test_hooks_before_a_commit_run_what_the_tasks_run() -> None:
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    checks = (RECIPES["lint"] + RECIPES["types"]).splitlines()
    commands = {line.strip() for line in checks if "echo" not in line}
    found = set()
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        files = "" if hook.get("pass_filenames") is False else " ."
        found.add(hook["entry"].removesuffix(" --force-exclude") + files)
    assert found == commands


def test_one_version() -> None:
    (heading, *_) = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert loaded("CITATION.cff")["version"] == heading == PROJECT["version"]


def test_the_citation_says_what_the_package_says() -> None:
    citation = loaded("CITATION.cff")
    assert citation["license"] == PROJECT["license"]
    assert citation["abstract"] == PROJECT["description"]
    assert citation["keywords"] == PROJECT["keywords"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_ask_for_each_thing_once(path: Path) -> None:
    form = loaded(str(path))
    assert {"name", "description", "body"} <= set(form)
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    for values in ([part["id"] for part in asked], [part["attributes"]["label"] for part in asked]):
        assert len(set(values)) == len(values) > 0
    text = read(str(path))
    for file in re.findall(r"\b(?:fedbench/[\w/]+\.py|[A-Z]+\.md)\b", text):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_in_a_command_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        for place in re.findall(r"(?:fedbench|tests|datasets|plugins|\.ci)/[\w/.]+", block):
            assert (ROOT / place).exists(), place
    for place in re.findall(r"`((?:fedbench|tests|plugins|docs|\.ci)/[\w/.-]+)`", text):
        assert (ROOT / place).exists(), place
