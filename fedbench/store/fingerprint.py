"""Fingerprints of what a result depends on besides its config: code, versions, arithmetic, data.

A fingerprint maps each of these to a text that changes whenever it does. It is kept with a run. If
a result would differ today, a finished run is not reused and an unfinished one is not resumed.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor
from xxhash import xxh3_64

from ..ambient import SWITCHES
from ..config.layers import CHOICES
from ..config.model import RunConfig
from ..plugins.facts import ModelFacts, PluginFacts, facts
from ..plugins.memory import source_of
from ..plugins.registry import Entry, Registry
from ..plugins.rules import FILES
from ..values import checksum
from .environment import version, versions

if TYPE_CHECKING:
    from ..types import Dataset
    from .contents import Environment

Fingerprint = Mapping[str, str]
"""Name of a dependency -> a text that changes with it."""

DIGEST = re.compile(r",? ?xxh3:[0-9a-f]+")
"""Matches a digest, which is left out of what a reader sees."""

DATA, PARTITION, CORE = "data", "partition", "fedbench's own code"
UNUSED_BY_RUNS = ("cli", "interface", "report", "study", "testing")
"""Packages of core that do not affect a run's numbers."""

VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OPENBLAS_CORETYPE"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "CUBLAS_WORKSPACE_CONFIG"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Environment variables that decide how libraries compute."""


def of_run(registry: Registry, config: RunConfig) -> dict[str, str]:
    """Return the fingerprint without the data: core, the config's code, versions, arithmetic."""
    return {**_code(registry, config), **versions(), **_arithmetic(config.device)}


def kept(environment: Environment) -> dict[str, str]:
    """Return the fingerprint kept in a run directory's environment."""
    return {**environment.depends, **environment.versions}


def of_data(data: Dataset) -> str:
    """Return a digest of the names and every byte of a loaded data set."""
    names = (data.classes, data.domains, *filter(None, (data.clients, tuple(data.extra))))
    digest = xxh3_64(repr(names).encode())
    for examples in (data.train, data.test, *data.extra.values()):
        for tensor in (examples.inputs, examples.labels, examples.domains, examples.clients):
            if tensor is not None:
                digest.update(checksum(tensor).encode())
    return f"xxh3:{digest.hexdigest()}"


def of_partition(parts: Sequence[Tensor]) -> str:
    """Return a digest of the examples that each client holds."""
    return f"xxh3:{xxh3_64(''.join(map(checksum, parts)).encode()).hexdigest()}"


def changes(then: Fingerprint, now: Fingerprint) -> list[str]:
    """Return one line per difference: ``torch: 2.9.0 then, 2.9.1 now``, ``data: changed``.

    What only one of the two records is left out.
    """
    found = []
    for name, old in then.items():
        new = now.get(name, old)
        if old != new:
            before, after = (DIGEST.sub("", text) for text in (old, new))
            what = "changed" if before == after else f"{before} then, {after} now"
            found.append(f"{name}: {what}")
    return found


def of_code(registry: Registry) -> dict[str, str]:
    """Return a digest of core, and one of the code of each class that packages register.

    They are computed once in a process, so those that are forked from it afterwards have them.
    """
    tops = _tops(registry)
    modules = {entry.value.__module__ for entry in _classes(registry)}
    return {CORE: _core(), **{name: _source(name, tops) for name in sorted(modules)}}


def _tops(registry: Registry) -> frozenset[str]:
    """Return the top-level names of the packages that register anything, without core's."""
    found = {entry.value.__module__.split(".")[0] for entry in _classes(registry)}
    return frozenset(found - {"fedbench"})


def _code(registry: Registry, config: RunConfig) -> dict[str, str]:
    """Return a digest of core, and the package and source of everything that the config names."""
    tops = _tops(registry)
    named = [(kind, str(getattr(config, key)["name"])) for key, kind in CHOICES.items()]
    named += [("plugin", name) for name in config.plugins]
    named += [("metric", name) for name in config.metrics]
    found = {CORE: _core()}
    for kind, name in named:
        if kind == "executor":  # every executor computes the same bits
            continue
        entry = registry.get(kind, name)
        if entry.in_memory:
            source = f", xxh3:{xxh3_64(source_of(entry.value).encode()).hexdigest()}"
        else:
            source = _source(entry.value.__module__, tops)
        found[f"{kind} {name}"] = f"{entry.package} {entry.version}".strip() + source
        if kind == "model":
            found |= {name: version(name) for name in facts(ModelFacts, entry.value).packages}
        if kind == "plugin":
            found |= _files(name, entry.value, config.plugins[name])
    return found


