"""The config of a run directory, resolved for running it again or further.

Two things are different from a file that the user names as a config. Only the executor may be
changed, because everything else belongs to the run. And the machines that it would connect to count
only when the user repeats them: a run directory may come from someone else, whose cluster or server
would receive code, data and credentials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..plugins.facts import ExecutorFacts, PluginFacts, facts
from ..plugins.registry import Registry
from . import layers
from .model import RunConfig
from .resolve import resolve
from .yamlfile import Document, KeyPath


def resolve_kept(
    registry: Registry,
    file: Document,
    *,
    executor: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    observed: bool = True,
) -> RunConfig:
    """Resolve a run directory's config.

    Args:
        registry: what is installed.
        file: the directory's config file.
        executor: name and options to use instead of the kept ones.
        sets: ``key=value`` as for `resolve`; they repeat addresses and set options of the executor.
        observed: whether the plugins are told of rounds, so that they may connect, too.

    Raises:
        ConfigError: for an address that is not repeated, or a value that changes more than the
            executor.
    """
    flags = {"executor": dict(executor)} if executor else {}
    config = resolve(registry, file=file, sets=sets, flags=flags)
    check_same(registry, file, config)
    said = layers.from_flags(registry, sets, flags).documents
    for path, value in _addresses(registry, config, observed):
        if not any(_sets(layer.data, path) for layer in said):
            other = ", or choose another --executor" if path[0] == "executor" else ""
            raise ConfigError(
                f"{file.where(path)}: {value} is not connected to unless you repeat it, because a "
                f"run directory may come from someone else: add --set {'.'.join(path)}={value}"
                f"{other}"
            )
    return config


def check_same(registry: Registry, file: Document, config: RunConfig) -> None:
    """Check that ``config`` differs from a run directory's config file in the executor at most.

    Raises:
        ConfigError: when anything differs that the result depends on.
    """
    if resolve(registry, file=file).hash != config.hash:
        raise ConfigError(
            f"{file.source}: the run has another config; only its executor can be changed"
        )


def _addresses(
    registry: Registry, config: RunConfig, plugins: bool
) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the key and value of every option that names a machine to connect to."""
    choice = config.executor
    cls = registry.get("executor", str(choice["name"])).value
    for name in facts(ExecutorFacts, cls).addresses:
        if choice.get(name) is not None:
            yield ("executor", name), choice[name]
    for plugin, given in config.plugins.items() if plugins else ():
        for name in facts(PluginFacts, registry.get("plugin", plugin).value).addresses:
            if given.get(name) is not None:
                yield (plugin, name), given[name]


def _sets(data: Mapping[str, Any], path: KeyPath) -> bool:
    """Whether a layer gives the key, which may also be written in full, as in a file."""
    first, last = path
    places = (data.get(first), data.get("plugins", {}).get(first))
    return any(isinstance(place, Mapping) and last in place for place in places)
