"""The Markdown pages, their fenced blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from fedbench.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "datasets/README.md"])
PAGES = [page for page in PAGES if page.parent != ROOT / "docs" / "reference"]
PAGES.remove(ROOT / "CHANGELOG.md")  # it may name what is no longer there
FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: ``language`` and ``file`` are the words behind the fence."""

    language: str
    file: str
    text: str


def blocks(text: str) -> list[Block]:
    found = []
    for _, info, body in FENCE.findall(text):
        language, _, file = info.strip().partition(" ")
        found.append(Block(language, file, body))
    return found


def typed(block: Block) -> Iterator[list[str]]:
    """Yield the words of every ``fedbench`` command in a block of shell lines."""
    if block.language not in ("", "sh", "console", "shell", "bash"):
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        try:
            words = [*lexer, "&&"]
        except ValueError:  # no shell line, such as a traceback with one quote
            continue
        for word in words:
            if word in ("&&", "|", ">", ";", "&"):
                if command and command[0] == "fedbench" and len(command) > 1:
                    yield command
                command = []
            else:
                command.append(word)


def parse(words: list[str]) -> tuple[click.Context, click.Command]:
    """Parse a command line as click would, without running it; raise what click raises."""
    command: click.Command = main
    ctx = main.make_context("fedbench", words[1:])
    while isinstance(command, click.Group):
        rest = [*ctx._protected_args, *ctx.args]
        if not rest:
            return ctx, command
        name, found, rest = command.resolve_command(ctx, rest)
        assert name is not None
        assert found is not None
        ctx = found.make_context(name, rest, parent=ctx)
        command = found
    return ctx, command


@pytest.fixture(scope="session")
def site() -> Any:
    """The pages, and what reads them."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    import reference

    return SimpleNamespace(
        root=ROOT, Block=Block, blocks=blocks, typed=typed, parse=parse, reference=reference
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that take a ``page`` every page in turn."""
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
