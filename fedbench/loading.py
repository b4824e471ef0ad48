"""Load the data set that a config names, or take the one that this process keeps.

`fedbench.cli.warm` keeps the data of a study, and the runs that it forks share them with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .ambient import settled
from .config.construct import build
from .plugins.registry import Registry
from .store import fingerprint
from .types import Dataset

KEPT = 2
"""How many data sets are kept at most: a study goes from one to the next."""

Key: TypeAlias = tuple[type, str, Path]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A data set as its source loads it, and a digest of every byte of it."""

    data: Dataset
    digest: str


_kept: dict[Key, Loaded] = {}


def load(registry: Registry, choice: Mapping[str, Any], root: Path) -> Loaded:
    """Return a data set: the one that `keep` has kept, or else as its source loads it.

    Args:
        registry: what is installed.
        choice: a config's ``data``, the name of a data set and its options.
        root: where data sets look for files.

    Raises:
        ConfigError: for an unknown name or an invalid option, and what the source raises.
    """
    found = _kept.get(_key(registry, choice, root))
    if found is None:
        data = build(registry, "dataset", choice).load(root)
        found = Loaded(data, fingerprint.of_data(data))
    return found


def keep(registry: Registry, choice: Mapping[str, Any], root: Path) -> None:
    """Load a data set for this process and those that it will fork; arguments as for `load`.

    Only a process that forks may call this: in any other one, a run that writes into the data would
    change those of the next run. The data sets that were used last are kept.
    """
    key = _key(registry, choice, root)
    with settled():
        found = load(registry, choice, root)
    _kept.pop(key, None)
    _kept[key] = found
    for old in list(_kept)[:-KEPT]:
        del _kept[old]


def _key(registry: Registry, choice: Mapping[str, Any], root: Path) -> Key:
    source = registry.get("dataset", str(choice["name"])).value
    return source, json.dumps(choice, sort_keys=True), root
