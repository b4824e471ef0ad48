"""Files stay at 400 lines and functions of the packages at 55, so each can be read in one go.

A longer file states its reason in its docstring, in a sentence with the words "400 lines".
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("fedbench", "plugins", "datasets")
FILE, FUNCTION = 400, 55
"""The most lines, docstrings and comments included."""

OWN = sorted(
    file
    for top in (*PACKAGES, "tests", "benchmarks", "docs", ".ci")
    for file in (ROOT / top).rglob("*.py")
    if not {"build", "_build"} & set(file.relative_to(ROOT).parts)
)


def too_long(source: str) -> bool:
    """Return whether a module is too long without saying why."""
    reason = ast.get_docstring(ast.parse(source)) or ""
    return len(source.splitlines()) > FILE and "400 lines" not in " ".join(reason.split())


def long_functions(source: str) -> Iterator[str]:
    """Yield the functions with too many lines, as ``name (lines)``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION:
                yield f"{node.name} ({lines})"


def test_no_file_is_long_without_a_reason() -> None:
    assert len(OWN) > 100
    assert [str(file) for file in OWN if too_long(file.read_text("utf-8"))] == []


def test_no_function_of_the_packages_is_long() -> None:
    packages = [file for file in OWN if file.relative_to(ROOT).parts[0] in PACKAGES]
    found = {str(file): list(long_functions(file.read_text("utf-8"))) for file in packages}
    assert {file: names for file, names in found.items() if names} == {}


def test_the_check_itself_finds_long_files_and_functions() -> None:
    body = "x = 1\n" * FILE
    assert not too_long(body)
    assert too_long(body + "x = 2\n")
    assert too_long(f'"""A module."""\n{body}')
    assert not too_long(f'"""A module.\n\nIt has over 400\nlines, because it must."""\n{body}')
    short = "def short():\n" + "    x = 1\n" * (FUNCTION - 1)
    long = "class A:\n    async def long(self):\n" + "        x = 1\n" * FUNCTION
    assert list(long_functions(short + long)) == [f"long ({FUNCTION + 1})"]
