"""Cards: named, versioned protocols in YAML, with a reason for each value.

A protocol fixes what a comparison must hold constant: data, partition, model, training, number of
rounds, and the rule that turns rounds into one accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .. import options
from ..plugins.registry import Registry
from . import yamlfile
from .model import digest


@dataclass(frozen=True)
class Published:
    """A published accuracy: method, column (``mean`` or a domain), value in [0, 1], and source."""

    method: Annotated[str, Field(min_length=1)]
    column: Annotated[str, Field(min_length=1)]
    value: Annotated[float, Field(ge=0, le=1)]
    source: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Card:
    """A named, versioned protocol: config values, the reason for each, and published results."""

    name: str
    version: int
    title: str
    config: dict[str, Any]
    reasons: dict[str, str]
    published: tuple[Published, ...] = ()

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 over name, version and values."""
        return digest({**self.config, "card": self.name, "version": self.version})[:12]

    @property
    def data(self) -> str:
        """The name of the data set that it is for."""
        data = self.config["data"]
        return str(data["name"] if isinstance(data, dict) else data)


def load_card(registry: Registry, name: str) -> Card:
    """Read the card ``name``.

    Raises:
        ConfigError: when there is no such card, or its file is malformed.
    """
    path = registry.get("card", name).value
    document = yamlfile.parse(path.read_text(encoding="utf-8"), str(path))
    data = {("name" if key == "card" else key): value for key, value in document.data.items()}
    return options.build(
        Card, data, lambda p: document.where(tuple("card" if k == "name" else k for k in p))
    )