def _files(name: str, cls: type, options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield ``plugin.option`` and a digest of each file that a plugin's options name."""
    for key in facts(PluginFacts, cls).files:
        if file := options.get(key, getattr(cls, key, "")):
            yield f"{name}.{key}", _digest([Path(str(file)).expanduser()])


def _classes(registry: Registry) -> Iterator[Entry]:
    for (kind, _), entries in registry.entries.items():
        if kind not in ("recipe", *FILES):
            yield from entries


@lru_cache(1)
def _core() -> str:
    root = Path(__file__).parents[1]
    files = sorted(root.rglob("*.py"))
    return _digest((f for f in files if f.relative_to(root).parts[0] not in UNUSED_BY_RUNS), root)


@lru_cache(1000)
def _source(module: str, tops: frozenset[str]) -> str:
    """Return a digest of the source of a module and of what it imports from plugin packages.

    Args:
        module: its name.
        tops: the top-level names of the packages that register anything. Imports are followed into
            these, and into modules in the same folder as the first one.
    """
    start = sys.modules.get(module)
    if start is None or not getattr(start, "__file__", None):
        return ", unknown source"
    files: dict[str, Path] = {}
    waiting = [module]
    beside = _beside(start)
    while waiting:
        name = waiting.pop()
        file = None if name in files else _file_of(name, beside)
        if file is None:
            continue
        top = name.split(".")[0]
        if top not in tops and top != module.split(".")[0] and file.parent != beside:
            continue
        files[name] = file
        waiting += _imports(name, file)
    return ", " + _digest([files[name] for name in sorted(files)])


def _beside(module: ModuleType) -> Path | None:
    """Return the folder of a module outside any package; ``None`` for all other modules."""
    file = Path(str(module.__file__))
    lone = "." not in module.__name__ and not hasattr(module, "__path__")
    shared = {"site-packages", "dist-packages"} & set(file.parts)
    return file.parent if lone and not shared else None


def _file_of(name: str, beside: Path | None) -> Path | None:
    """Return a module's file, also if nothing has imported it yet; ``None`` for what has none.

    Args:
        name: of the module, or of anything else that a package has.
        beside: a folder of modules outside any package.
    """
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if file else None
    above = name.rpartition(".")[0]
    places = getattr(sys.modules.get(above), "__path__", ()) if above else [str(beside or "")]
    spec = PathFinder.find_spec(name, [*places]) if any(places) else None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _imports(module: str, file: Path) -> Iterator[str]:
    """Yield the names of what may be modules that a module imports, with or without ``from``."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for level, named, names in _statements(file):
        above = package.split(".")[: len(package.split(".")) - level + 1]
        base = ".".join(filter(None, (*(above if level else ()), named)))
        if not (level or named):  # import a, b
            yield from names
            continue
        whole = [f"{base}.{name}" for name in names]
        yield from whole
        if any(name not in sys.modules for name in whole):
            yield base


@lru_cache(1000)
def _statements(file: Path) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """Return the imports of a file: dots, the module after ``from``, the names; in its order.

    A file is read once, although many modules import it.
    """
    if file.suffix != ".py":
        return ()
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.append((0, "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append((node.level, node.module or "", names))
    return tuple(found)


def _digest(files: Iterable[Path], root: Path | None = None) -> str:
    digest = xxh3_64()
    for file in files:
        digest.update((str(file.relative_to(root)) if root else file.name).encode())
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            digest.update(repr(error.errno).encode())
    return f"xxh3:{digest.hexdigest()}"


def _arithmetic(device: str) -> dict[str, str]:
    """Return what decides how numbers are rounded: processor, switches, environment variables."""
    import torch

    return {
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "switches": ", ".join(f"{switch.name} {switch.wanted}" for switch in SWITCHES),
        **{f"${name}": os.environ.get(name, "(not set)") for name in VARIABLES},
    }
