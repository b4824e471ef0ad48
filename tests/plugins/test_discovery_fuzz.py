"""Malformed packages never make discovery fail, and a good package beside them still works.

Each example is a folder with a good package and up to three bad ones. Their modules are assembled
from pieces: what can be wrong with a hook's result, a name, a class, a module or an import.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.plugins.discovery import discover, sources
from fedbench.plugins.registry import KINDS
from fedbench.plugins.rules import RUN_HOOKS
from fedbench.text import printable

HEAD = """
import abc, dataclasses, functools, sys
from dataclasses import dataclass
from fedbench import Recipe, hookimpl

class Angry:
    def __getattr__(self, name): raise RuntimeError("angry " + name)
    def __repr__(self): raise RuntimeError("angry repr")

class AngryType(type):
    def __getattr__(cls, name): raise RuntimeError("angry type")
    def __repr__(cls): raise RuntimeError("angry repr")

class AngryMapping(dict):
    def items(self): raise RuntimeError("angry\\nmapping")

@dataclass(frozen=True, eq=False)
class Good:
    '''Observes.'''
    size: int = 1
    @hookimpl
    def round_end(self, result): ...
    def load(self, root): ...
    def build(self, input_shape, num_classes): ...
    def open(self, runtime): ...
    def __call__(self, scores, labels): ...
"""

NAMES = st.one_of(
    st.text(max_size=12).map(repr),
    st.sampled_from(
        [
            "3",
            "None",
            "b'x'",
            "('a',)",
            "Angry()",
            "'seed'",
            "'../x'",
            "'a/b'",
            "'a\\x00b'",
            "'.'",
            "'CON'",
            "'x' * 1000",
            "'a.yaml'",
            "'sgd'",
            "'fedavg'",
            "'\\u202e'",
            "float('nan')",
        ]
    ),
)

CLASSES = st.one_of(
    st.sampled_from(
        [
            "Good",
            "Good()",
            "None",
            "3",
            "int",
            "type",
            "object",
            "Angry()",
            "Recipe",
            "sys",
            "abc",
            "AngryType('X', (), {})",
            "dataclass(AngryType('X', (), {}))",
            "Recipe({}, '', '')",
            "Recipe(None, None, None)",
            "Recipe({'sgd': 1}, '', '')",
            "Recipe({3: {}}, '', '')",
            "Recipe(AngryMapping(a={}), '', '')",
            "functools.partial(Good)",
            "lambda: 0",
            "dataclass(type('Plain', (), {}))",
            "dataclass(frozen=True)(type('Y', (), {}))",
        ]
    ),
    # A dataclass with one method of any name, marker and arguments, and one field of any type.
    st.builds(
        "dataclasses.make_dataclass('Made', [({field!r}, {hint}, {default})], frozen=True, "
        "eq=False, namespace={{{method!r}: hookimpl({marker})(lambda {arguments}: None), "
        "'requires': {requires}}})".format,
        field=st.sampled_from(["size", "requires", "round_end", "__init__", "about"]),
        hint=st.sampled_from(["int", "'Nowhere'", "3", "Angry", "Angry()", "object", "'[ '"]),
        default=st.sampled_from(["1", "'text'", "None", "Angry()", "dataclasses.field()"]),
        method=st.sampled_from([*RUN_HOOKS, "round_ends", "__call__", "build"]),
        marker=st.sampled_from(
            [
                "",
                "wrapper=True",
                "tryfirst=True",
                "trylast=True",
                "optionalhook=True",
                "hookwrapper=True",
                "specname='aggregate'",
                "specname='nothing'",
            ]
        ),
        arguments=st.sampled_from(
            ["", "self", "self, ctx", "self, *a", "self, **k", "self, x=1", "self, result", "me, q"]
        ),
        requires=st.sampled_from(["()", "'sgd'", "3", "(3,)", "Angry()", "AngryMapping()"]),
    ),
)

RESULTS = st.one_of(
    st.sampled_from(
        [
            "None",
            "3",
            "[]",
            "['a']",
            "'text'",
            "Angry()",
            "AngryMapping(x=Good)",
            "iter(())",
            "1 / 0",
            "sys.exit('out')",
            "[][0]",
            "dict(a=Good).items()",
            "Good",
            "sys.modules",
        ]
    ),
    st.dictionaries(NAMES, CLASSES, max_size=3).map(
        lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"
    ),
)

HOOKS = st.builds(
    "@hookimpl{marker}\ndef {hook}({arguments}):\n    return {result}\n".format,
    marker=st.sampled_from(
        ["", "", "", "(specname='register_models')", "(wrapper=True)", "(optionalhook=True)"]
    ),
    hook=st.sampled_from([*KINDS.values(), *KINDS.values(), "register_nothing", "__getattr__"]),
    arguments=st.sampled_from(["", "", "", "x", "self", "x=1", "*x"]),
    result=RESULTS,
)

MISHAPS = st.sampled_from(
    [
        "raise SystemExit",
        "raise BaseException('base')",
        "raise GeneratorExit",
        "1 / 0",
        "def f(:",
        "import no_such_module",
        "from fedbench import nothing",
        "raise ExceptionGroup('g', [OSError()])",
        "def f(): f()\nf()",
        "\x00",
        "raise type('E', (Exception,), {'__str__': lambda s: 3})",
        "def __getattr__(name): raise RuntimeError(name)",
        "def __dir__(): return [1, None]",
        "sys.modules[__name__] = Angry()",
        "sys.modules[__name__] = None",
        "del sys.modules[__name__]",
        "raise ValueError('two\\nlines\\r\\x1b[2J')",
        "__path__ = 3",
        "register_plugins = hookimpl",
        "register_models = functools.partial(dict)",
        "register_cards = Angry()",
    ]
)

API = st.sampled_from(
    ["fedbench_api = 1"] * 6
    + ["", "fedbench_api = 2", "fedbench_api = Angry()", "fedbench_api = []"]
)

MODULES = st.builds(
    lambda api, pieces: "\n".join([HEAD, api, *pieces]),
    API,
    st.lists(st.one_of(HOOKS, HOOKS, MISHAPS), max_size=3),
)

ENTRIES = st.one_of(
    st.sampled_from(
        ["{module}"] * 8 + ["{module}:Good", "{module}:gone", "{module}.x", "?", ":", ""]
    ),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
)

GOOD = """
@hookimpl
def register_plugins():
    return {"good_one": Good}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("fuzz")
    sys.path.insert(0, str(path))
    yield path
    sys.path.remove(str(path))


