"""What a user names to run, a method or a YAML file, with flags, resolved to a config."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..plugins.registry import Registry
from . import yamlfile
from .merging import Merged
from .model import RunConfig
from .resolve import resolve


def resolve_target(
    registry: Registry,
    target: str | RunConfig | None,
    *,
    file: Path | None = None,
    executor: str | None = None,
    workers: int | None = None,
    any_method: bool = False,
    seen: Callable[[Merged], object] = lambda merged: None,
    card: str | None = None,
    sets: Sequence[str] = (),
    without: Sequence[str] = (),
    plus: Sequence[str] = (),
    **flags: Any,
) -> RunConfig:
    """Resolve a method's name, a YAML file or a config.

    Args:
        registry: what is installed.
        target: the name of a method; the path of a file, which ends in ``.yaml`` or ``.yml``; or
            a config.
        file: a YAML file besides a method's name.
        executor: the executor's name.
        workers: the executor's option of that name.
        any_method: whether neither has to name a method, for a caller that needs only the card.
        seen: as in `resolve`, like ``card``, ``sets``, ``without`` and ``plus``.
        flags: other top-level keys.

    Raises:
        ConfigError: naming the file, line and key, and the nearest valid name.
    """
    document = None
    if isinstance(target, RunConfig):
        document, target = yamlfile.Document(target.to_dict(), "config"), None
        if file:
            raise ConfigError(f"a config and --config {file}: give one of them")
    elif target and Path(target).suffix in (".yaml", ".yml"):
        target = os.path.expanduser(target)
        if file:
            raise ConfigError(f"{target} and --config {file}: give one file")
        file, target = Path(target), None
    if file:
        document = yamlfile.read(file)
    if any_method and not target and not (document and {"recipe", "method"} & document.data.keys()):
        target = registry.names("recipe")[0]
    if workers is not None or executor:
        where = {"name": executor, "workers": workers}
        flags["executor"] = {key: value for key, value in where.items() if value is not None}
    return resolve(
        registry, target, file=document, card=card, sets=sets, without=without, plus=plus,
        flags=flags, seen=seen,
    )  # fmt: skip
