"""The commit in ``environment.json`` is the one git names, but git itself never runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fedbench.store import git
from fedbench.store.environment import environment


def ask(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit on the branch ``main``."""
    folder = tmp_path / "repository"
    folder.mkdir()
    ask(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text("one")
    ask(folder, "add", ".")
    ask(folder, "commit", "-q", "-m", "one")
    return folder


def test_the_commit_is_found_from_a_folder_below(repository: Path) -> None:
    (repository / "a" / "b").mkdir(parents=True)
    assert git.commit(repository / "a" / "b") == ask(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "words",
    [
        ["pack-refs", "--all"],
        ["checkout", "-q", "--detach"],
        ["symbolic-ref", "refs/heads/alias", "refs/heads/main"],
        ["checkout", "-q", "-b", "a/branch"],
    ],
    ids=["packed", "detached", "a ref to a ref", "a branch with a slash"],
)
def test_the_commit_is_found_however_it_is_kept(repository: Path, words: list[str]) -> None:
    ask(repository, *words)
    if "symbolic-ref" in words:
        ask(repository, "symbolic-ref", "HEAD", "refs/heads/alias")
    assert git.commit(repository) == ask(repository, "rev-parse", "HEAD")


def test_a_worktree_has_a_commit_of_its_own(repository: Path) -> None:
    ask(repository, "worktree", "add", "-q", "../tree")
    tree = repository.parent / "tree"
    (tree / "file").write_text("two")
    ask(tree, "commit", "-q", "-a", "-m", "two")
    assert git.commit(tree) == ask(tree, "rev-parse", "HEAD") != git.commit(repository)
    ask(tree, "pack-refs", "--all")
    assert git.commit(tree) == ask(tree, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("HEAD", ""),
        ("HEAD", "ref: refs/heads/missing\n"),
        ("HEAD", "ref: refs/../../../outside\n"),
        ("HEAD", "ref: ../outside\n"),
        ("HEAD", "a secret\n"),
        ("refs/heads/main", "a secret\n"),
        ("refs/heads/main", "ref: refs/heads/main\n"),
        ("refs/heads/main", "\0\xff" * 10_000),
    ],
)
def test_what_is_not_a_commit_is_none(repository: Path, file: str, text: str) -> None:
    (repository.parent / "outside").write_text("1" * 40)
    (repository / ".git" / file).write_bytes(text.encode("latin-1"))
    assert git.commit(repository) is None


def test_a_folder_without_a_repository_has_no_commit(tmp_path: Path) -> None:
    assert git.commit(tmp_path) is None
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert git.commit(tmp_path) is None


def test_a_pipe_is_not_waited_for(repository: Path) -> None:
    (repository / ".git" / "HEAD").unlink()
    os.mkfifo(repository / ".git" / "HEAD")
    assert git.commit(repository) is None


@pytest.mark.parametrize("theirs", [".", ".git"])
def test_a_repository_of_another_user_is_not_read(
    repository: Path, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git.commit(repository) is not None
    stat, foreign = Path.stat, repository / theirs

    def owned(path: Path, **more: bool) -> os.stat_result:
        found = list(stat(path, **more))
        found[4] += path == foreign
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", owned)
    assert git.commit(repository) is None


def test_no_program_of_the_repository_runs_and_nothing_is_written(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = repository.parent / "canary"
    program = repository / "program"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=stranger diff=stranger\n")
    for key in (
        *("core.fsmonitor", "core.sshCommand", "core.pager", "diff.external", "core.editor"),
        *("filter.stranger.clean", "filter.stranger.smudge", "diff.stranger.textconv"),
    ):
        ask(repository, "config", key, str(program))
    (repository / "file").write_text("two")  # git would run the filter to see whether it differs
    files = sorted(p for p in (repository / ".git").rglob("*"))
    before = [(p, p.stat().st_mtime_ns) for p in files]
    monkeypatch.chdir(repository)
    found = environment("cpu").git
    assert found is not None
    assert (repository / ".git" / "refs/heads/main").read_text().strip() == found.commit
    assert not canary.exists()
    assert [(p, p.stat().st_mtime_ns) for p in sorted((repository / ".git").rglob("*"))] == before
