"""Discovery: find the installed packages that provide plugins and load them.

Packages are found through entry points of the group ``fedbench`` and loaded one by one. A package
that fails to load does not affect the others: the error is kept, and it is reported only when a run
needs something that no loaded package provides. The module that an entry point names states which
hook API it was written for, ``fedbench_api = 1``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata

from ..errors import ConfigError, did_you_mean
from ..text import printable, summary
from .registry import BUNDLED, GROUP, LIMIT, Registry


@dataclass(frozen=True)
class Source:
    """Code that discovery would import: one entry point of one installed distribution.

    Args:
        package: the distribution's name.
        version: the distribution's version.
        value: what the entry point names, ``module`` or ``module:object``.
        point: the entry point; ``None`` when the distribution's list of them cannot be read.
        loads: whether it is loaded; ``FEDBENCH_PLUGINS`` may exclude it.
        problem: why it cannot be read.
    """

    package: str
    version: str
    value: str
    point: metadata.EntryPoint | None
    loads: bool = True
    problem: str = ""

    @property
    def label(self) -> str:
        """The package and the module that is loaded from it, for messages."""
        return f"{self.package} ({self.value})"

    @property
    def file(self) -> str:
        """The path of the module's code, found without importing it; empty when not found."""
        path, origin = None, ""
        parts = self.value.partition(":")[0].strip().split(".")
        for end in range(1, len(parts) + 1):
            if end > 1 and path is None:  # the parent of the module is not a package
                return ""
            try:
                tried = (f.find_spec(".".join(parts[:end]), path) for f in sys.meta_path)
                spec = next((s for s in tried if s), None)
            except Exception:  # a name or a folder in which nothing can be looked up
                return ""
            if spec is None:
                return ""
            path, origin = spec.submodule_search_locations, spec.origin or ""
        return origin


def sources() -> list[Source]:
    """Return what discovery would import, without importing any of it.

    Raises:
        ConfigError: when ``FEDBENCH_PLUGINS`` names a package that is not installed.
    """
    found: dict[tuple[str, str], Source] = {}
    homes: dict[str, metadata.Distribution] = {}
    for dist in metadata.distributions():
        try:
            points = [p for p in dist.entry_points if p.group == GROUP]
            if not points:
                continue
            package, version = _shown(dist.name), _shown(dist.version)
        except Exception as error:  # a damaged installation must not break the others
            where = _shown(os.path.basename(str(getattr(dist, "_path", dist))))
            why = f"its metadata cannot be read: {type(error).__name__}: {summary(error)}"
            found[where, ""] = Source(where, "", "entry_points.txt", None, problem=why)
            continue
        if homes.setdefault(_normal(package), dist) is not dist:
            continue  # the first one on the path is the one that Python imports
        for point in points:
            value = _shown(point.value)
            found[package, value] = Source(package, version, value, point)
    wanted = _wanted([s.package for s in found.values() if s.point])
    chosen = [
        s if wanted is None or _normal(s.package) in wanted else replace(s, loads=False)
        for s in found.values()
    ]
    return sorted(chosen, key=lambda s: (s.package != BUNDLED, s.package, s.value))


def _normal(package: str) -> str:
    """Return a distribution's name in the form in which package indexes compare names."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _wanted(packages: Sequence[str]) -> set[str] | None:
    """Return the normalised names that ``FEDBENCH_PLUGINS`` allows; ``None`` for all."""
    given = os.environ.get(LIMIT)
    if given is None:
        return None
    known = {_normal(p): p for p in packages}
    wanted = {n.strip() for n in given.split(",") if n.strip()}
    for name in sorted(wanted):
        if _normal(name) not in known:
            near = did_you_mean(name, known.values())
            raise ConfigError(f"{LIMIT}: no installed package {name!r} has plugins{near}")
    return {_normal(n) for n in (BUNDLED, *wanted)}


def discover() -> Registry:
    """Load every package of the entry-point group, one by one, and return the registry.

    With ``FEDBENCH_PLUGINS=name,name`` only those packages and the bundled ones are loaded.

    Raises:
        ConfigError: when ``FEDBENCH_PLUGINS`` names a package that is not installed.
    """
    registry = Registry()
    for source in sources():
        if not source.loads:
            registry.left_out.append(source.label)
        elif source.point is None:
            registry.failures[source.label] = source.problem
        else:
            try:
                module = source.point.load()
                registry.add(module, source.package, source.version, api_required=True)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # even sys.exit(): it must not break the others
                registry.failures[source.label] = _why(error)
    return registry


def _shown(text: object) -> str:
    return printable(str(text).strip())[:500]


def _why(error: BaseException) -> str:
    """Return in one line why a package cannot be loaded."""
    text = f"{type(error).__name__}: {summary(error)}".removesuffix(": ")
    if isinstance(error, ValueError) and "mutable default <class 'dict'>" not in text:
        # Python's advice makes an option that can change.
        advice = "options never change: use tuple[str, ...] with a tuple as its default"
        text = text.replace("is not allowed: use default_factory", f"is not allowed: {advice}")
    return text
