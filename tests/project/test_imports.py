"""Modules form layers: a module imports only from lower layers, and no imports are circular.

The layers are those of docs/architecture.md. Imports inside functions count. Imports that are only
for type checkers never run and may point upwards, but must not be circular within a subpackage.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import fedbench

ROOT = Path(fedbench.__file__).parent

LAYERS = (
    ("cli",),
    ("interface",),
    ("report", "testing"),
    ("study",),
    ("engine",),
    ("executors",),
    ("runtime",),
    ("loading",),
    ("splits", "store"),
    ("config",),
    ("plugins", "codec"),
    ("hookspecs",),
    ("context",),
    ("contracts",),
    (
        *("client_state", "failures", "loss_terms", "model"),
        *("pipeline", "server_context", "training", "travel"),
    ),
    ("console", "types"),
    ("anchors", "turns"),
    ("ambient", "values", "device", "options", "pictures", "random", "scores", "watching"),
    ("errors", "text"),
)
"""From the top down. Modules of one layer do not import each other; files of a subpackage may."""

LAYER = {place: -number for number, places in enumerate(LAYERS) for place in places}


def name_of(file: Path) -> str:
    """Return a file's module below ``fedbench``: ``engine.run``, ``engine``, ``types``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    name_of(file): file
    for file in sorted(ROOT.rglob("*.py"))
    if not {"templates", "examples"} & set(file.parts)
}


def imported(tree: ast.AST, package: str, types: bool = False) -> Iterator[str]:
    """Yield the modules of fedbench that code imports when it runs; with ``types`` all."""
    for node in ast.iter_child_nodes(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (n.removeprefix("fedbench.") for n in names if n.startswith("fedbench."))
        elif isinstance(node, ast.ImportFrom) and node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(filter(None, (*above, node.module)))
            found = [f"{base}.{a.name}".strip(".") for a in node.names]
            yield from (name if name in FILES else base for name in found)
        yield from imported(node, package, types)


@cache
def arrows(types: bool = False) -> dict[str, set[str]]:
    """Return module -> the modules that it imports; with ``types`` also for type checkers."""
    found = {}
    for name, file in FILES.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        tree = ast.parse(file.read_text("utf-8"))
        found[name] = set(imported(tree, package, types)) - {"", name}
    return found


ARROWS = arrows()


def test_every_module_has_a_layer() -> None:
    homes = {name.split(".")[0] for name in FILES} - {"", "__main__"}
    assert homes == set(LAYER)


@pytest.mark.parametrize("name", [n for n in FILES if n not in ("", "__main__")])
def test_imports_point_downwards(name: str) -> None:
    here = name.split(".")[0]
    for target in ARROWS[name]:
        there = target.split(".")[0]
        assert there == here or LAYER[there] < LAYER[here], f"{name} imports {target}"


def in_circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """Return the modules that import each other, and those that import them."""
    left = dict(arrows)
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_circular_imports() -> None:
    assert in_circles(ARROWS) == []


@pytest.mark.parametrize("package", sorted({name.split(".")[0] for name in FILES if "." in name}))
def test_no_circular_imports_within_a_subpackage_even_for_type_checkers(package: str) -> None:
    inside = {name: found for name, found in arrows(True).items() if name.split(".")[0] == package}
    assert in_circles(inside) == []


def test_the_check_itself_sees_relative_absolute_and_inner_imports() -> None:
    code = """
from . import digests
from ..types import Value
from .. import options
import fedbench.errors
if TYPE_CHECKING:
    from ..cli import main
def f():
    from ..engine.run import Run
"""
    tree = ast.parse(code)
    found = {"store.digests", "types", "options", "errors", "engine.run"}
    assert set(imported(tree, "store")) == found
    assert set(imported(tree, "store", types=True)) == {*found, "cli"}


def test_the_architecture_page_has_the_layers_in_this_order() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", page, re.MULTILINE)
    shown: dict[int, set[str]] = {}
    for layer, modules in rows:
        shown.setdefault(int(layer), set()).update(re.findall(r"`([a-z_]+)/?`", modules))
    assert shown == {len(LAYERS) - 1 - n: set(places) for n, places in enumerate(LAYERS)}