def put(folder: Path, package: str, source: str, entry: str) -> None:
    (folder / f"{package}.py").write_text(source, encoding="utf-8", errors="replace")
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    text = f"[fedbench]\n{package} = {entry}\n"
    (info / "entry_points.txt").write_text(text, encoding="utf-8")


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(packages=st.lists(st.tuples(MODULES, ENTRIES), min_size=1, max_size=3))
def test_a_malformed_package_does_not_affect_others(folder, installed, packages):
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    names = [f"fuzzed{number}" for number in range(len(packages))]
    for name, (source, entry) in zip(names, packages, strict=True):
        put(folder, name, source, entry.format(module=name) if "{module}" in entry else entry)
    put(folder, "honest", f"fedbench_api = 1\n{HEAD}{GOOD}", "honest")
    for name in (*names, "honest"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()

    listed = [s.file for s in sources()]
    assert str(folder / "honest.py") in listed
    registry = discover()

    assert registry.get("plugin", "good_one").package == "honest"
    for why in registry.failures.values():
        assert why
        assert printable(why) == why
        assert len(why) < 700
    for kind in KINDS:
        ours = {e.name for e in registry.all(kind) if e.package == "fedbench-toolkit"}
        assert ours == {e.name for e in installed.all(kind) if e.package == "fedbench-toolkit"}
        for entry in registry.all(kind):
            assert "\n" not in entry.about
            assert set(entry.hooks) <= set(RUN_HOOKS)


def test_the_pieces_make_packages_that_load_and_ones_that_do_not(folder):
    """The fuzz test would show nothing if all packages failed for the same reason."""
    for name, hook in (("fuzzed0", "register_models"), ("fuzzed1", "register_nothing")):
        source = f"{HEAD}\nfedbench_api = 1\n@hookimpl\ndef {hook}():\n    return {{'net': Good}}\n"
        shutil.rmtree(folder / f"{name}-1.0.dist-info", ignore_errors=True)
        put(folder, name, source, name)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    registry = discover()
    assert registry.get("model", "net").package == "fuzzed0"
    assert "fuzzed1 (fuzzed1)" in registry.failures
