"""A tiny data set and model under their own names: real rounds in milliseconds.

Test modules reach it all through fixtures (`--import-mode=importlib` makes no module importable):
``tiny_config(registry, method, ...)`` resolves a config, ``run_tiny(method, ...)`` runs it, and
``add(name=PluginClass)`` registers a test's own plugins first.
"""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes share the cores; torch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

from fedbench.config import resolve as configs
from fedbench.config.model import RunConfig
from fedbench.engine.run import Run
from fedbench.executors.pool import PoolWorkers
from fedbench.hookspecs import hookimpl
from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import Registry
from fedbench.plugins.replacing import replacements
from fedbench.testing import TinyData, TinyModel

# The same examples on every machine; a busy one is slow now and then.
settings.register_profile("fedbench", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fedbench")

# Tables off a terminal are 120 wide, unless this says otherwise; test runners set it.
os.environ.pop("COLUMNS", None)


@hookimpl
def register_datasets() -> Mapping[str, type]:
    return {"tiny": TinyData}


@hookimpl
def register_models() -> Mapping[str, type]:
    return {"tiny_model": TinyModel}


TINY = SimpleNamespace(register_datasets=register_datasets, register_models=register_models)

PIECES: dict[str, Any] = {
    "domains": {"clients_per_domain": 2},
    "normalize": {},
    "uniform": {},
    "sgd": {"epochs": 1, "batch_size": 8, "lr": 0.05},
}
"""The plugins of a run besides the method's own."""


FEW = frozenset({"fedavg", "fedhpro", "fedproto-aaai"})
"""Methods that stand for all in slow tests: weights, prototypes and server state, own models."""


@cache
def methods() -> tuple[dict[str, Any], frozenset[str]]:
    """Return the plugins of each method, and the methods that stand for all."""
    found = discover()
    plugins = {entry.name: entry.value.plugins for entry in found.all("recipe")}
    first = {entries[0].name for entries in found.families().values()}
    return plugins, frozenset(first | {n for n, p in plugins.items() if "hyper_prototypes" in p})


TOGETHER = (
    "tests/executors/test_ray.py",
    "tests/interface/",
    "tests/report/",
    "tests/study/test_compare.py",
)
"""Where tests share a cluster or slow fixtures: one process runs them, and makes each once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give tests out one by one, but those of a place of `TOGETHER` all to one process.

    The groups of xdist 3.8 (``--dist=loadgroup``) have no effect with pytest 9.2: they are written
    to an attribute of the tests that pytest no longer reads.
    """
    if config.getvalue("dist") != "load":
        return None  # somebody asks for another way

    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)

    return Together(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that is marked ``every_method`` the names of all methods but some.

    Without ``-m long`` it takes one of each family, and those with FedHPro's hyper-prototypes. A
    slow test (``slow=True``) takes a few of these, and the others with ``-m long``.
    """
    if mark := metafunc.definition.get_closest_marker("every_method"):
        plugins, chosen = methods()
        taken, but = plugins.keys(), set(mark.kwargs.get("but", ()))
        if mark.kwargs.get("slow"):
            taken, chosen = chosen | FEW, FEW
        names = sorted(taken - but)
        marks = {name: [] if name in chosen else [pytest.mark.long] for name in names}
        metafunc.parametrize("method", [pytest.param(n, marks=marks[n], id=n) for n in names])


@pytest.fixture(scope="session")
def installed() -> Registry:
    """Return the registry of what is installed, plus the tiny data set and model."""
    registry = discover()
    assert not registry.failures
    registry.add(TINY, "tests")
    return registry


@pytest.fixture
def registry(installed: Registry) -> Registry:
    """Return a copy to which a test may add plugins."""
    return Registry({k: list(v) for k, v in installed.entries.items()}, dict(installed.failures))


def given_way(registry: Registry, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pieces without those whose single hooks the named plugins implement."""
    added, below = (
        {name: registry.get("plugin", name).value for name in names} for names in (named, PIECES)
    )
    replaced = {one.old for one in replacements(added, below)}
    return {name: options for name, options in PIECES.items() if name not in replaced}


def make_config(
    registry: Registry,
    method: str = "fedavg",
    *,
    rounds: int = 2,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    **given: Any,
) -> RunConfig:
    """Resolve ``method`` on the tiny data set, in this process.

    ``extra`` plugins come last or change the options of those there are; ``without`` leaves out.
    """
    own = registry.get("recipe", method).value.plugins
    plugins: dict[str, dict[str, Any]] = {}
    for layer in (given_way(registry, own), own, extra or {}):
        for name, options in layer.items():
            plugins[name] = {**plugins.get(name, {}), **options}
    plugins = {name: options for name, options in plugins.items() if name not in without}
    data = {
        "method": method,
        "data": "tiny",
        # No epsilon can be claimed for a model with batch norm.
        "model": {"name": "tiny_model", "norm": "none"} if "dp" in plugins else "tiny_model",
        "rounds": rounds,
        "seed": seed,
        "executor": "inline",
        "plugins": plugins,
        **given,
    }
    return configs.resolve(registry, file=configs.Document(data, "test"))


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., RunConfig]:
    """Return `make_config`, for test modules."""
    return make_config


@pytest.fixture
def add(registry: Registry) -> Callable[..., None]:
    """Register run plugins in ``registry`` under the given names: ``add(spy=Spy)``."""

    def register(**plugins: type) -> None:
        def register_plugins() -> Mapping[str, type]:
            return plugins

        module = SimpleNamespace(register_plugins=hookimpl(register_plugins))
        registry.add(module, "tests")

    return register


@pytest.fixture
def install(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Install a package, as pip would, into a folder on the path: ``install("name", "source")``.

    Returns the folder. ``entry`` is what the entry point names, by default the module.
    """
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def write(package: str, source: str, version: str = "1.0", entry: str | None = None) -> Path:
        module = package.replace("-", "_")
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[fedbench]\n{package} = {entry or module}\n")
        importlib.invalidate_caches()
        return folder

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def run_tiny(registry: Registry) -> Callable[..., Run]:
    """Return a function that runs a method on the tiny data set; arguments as in `make_config`."""

    def finished(method: str = "fedavg", directory: Path | None = None, **given: Any) -> Run:
        run = Run(make_config(registry, method, **given), directory, registry=registry)
        run.run()
        return run

    return finished


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of all worker processes that a test has started, in order."""
    found: list[int] = []
    start = PoolWorkers._start

    def spy(self: PoolWorkers) -> Any:
        worker = start(self)
        found.append(worker.pid)
        return worker

    monkeypatch.setattr(PoolWorkers, "_start", spy)
    return found
