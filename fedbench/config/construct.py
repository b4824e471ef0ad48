"""Build what a resolved config names: the data set, model, metrics, executor and plugins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from .. import options
from ..plugins.hooks import RunPlugins
from ..plugins.registry import Registry
from ..watching import UNWATCHED, Watch
from .model import RunConfig

if TYPE_CHECKING:
    from ..contracts import DataSource, Executor, Metric, ModelSource


@overload
def build(
    registry: Registry, kind: Literal["dataset"], choice: Mapping[str, Any]
) -> DataSource: ...
@overload
def build(registry: Registry, kind: Literal["model"], choice: Mapping[str, Any]) -> ModelSource: ...
@overload
def build(registry: Registry, kind: Literal["metric"], choice: Mapping[str, Any]) -> Metric: ...
@overload
def build(registry: Registry, kind: Literal["executor"], choice: Mapping[str, Any]) -> Executor: ...
def build(registry: Registry, kind: str, choice: Mapping[str, Any]) -> Any:
    """Build what a choice ``{name: ..., option: ...}`` names, with its options.

    Raises:
        ConfigError: for an unknown name or an invalid option.
    """
    given = {k: v for k, v in choice.items() if k != "name"}
    cls = registry.get(kind, str(choice["name"])).value
    return options.build(cls, given, lambda path: ".".join((kind, *path)))


def build_plugins(registry: Registry, config: RunConfig, watch: Watch = UNWATCHED) -> RunPlugins:
    """Build the run's plugins and check that they fit together.

    Raises:
        ConfigError: for an unknown plugin or an invalid option, or as `RunPlugins` says.
        PluginError: as `RunPlugins` says.
    """
    return RunPlugins(
        [
            (name, options.build(registry.get("plugin", name).value, given, dotted(name)))
            for name, given in config.plugins.items()
        ],
        watch,
        registry.implementing,
    )


def dotted(name: str) -> options.Where:
    """Return a function that names the options of ``name`` in errors: ``name.option``."""
    return lambda path: ".".join((name, *path))
