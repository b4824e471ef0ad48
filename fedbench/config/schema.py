"""The JSON schema of config files, which editors use to complete and check them."""

from __future__ import annotations

from typing import Any

from .. import options
from ..plugins.registry import Registry
from .layers import CHOICES
from .model import RunConfig


def json_schema(registry: Registry) -> dict[str, Any]:
    """Return a JSON schema of config files, made from the plugins that are installed."""
    base = options.schema(RunConfig)

    def choice(kind: str) -> dict[str, Any]:
        variants = []
        for entry in registry.all(kind):
            inner = options.schema(entry.value)
            properties = {"name": {"const": entry.name}, **inner.get("properties", {})}
            variants.append({**inner, "properties": properties, "required": ["name"]})
        return {"anyOf": [{"enum": registry.names(kind)}, *variants]}

    def mapping(kind: str) -> dict[str, Any]:
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                e.name: {**options.schema(e.value), "type": ["object", "null"]}
                for e in registry.all(kind)
            },
        }

    properties = dict(base["properties"])
    for key, kind in CHOICES.items():
        properties[key] = {**choice(kind), "description": properties[key].get("description", "")}
    properties["plugins"] = mapping("plugin")
    properties["metrics"] = mapping("metric")
    properties["recipe"] = {"enum": registry.names("recipe")}
    properties["card"] = {"enum": registry.names("card")}
    properties["without"] = {
        "type": "array",
        "items": {"enum": registry.names("plugin")},
        "description": "plugins of recipe and card to leave out",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fedbench run",
        **{k: v for k, v in base.items() if k not in ("required", "properties", "title")},
        "properties": properties,
    }
