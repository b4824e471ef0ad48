"""Nothing that watches a run patches it: profiling and the kit use `fedbench.watching`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedbench

ROOT = Path(fedbench.__file__).parent
WATCHING = [
    ROOT / "watching.py",
    ROOT / "engine" / "profiling.py",
    *(ROOT / "testing").glob("*.py"),
]
HOOKS = "register_optimizer_step_"
"""How the names of torch's hooks on every optimiser of the process begin."""


def patches(code: str) -> Iterator[str]:
    """Yield code that replaces an attribute of a foreign object or puts a hook on all of torch."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "setattr",
            "object.__setattr__",
        ):
            yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if node.attr == "function":  # pluggy's
                yield ast.unparse(node)
        elif isinstance(node, ast.alias) and node.name.startswith(HOOKS):
            yield node.name


@pytest.mark.parametrize("file", WATCHING, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_what_watches_a_run_patches_nothing(file: Path) -> None:
    assert list(patches(file.read_text("utf-8"))) == []


def test_the_check_itself_sees_patches() -> None:
    code = """
from torch.optim.optimizer import register_optimizer_step_pre_hook
setattr(owner, name, new)
implementation.function = timed
"""
    assert sorted(patches(code)) == [
        "implementation.function",
        "register_optimizer_step_pre_hook",
        "setattr(owner, name, new)",
    ]
