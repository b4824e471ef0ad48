"""Bundled data sets, partitions, transforms and cards."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

from fedbench.hookspecs import hookimpl

from . import embedded, partitions, transforms


@hookimpl
def register_datasets() -> Mapping[str, type]:
    """Return the bundled data sets."""
    return {"digits": embedded.Digits}


@hookimpl
def register_plugins() -> Mapping[str, type]:
    """Return the bundled partitions and transforms."""
    return {"domains": partitions.Domains, "normalize": transforms.Normalize}


@hookimpl
def register_cards() -> Mapping[str, Traversable]:
    """Return the bundled protocol cards, one YAML file each."""
    folder = resources.files(__name__) / "cards"
    files = sorted(folder.iterdir(), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): f for f in files if f.name.endswith(".yaml")}
